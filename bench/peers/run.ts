/**
 * Trilith beside llama.cpp (the npm package node-llama-cpp) on the same made-up model, with the same
 * threads, in turn: what anybody can repeat with nothing but npm.
 *
 *     deno run -A bench/peers/run.ts --shape bitnet-2b-4t --threads 2 --repeat 5 --json > peers.json
 *     deno run -A cli.ts bench report --peers peers.json
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { Command, Option } from "commander";
import { wholeNumber } from "../../cli/flags.ts";
import { digits, table } from "../../cli/format.ts";
import { processIo } from "../../cli/io.ts";
import { kernelName } from "../../codegen/ternary_linear/spec.ts";
import { BenchSession } from "../../runtime/bench/session.ts";
import { median, rateOf } from "../../runtime/bench/statistics.ts";
import type { PeerReport, PeersReport } from "../../runtime/bench/types.ts";
import { createSampler } from "../../runtime/sampler.ts";
import { SHAPES } from "../../runtime/shapes.ts";
import { GGUF_FORMATS, type GgufFormat, writeGguf } from "./gguf.ts";
import type { PeerTimes } from "./llama_cpp.ts";
import { installPeer, PACKAGE_VERSION, Peer } from "./process.ts";

interface Flags {
  shape: string;
  threads: number;
  promptTokens: number;
  genTokens: number;
  repeat: number;
  formats: GgufFormat[];
  json?: boolean;
}

const say = (message: string) => process.stderr.write(`${message}\n`);

function parse(argv: readonly string[]): Flags {
  const formats = new Option("--formats <names...>", "GGUF formats of the weights")
    .choices(GGUF_FORMATS).default([...GGUF_FORMATS]);
  return new Command("bench/peers/run.ts")
    .description("Trilith beside llama.cpp on the same made-up model, in one run")
    .addOption(
      new Option("--shape <name>", "shape of the model").choices(Object.keys(SHAPES))
        .default("bitnet-2b-4t"),
    )
    .option("-t, --threads <n>", "threads of each", wholeNumber("--threads", 1, 1024), 2)
    .option("-p, --prompt-tokens <n>", "tokens to prefill", wholeNumber("-p", 1, 2048), 128)
    .option("-n, --gen-tokens <n>", "tokens to decode", wholeNumber("-n", 1, 2048), 32)
    .option("-r, --repeat <n>", "turns, of which medians count", wholeNumber("-r", 1, 1000), 5)
    .addOption(formats)
    .option("--json", "print one JSON document on standard output")
    .parse([...argv], { from: "user" })
    .opts<Flags>();
}

/** The whole benchmark: for each format a file, a process, and turns. */
export async function comparePeers(flags: Flags): Promise<PeersReport> {
  const folder = installPeer(say);
  await using session = await BenchSession.open({ ...flags });
  const peers: PeerReport[] = [];
  for (const format of flags.formats) peers.push(await compare(session, folder, format, flags));
  const { shape, threads, promptTokens, genTokens, repeat } = flags;
  return {
    shape,
    threads,
    promptTokens,
    genTokens,
    repeat,
    cpu: session.opened.cpu.modelName,
    kernel: kernelName(session.opened.kernel),
    package: `node-llama-cpp ${PACKAGE_VERSION}`,
    trilithBytesPerToken: session.plan.bytesPerToken,
    peers,
  };
}

async function compare(
  session: BenchSession,
  folder: string,
  format: GgufFormat,
  flags: Flags,
): Promise<PeerReport> {
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-peers-"));
  const clear = () => fs.rmSync(temporary, { recursive: true, force: true });
  // Files of a gigabyte must not stay behind; the peer's process ends with this one's pipe.
  const stop = () => {
    clear();
    process.exit(130);
  };
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    const file = path.join(temporary, `${flags.shape}-${format}.gguf`);
    say(`Writing ${format}`);
    const { fileBytes, bytesPerToken } = writeGguf(file, session.spec, format);
    const context = flags.promptTokens + flags.genTokens + 1;
    const started = await Peer.start(folder, file, flags.threads, context);
    if ("problem" in started) return { format, problem: started.problem };
    const { peer, build } = started;
    try {
      return {
        format,
        build,
        fileBytes,
        bytesPerToken,
        ...await takeTurns(session, peer, format, flags),
      };
    } finally {
      await peer.stop();
    }
  } catch (error) {
    return { format, problem: (error as Error).message };
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
    clear();
  }
}

async function takeTurns(session: BenchSession, peer: Peer, format: string, flags: Flags) {
  const ours: PeerTimes[] = [], theirs: PeerTimes[] = [], peaks: number[] = [];
  for (let i = 0; i <= flags.repeat; i++) {
    say(i === 0 ? `Warming up with ${format}` : `Measuring ${format}, ${i} of ${flags.repeat}`);
    const peak = session.plan.totalBytes / await session.readSeconds();
    const times = [await measureOurs(session, flags), await peer.measure(flags)];
    if (i === 0) continue;
    peaks.push(peak);
    ours.push(times[0]);
    theirs.push(times[1]);
  }
  const ratioOf = (key: keyof PeerTimes) => median(ours.map((own, i) => theirs[i][key] / own[key]));
  return {
    peakReadBytesPerSecond: median(peaks),
    prefill: rateOf(theirs.map((times) => flags.promptTokens / times.prefillSeconds)),
    decode: rateOf(theirs.map((times) => flags.genTokens / times.decodeSeconds)),
    trilithPrefill: rateOf(ours.map((times) => flags.promptTokens / times.prefillSeconds)),
    trilithDecode: rateOf(ours.map((times) => flags.genTokens / times.decodeSeconds)),
    prefillRatio: ratioOf("prefillSeconds"),
    decodeRatio: ratioOf("decodeSeconds"),
  };
}

/** As the other side does it: greedy, prefill ends with the first token. */
async function measureOurs(
  session: BenchSession,
  { promptTokens, genTokens }: Flags,
): Promise<PeerTimes> {
  const sampler = createSampler({ temperature: 0 }, session.spec.vocabSize);
  const started = performance.now();
  sampler.sample(await session.prefillAll(promptTokens), []);
  const prefilled = performance.now();
  for (let i = 0; i < genTokens; i++) {
    sampler.sample(await session.decode(promptTokens + i), []);
  }
  const decoded = performance.now();
  return {
    prefillSeconds: (prefilled - started) / 1000,
    decodeSeconds: (decoded - prefilled) / 1000,
  };
}

function print(report: PeersReport): void {
  const { stdout } = processIo();
  const { shape, cpu, threads, promptTokens, genTokens } = report;
  stdout.write(`${shape} on ${cpu}, ${threads} threads, medians of ${report.repeat}\n`);
  stdout.write(`Trilith ${report.kernel} beside llama.cpp of ${report.package}\n\n`);
  const headings = ["format", `prefill ${promptTokens}`, "Trilith", "x"];
  const rows = report.peers.flatMap((peer) =>
    "problem" in peer ? [] : [[
      peer.format,
      digits(peer.prefill.tokensPerSecond),
      digits(peer.trilithPrefill.tokensPerSecond),
      digits(peer.prefillRatio),
      digits(peer.decode.tokensPerSecond),
      digits(peer.trilithDecode.tokensPerSecond),
      digits(peer.decodeRatio),
    ]]
  );
  stdout.write(table(stdout, [...headings, `decode ${genTokens}`, "Trilith", "x"], rows));
  for (const peer of report.peers) {
    if ("problem" in peer) stdout.write(`${peer.format} does not run: ${peer.problem}\n`);
  }
}

if (import.meta.main) {
  const flags = parse(process.argv.slice(2));
  const report = await comparePeers(flags);
  if (flags.json) console.log(JSON.stringify(report));
  else print(report);
}
