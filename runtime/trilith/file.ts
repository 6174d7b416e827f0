/**
 * A model in one file, `NAME.trilith`: weights in the order in which kernels read them, so that they are
 * mapped as they lie, and all that is beside them.
 *
 *     64 KiB   header: JSON, padded with spaces
 *     data     as `planOf(spec, layout)` lays it out
 *     texts    config.json, tokenizer.json and the like, one after the other
 *
 * The header names the layout and has a digest of where that puts a sample's weights and of the plan: a
 * version of Trilith that would read the data otherwise refuses it.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { crc32 } from "node:zlib";
import type { TernaryLayout } from "../../codegen/layouts/layout.ts";
import type { ModelSpec } from "../../codegen/model_spec.ts";
import { planOf } from "../../codegen/plan.ts";
import { LAYOUTS } from "../../codegen/ternary_linear/spec.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { type CompanionName, type Companions, textCompanions } from "../companions.ts";
import type { ModelConfig } from "../config.ts";
import { CheckpointError, shown } from "../errors.ts";
import { isJsonObject, type Json, parseJson, utf8Text } from "../json.ts";
import { HEADER_BYTES, type PackedFile, packedKey } from "../packed_file.ts";
import type { WeightFile } from "../tensors.ts";
import { CONFIG_FIELDS, configJson, parseConfigJson } from "./config_json.ts";

const MAGIC = "trilith-model-1";
export const CONFIG_NAME = "config.json";

/** Files up to this size are checked against their checksum whenever they are opened. */
const CHECKED_BYTES = 64 << 20;

/** Texts of a whole model are far below this. */
const MAX_TEXT_BYTES = 1 << 30;

export interface TextPlace {
  name: CompanionName | typeof CONFIG_NAME;
  offset: number;
  bytes: number;
}

interface Header {
  magic: string;
  layout: string;
  /** See `planDigest`. */
  digest: string;
  /** `CONFIG_FIELDS` of the version that wrote it; the first versions wrote none. */
  fields?: string;
  dataBytes: number;
  /** CRC-32 of the data; null while it is written. */
  checksum: number | null;
  texts: readonly TextPlace[];
  config: Json;
}

/** The weights of such a file, and what is known of them. */
export interface PackedModel {
  file: PackedFile;
  layout: TernaryLayout;
  config: ModelConfig;
}

/** Changes whenever the same data would be read as other weights. */
export function planDigest(spec: ModelSpec, layout: TernaryLayout): string {
  return packedKey({ spec, layout, identity: MAGIC });
}

/** The header's bytes. @throws {RangeError} If it is longer than its place. */
export function encodeTrilithHeader(
  config: ModelConfig,
  layout: TernaryLayout,
  texts: readonly TextPlace[],
  checksum: number | null,
): Uint8Array {
  const header = {
    magic: MAGIC,
    layout: layout.name,
    digest: planDigest(config.spec, layout),
    fields: CONFIG_FIELDS,
    dataBytes: planOf(config.spec, layout).totalBytes,
    checksum,
    texts,
    config: configJson(config),
  };
  const bytes = new TextEncoder().encode(JSON.stringify(header));
  if (bytes.length > HEADER_BYTES) {
    throw new RangeError(`Cannot write a header of ${bytes.length} bytes: it has ${HEADER_BYTES}`);
  }
  const padded = new Uint8Array(HEADER_BYTES).fill(0x20);
  padded.set(bytes);
  return padded;
}

export function isTrilithFile(path: string): boolean {
  return /\.trilith$/i.test(path);
}

/**
 * Opens such a file.
 *
 * @throws {CheckpointError} If it is damaged, unfinished, or of another version of Trilith.
 */
export async function openTrilithFile(path: string): Promise<Checkpoint> {
  const handle = await open(path, "r");
  try {
    const { size, mtimeMs } = await handle.stat();
    const fail = (reason: string) => new CheckpointError(`Cannot open ${shown(path)}: ${reason}`);
    const head = await readAt(handle, 0, Math.min(HEADER_BYTES, size));
    const header = headerOf(head, fail);
    const config = configOf(header, path, fail);
    const layout = layoutOf(header, config, fail);
    checkSizes(header, config.spec, layout, size, fail);
    await checkData(handle, header, fail);
    const textOf = await readTexts(handle, header, path);
    const file: WeightFile = {
      path,
      fileBytes: size,
      modifiedMs: Math.floor(mtimeMs),
      headerSha256: createHash("sha256").update(head).digest("hex"),
    };
    const packed = { file: { path, dataBytes: header.dataBytes }, layout, config };
    return new TrilithCheckpoint(path, packed, file, textOf);
  } finally {
    await handle.close();
  }
}

type Fail = (reason: string) => CheckpointError;

function headerOf(head: Uint8Array, fail: Fail): Header {
  let json: Json = null;
  try {
    json = parseJson(utf8Text(head, "the header").trimEnd(), "the header");
  } catch {
    // Told below.
  }
  if (
    !isJsonObject(json) || typeof json.magic !== "string" || !/^trilith-model-/.test(json.magic)
  ) {
    throw fail("it is not a file that trilith convert has written");
  }
  if (json.magic !== MAGIC) throw otherVersion(fail);
  if (typeof json.checksum !== "number") throw fail("it was not written to its end: convert again");
  const isSound = typeof json.layout === "string" && typeof json.digest === "string" &&
    typeof json.dataBytes === "number" && Array.isArray(json.texts) && json.texts.every(isPlace);
  if (!isSound) throw fail("its header is damaged");
  return json as unknown as Header;
}

function isPlace(value: Json): boolean {
  return isJsonObject(value) && typeof value.name === "string" &&
    [value.offset, value.bytes].every((n) => Number.isSafeInteger(n) && Number(n) >= 0);
}

/** What another version knows of a model may be more or less: that is no damage. */
function configOf({ config, fields }: Header, path: string, fail: Fail): ModelConfig {
  try {
    return parseConfigJson(config, path);
  } catch (error) {
    if (fields === CONFIG_FIELDS) throw error;
    throw otherVersion(fail);
  }
}

function otherVersion(fail: Fail): CheckpointError {
  return fail(
    "another version of Trilith wrote it: convert the model that it was made of again, with this one",
  );
}

function layoutOf({ layout: name, digest }: Header, { spec }: ModelConfig, fail: Fail) {
  const layout = LAYOUTS.find((each) => each.name === name);
  if (layout === undefined || planDigest(spec, layout) !== digest) throw otherVersion(fail);
  return layout;
}

/** Data and texts fill the file. */
function checkSizes(
  { dataBytes, texts }: Header,
  spec: ModelSpec,
  layout: TernaryLayout,
  size: number,
  fail: Fail,
): void {
  let end = HEADER_BYTES + dataBytes;
  const isSound = dataBytes === planOf(spec, layout).totalBytes && texts.every((place) => {
    const isNext = place.offset === end && place.bytes <= MAX_TEXT_BYTES;
    end += place.bytes;
    return isNext;
  });
  if (!isSound) throw fail("its header is damaged");
  if (end !== size) throw fail(`it should have ${end} bytes and has ${size}: copy it again`);
}

async function checkData(handle: FileHandle, { dataBytes, checksum }: Header, fail: Fail) {
  if (dataBytes > CHECKED_BYTES) return;
  if (await dataChecksum(handle, dataBytes) !== checksum) {
    throw fail("its weights are damaged: copy it again");
  }
}

/** CRC-32 of the data. */
export async function dataChecksum(handle: FileHandle, dataBytes: number): Promise<number> {
  let checksum = 0;
  const piece = 8 << 20;
  for (let at = 0; at < dataBytes; at += piece) {
    const bytes = await readAt(handle, HEADER_BYTES + at, Math.min(piece, dataBytes - at));
    checksum = crc32(bytes, checksum);
  }
  return checksum;
}

export async function readAt(
  handle: FileHandle,
  from: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(bytes, done, length - done, from + done);
    if (bytesRead === 0) throw new CheckpointError("Cannot read the model: its file was cut short");
    done += bytesRead;
  }
  return bytes;
}

/** Kept as bytes: a tokenizer's text is 70 MB as a string. */
async function readTexts(handle: FileHandle, { texts }: Header, path: string) {
  const found = new Map<string, Uint8Array>();
  for (const { name, offset, bytes } of texts) found.set(name, await readAt(handle, offset, bytes));
  return (name: string) => {
    const bytes = found.get(name);
    return bytes === undefined ? null : utf8Text(bytes, `${name} in ${shown(path)}`);
  };
}

class TrilithCheckpoint implements Checkpoint {
  readonly folder: string;
  readonly name: string;
  readonly format = "packed";
  readonly configText: string;
  readonly companions: Companions;
  readonly files: readonly WeightFile[];
  readonly tensors: Checkpoint["tensors"] = new Map();

  constructor(
    path: string,
    readonly packed: PackedModel,
    file: WeightFile,
    textOf: (name: string) => string | null,
  ) {
    this.folder = dirname(resolve(path));
    this.name = packed.config.name;
    this.configText = textOf(CONFIG_NAME) ?? "{}";
    this.companions = textCompanions(basename(path), (name) => Promise.try(() => textOf(name)));
    this.files = [file];
  }

  read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return Promise.reject(
      new CheckpointError(`Cannot read ${shown(name)}: the model's weights are packed already`),
    );
  }

  readRange(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.read(name);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
