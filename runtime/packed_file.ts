import { createHash } from "node:crypto";
import { open, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { crc32 } from "node:zlib";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import { planOf } from "../codegen/plan.ts";
import { cacheDirectory, publishFile, removeStaleTemporaries, withLock } from "../kernels/cache.ts";
import { MAP_ALIGNMENT } from "../kernels/native_model.ts";
import { BlockWriter, Flusher, writeAll } from "./block_writer.ts";
import { packModel, type PackOptions } from "./pack.ts";
import type { TernaryPacker } from "./ternary_packer.ts";
import type { WeightSource } from "./weights.ts";

/**
 * The packed weights of a model, on disk: a header of 64 KiB, then the data as `planOf` lays it
 * out. The header is JSON padded with spaces:
 *
 *     {"magic": "trilith-packed-2", "key": ..., "origin": ..., "layout": ..., "dataBytes": ...,
 *      "checksum": CRC-32 of the data}
 *
 * The key is the SHA-256 of the source's identity, the spec and the layout (its sizes, and where it
 * puts a sample's weights), so that a change of any gives another file.
 */
export const HEADER_BYTES = MAP_ALIGNMENT;
const MAGIC = "trilith-packed-2";

/** More than a unit of blocks of rows, more than a slice of features. */
const SAMPLE_N = 140;
const SAMPLE_K = 260;

/** Files up to this size are checked against their checksum whenever they are opened. */
const CHECKED_BYTES = 64 << 20;

interface Header {
  magic: string;
  key: string;
  /** What it was packed from: the same whenever the checkpoint changes. */
  origin: string;
  layout: string;
  dataBytes: number;
  checksum: number;
}

export interface PackedFile {
  path: string;
  dataBytes: number;
}

export interface PackedSource {
  spec: ModelSpec;
  layout: TernaryLayout;
  /** Where the checkpoint is, and how it is read. */
  origin: string;
  /** Changes whenever the checkpoint does. */
  identity: string;
  /** Opened only when there is no packed file yet. */
  weights: () => WeightSource;
  /** Of that layout. Made only when there is no packed file yet, and closed after use. */
  packer: () => TernaryPacker;
}

/**
 * The packed file of a model, from the cache or made now.
 *
 * @throws {CacheError} If the cache can't be written. Whatever the source says of a bad checkpoint.
 */
export async function ensurePackedFile(
  source: PackedSource,
  options: Omit<PackOptions, "packer"> = {},
): Promise<PackedFile> {
  const directory = cacheDirectory("models");
  const key = packedKey(source);
  const name = `${key.slice(0, 32)}.packed`;
  const file = path.join(directory, name);
  const dataBytes = planOf(source.spec, source.layout).totalBytes;
  if (await isWhole(file, key, dataBytes)) return { path: file, dataBytes };
  return await withLock(directory, name, async () => {
    if (!await isWhole(file, key, dataBytes)) {
      // What a killed process left may be as large as a model.
      removeStaleTemporaries(directory);
      await write(directory, name, key, source, options);
    }
    return { path: file, dataBytes };
  }, { signal: options.signal });
}

export function packedKey(
  { spec, layout, identity }: Pick<PackedSource, "spec" | "layout" | "identity">,
): string {
  const plan = planOf(spec, layout);
  return createHash("sha256")
    .update(JSON.stringify([MAGIC, identity, spec, layout.name, plan]))
    .update(packedSample(layout))
    .digest("hex");
}

/**
 * A small matrix in a layout. A layout that lets weights lie elsewhere than the last version did
 * keeps its name and its sizes: without this a file of the last version would be read as noise.
 */
function packedSample(layout: TernaryLayout): Uint8Array {
  const codes = new Uint8Array(SAMPLE_N * SAMPLE_K);
  for (let i = 0; i < codes.length; i++) codes[i] = (Math.imul(i, 0x9e3779b1) >>> 8) % 3;
  return packMatrix(layout, codes, SAMPLE_N, SAMPLE_K);
}

async function write(
  directory: string,
  name: string,
  key: string,
  source: PackedSource,
  options: Omit<PackOptions, "packer">,
): Promise<void> {
  using packer = source.packer();
  const { spec, layout, origin } = source;
  const { totalBytes } = planOf(spec, layout);
  await publishFile(directory, name, async (file, temporary) => {
    await using flusher = await Flusher.open(temporary);
    await using blocks = new BlockWriter(async (block, at) => {
      await writeAll(file, block, at);
      flusher.written(block.length);
    });
    const data = new DataWriter(blocks);
    await data.padTo(0);
    const sink = (bytes: Uint8Array, at: number) => data.put(bytes, at);
    await packModel(spec, source.weights(), sink, { ...options, packer });
    await data.padTo(totalBytes);
    await blocks.finish();
    const { checksum } = data;
    const header = {
      magic: MAGIC,
      key,
      origin,
      layout: layout.name,
      dataBytes: totalBytes,
      checksum,
    };
    await writeAll(file, encodeHeader(header), 0);
  });
  await removeSuperseded(directory, name, source);
}

/**
 * Removes what was packed from an earlier state of the same checkpoint, in the same layout: nobody
 * will open it again. Who has mapped it keeps it.
 */
async function removeSuperseded(
  directory: string,
  name: string,
  { origin, layout }: PackedSource,
): Promise<void> {
  for (const { file, header } of await packedFiles(directory)) {
    const isOld = header?.origin === origin && header.layout === layout.name;
    if (isOld && path.basename(file) !== name) await rm(file, { force: true });
  }
}

/** All packed files of a folder; without a header where it can't be read. */
async function packedFiles(directory: string): Promise<{ file: string; header: Header | null }[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".packed"));
  return await Promise.all(names.map(async (name) => {
    const file = path.join(directory, name);
    return { file, header: await headerOf(file) };
  }));
}

/**
 * Packed files that were made from one of these checkpoints, as folders or files.
 * Their checkpoint is not looked at: it may be gone.
 */
export async function packedFilesFrom(
  paths: readonly string[],
): Promise<{ path: string; bytes: number }[]> {
  const made = (await packedFiles(cacheDirectory("models"))).filter(({ header }) =>
    paths.some((from) => header?.origin?.startsWith(`${from} `) || isBelow(header?.origin, from))
  );
  return made.map(({ file, header }) => ({
    path: file,
    bytes: HEADER_BYTES + header!.dataBytes,
  }));
}

function isBelow(origin: string | undefined, folder: string): boolean {
  return origin?.startsWith(folder + path.sep) ?? false;
}

/** The header of a file, or null if it has none or is gone meanwhile. */
async function headerOf(file: string): Promise<Header | null> {
  try {
    const handle = await open(file, "r");
    try {
      return await readHeader(handle);
    } finally {
      await handle.close();
    }
  } catch {
    return null;
  }
}

function encodeHeader(header: Header): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(header).padEnd(HEADER_BYTES));
}

/**
 * Appends parts of the data, behind the header's place, that come in rising order; gaps are filled
 * with zeros, the checksum runs over all.
 */
class DataWriter {
  checksum = 0;
  readonly #blocks: BlockWriter;

  constructor(blocks: BlockWriter) {
    this.#blocks = blocks;
  }

  async put(bytes: Uint8Array, at: number): Promise<void> {
    await this.padTo(at);
    this.checksum = crc32(bytes, this.checksum);
    await this.#blocks.append(bytes);
  }

  async padTo(end: number): Promise<void> {
    const gap = HEADER_BYTES + end - this.#blocks.end;
    if (gap < 0) throw new RangeError(`Cannot write at ${end}: ${end - gap} are written`);
    const zeros = new Uint8Array(gap);
    if (end > 0) this.checksum = crc32(zeros, this.checksum);
    await this.#blocks.append(zeros);
  }
}

/** Whether a packed file is there, is this model's, and was written to its end. */
async function isWhole(file: string, key: string, dataBytes: number): Promise<boolean> {
  let handle;
  try {
    handle = await open(file, "r");
  } catch {
    return false;
  }
  try {
    const { size } = await handle.stat();
    if (size !== HEADER_BYTES + dataBytes) return false;
    const header = await readHeader(handle);
    if (header?.magic !== MAGIC || header.key !== key) return false;
    if (dataBytes > CHECKED_BYTES) return true;
    const data = await readBytes(handle, HEADER_BYTES, dataBytes);
    return crc32(data) === header.checksum;
  } finally {
    await handle.close();
  }
}

interface Readable {
  read(
    bytes: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }>;
}

async function readHeader(handle: Readable): Promise<Header | null> {
  const bytes = await readBytes(handle, 0, HEADER_BYTES);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

async function readBytes(handle: Readable, from: number, length: number) {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, from + done);
    if (bytesRead === 0) throw new Error("The packed file was cut short while it was read");
    done += bytesRead;
  }
  return bytes;
}

/** Bytes of a packed file that are read at once. */
const PIECE_BYTES = 8 << 20;

/** The data of a packed file in pieces, each with its offset: all of it may be larger than memory. */
export async function* packedPieces(
  { path, dataBytes }: PackedFile,
): AsyncGenerator<{ at: number; piece: Uint8Array }> {
  const handle = await open(path, "r");
  try {
    for (let at = 0; at < dataBytes; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, dataBytes - at);
      yield { at, piece: await readBytes(handle, HEADER_BYTES + at, length) };
    }
  } finally {
    await handle.close();
  }
}

/** The data of a packed file in memory. */
export async function readPackedData(file: PackedFile): Promise<Uint8Array> {
  const data = new Uint8Array(file.dataBytes);
  for await (const { at, piece } of packedPieces(file)) data.set(piece, at);
  return data;
}
