import { CheckpointError, shown } from "../../errors.ts";
import { ConfigReader } from "../../config_reader.ts";
import { isJsonObject, type Json, parseJson, readTextFile } from "../../json.ts";
import type { PeerReport, PeersReport, Rate } from "../types.ts";

/** Far more than any machine measures; keeps pictures finite. */
const MOST = 1e15;

/**
 * What `bench/peers/run.ts --json` has written, checked as it may come from anywhere.
 *
 * @throws {CheckpointError} If the file is absent, no JSON, or lacks something.
 */
export async function readPeersFile(path: string): Promise<PeersReport> {
  const text = await readTextFile(path);
  if (text === null) throw new CheckpointError(`Cannot read ${shown(path)}: there is no such file`);
  const json = parseJson(text, shown(path));
  if (!isJsonObject(json)) {
    throw new CheckpointError(
      `Cannot use ${shown(path)} as it must be an object: write it with bench/peers/run.ts --json`,
    );
  }
  return peersOf(new ConfigReader(json, shown(path)), shown(path));
}

function peersOf(reader: ConfigReader, what: string): PeersReport {
  const list = reader.get("peers");
  if (!Array.isArray(list) || list.length === 0) return reader.fail("peers", "a list", list);
  return {
    shape: textOf(reader, "shape"),
    threads: reader.count("threads", 1024),
    promptTokens: reader.count("promptTokens", 1e6),
    genTokens: reader.count("genTokens", 1e6),
    repeat: reader.count("repeat", 1e6),
    cpu: textOf(reader, "cpu"),
    kernel: textOf(reader, "kernel"),
    package: textOf(reader, "package"),
    trilithBytesPerToken: reader.number("trilithBytesPerToken", 0, MOST),
    peers: list.map((peer: Json, i) => {
      if (!isJsonObject(peer)) return reader.fail(`peers[${i}]`, "an object", peer);
      return peerOf(new ConfigReader(peer, `peers[${i}] of ${what}`));
    }),
  };
}

function peerOf(reader: ConfigReader): PeerReport {
  const format = textOf(reader, "format");
  if (reader.has("problem")) return { format, problem: textOf(reader, "problem") };
  return {
    format,
    build: textOf(reader, "build"),
    fileBytes: reader.number("fileBytes", 0, MOST),
    bytesPerToken: reader.number("bytesPerToken", 0, MOST),
    peakReadBytesPerSecond: reader.number("peakReadBytesPerSecond", 0, MOST),
    prefill: rateOf(reader, "prefill"),
    decode: rateOf(reader, "decode"),
    trilithPrefill: rateOf(reader, "trilithPrefill"),
    trilithDecode: rateOf(reader, "trilithDecode"),
    prefillRatio: reader.number("prefillRatio", 0, MOST),
    decodeRatio: reader.number("decodeRatio", 0, MOST),
  };
}

function textOf(reader: ConfigReader, key: string): string {
  return reader.string(key) ?? reader.fail(key, "a string", null);
}

function rateOf(reader: ConfigReader, key: string): Rate {
  const child = reader.child(key) ?? reader.fail(key, "an object", null);
  return {
    tokensPerSecond: child.number("tokensPerSecond", 0, MOST),
    stdev: child.number("stdev", 0, MOST),
  };
}
