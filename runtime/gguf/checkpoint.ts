/** A GGUF model, one file or several, as a Checkpoint with Hugging Face's names and order of rows. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Checkpoint } from "../checkpoint.ts";
import type { Companions } from "../companions.ts";
import { CheckpointError, shown, shownList } from "../errors.ts";
import type { TensorInfo, WeightFile } from "../tensors.ts";
import type { Allocate } from "../weights.ts";
import { type ByteSource, type OpenBytes, openBytes } from "../byte_source.ts";
import { architectureName, configOf, hasTurnedRows, headsOf } from "./config.ts";
import { isFused, partsOf } from "./fused.ts";
import { type GgufHeader, readHeader } from "./header.ts";
import { KeyReader } from "./keys.ts";
import { hfNames, ROPE_FACTORS, turnedHeads } from "./names.ts";
import { RowReader } from "./rows.ts";
import { ggufCompanions } from "./tokenizer.ts";
import type { Metadata } from "./values.ts";

/** How I2_S weights lie, which files do not say; see `rows.ts`. */
export const I2S_LAYOUTS = ["x86", "arm", "rows4"] as const;
export type I2sLayout = (typeof I2S_LAYOUTS)[number];

export interface GgufOptions {
  /** Default: x86, as all published files have it. */
  i2sLayout?: I2sLayout;
}

/** One file of a model. */
interface Part {
  source: ByteSource;
  header: GgufHeader;
}

/**
 * Opens a model by its .gguf file, by any one where it is split.
 *
 * @throws {CheckpointError} If a file is missing, damaged or not what it says.
 * @throws {UnsupportedModelError} If the model is of a kind that this version does not run.
 */
export async function openGguf(
  path: string,
  options: GgufOptions = {},
  open: OpenBytes = openBytes,
): Promise<Checkpoint> {
  const parts = await openParts(path, open);
  try {
    return await checkpointOf(parts, options);
  } catch (error) {
    await closeAll(parts);
    throw error;
  }
}

/** The tokenizer and the like of a file, which may hold nothing else. @throws As `openGguf`. */
export async function ggufFileCompanions(path: string): Promise<Companions> {
  const source = await openBytes((await partPaths(path))[0]);
  try {
    return ggufCompanions((await readHeader(source)).metadata, path);
  } finally {
    await source.close();
  }
}

/** The GGUF models of a folder, each by its first file. */
export async function ggufModels(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => /\.gguf$/i.test(name)).toSorted();
  const isFirst = (name: string) => (PART_NAME.exec(name)?.groups?.number ?? "00001") === "00001";
  return names.filter(isFirst).map((name) => join(folder, name));
}

// ---------------------------------------------------------------- split files

const PART_NAME = /^(?<stem>.*)-(?<number>\d{5})-of-(?<count>\d{5})(?<end>\.gguf)$/i;
const MAX_PARTS = 1000;

/** Paths of all files of the model that a file belongs to. */
function partPaths(path: string): Promise<string[]> {
  const match = PART_NAME.exec(basename(path));
  if (match === null) return Promise.resolve([path]);
  const { stem, count, end } = match.groups!;
  const parts = Number(count);
  if (parts < 1 || parts > MAX_PARTS) {
    return Promise.reject(
      new CheckpointError(
        `Cannot open ${shown(path)}: a model is split in 1 to ${MAX_PARTS} files: its name says ` +
          `${parts}`,
      ),
    );
  }
  const nameOf = (part: number) => `${stem}-${String(part).padStart(5, "0")}-of-${count}${end}`;
  return Promise.resolve(
    Array.from({ length: parts }, (_, i) => join(dirname(path), nameOf(i + 1))),
  );
}

async function openParts(path: string, open: OpenBytes): Promise<Part[]> {
  const parts: Part[] = [];
  try {
    for (const part of await partPaths(path)) {
      const source = await open(part);
      // Closed with the others if its header is no good.
      const opened = { source, header: null as unknown as GgufHeader };
      parts.push(opened);
      opened.header = await readHeader(source);
    }
    checkParts(parts);
    return parts;
  } catch (error) {
    await closeAll(parts);
    throw error;
  }
}

async function closeAll(parts: readonly Part[]): Promise<void> {
  await Promise.all(parts.map(({ source }) => source.close()));
}

function checkParts(parts: readonly Part[]): void {
  for (const [i, { source, header: { metadata } }] of parts.entries()) {
    const keys = new KeyReader(metadata, "split.");
    const number = keys.count("no") ?? 0;
    const count = keys.count("count") ?? 1;
    // Programs write 0 for a file that is not split.
    if (number === i && (count || 1) === parts.length) continue;
    throw new CheckpointError(
      `Cannot open ${shown(source.path)}: it says that it is part ${number + 1} of ${count}, by ` +
        `its name it is part ${i + 1} of ${parts.length}: give split files their own names back`,
    );
  }
  const tensors = parts.reduce((sum, { header }) => sum + header.tensors.size, 0);
  const expected = new KeyReader(parts[0].header.metadata, "split.").count("tensors.count");
  if (parts.length > 1 && expected !== null && expected !== tensors) {
    throw new CheckpointError(
      `Cannot open ${shown(parts[0].source.path)}: all parts must have ${expected} tensors ` +
        `together: current value is ${tensors}`,
    );
  }
}

// ---------------------------------------------------------------- the checkpoint

/** A tensor by the file's own name, and where it is. */
interface Found {
  part: Part;
  info: TensorInfo;
}

async function checkpointOf(parts: readonly Part[], options: GgufOptions): Promise<Checkpoint> {
  const { metadata } = parts[0].header;
  const architecture = architectureName(metadata);
  const found = foundTensors(parts, metadata);
  const owners = new Map<string, Found>();
  for (const [name, hfName] of hfNames(found.keys(), architecture)) {
    owners.set(hfName, found.get(name)!);
  }
  const tensors = new Map([...owners].map(([name, { info }]) => [name, info]));
  const ropeFactors = await readRopeFactors(found);
  const config = configOf({ metadata, tensors, ropeFactors });
  const layout = options.i2sLayout ?? "x86";
  // Part of the model's identity: another layout gives other weights.
  const configText = JSON.stringify(layout === "x86" ? config : { ...config, i2s_layout: layout });
  const readers = new Map<string, RowReader>();
  const turned = hasTurnedRows(architecture) ? headsOf(metadata) : null;
  for (const [name, { part: { source }, info }] of owners) {
    const heads = turnedHeads(name);
    const turn = turned === null || heads === null
      ? null
      : { heads: turned[heads], headDim: turned.headDim };
    readers.set(name, new RowReader(source, info, { name, turn, i2sLayout: layout }));
  }
  return new GgufCheckpoint(parts, configText, tensors, readers);
}

function foundTensors(parts: readonly Part[], metadata: Metadata): Map<string, Found> {
  const found = new Map<string, Found>();
  for (const part of parts) {
    for (const [name, info] of apart(part.header.tensors, metadata)) {
      if (found.has(name)) {
        throw new CheckpointError(
          `Cannot open ${shown(part.source.path)}: an earlier part has ${shown(name)} as well`,
        );
      }
      found.set(name, { part, info });
    }
  }
  return found;
}

/** A file's tensors, fused ones in their parts. */
function* apart(
  tensors: ReadonlyMap<string, TensorInfo>,
  metadata: Metadata,
): Generator<[string, TensorInfo]> {
  for (const [name, info] of tensors) {
    if (!isFused(name)) {
      yield [name, info];
      continue;
    }
    const { query, key, headDim } = headsOf(metadata);
    const keys = key * headDim;
    yield* partsOf(name, info, { q: query * headDim, k: keys, v: keys });
  }
}

/** More pairs of features than any head has. */
const MAX_ROPE_FACTORS = 2 ** 16;

async function readRopeFactors(found: ReadonlyMap<string, Found>) {
  const factors: Partial<Record<keyof typeof ROPE_FACTORS, number[]>> = {};
  for (const [key, name] of Object.entries(ROPE_FACTORS)) {
    const tensor = found.get(name);
    if (tensor === undefined) continue;
    factors[key as keyof typeof ROPE_FACTORS] = await ropeFactorsOf(name, tensor);
  }
  return factors;
}

async function ropeFactorsOf(name: string, { part, info }: Found): Promise<number[]> {
  const { dtype, shape, byteOffset, byteLength } = info;
  const isSound = dtype === "F32" && shape.length === 1 && shape[0] <= MAX_ROPE_FACTORS;
  const bytes = isSound ? await part.source.read(byteOffset, byteLength) : null;
  const values = bytes === null ? [] : [...new Float32Array(bytes.buffer, 0, shape[0])];
  if (bytes !== null && values.every((value) => Number.isFinite(value) && value > 0)) return values;
  throw new CheckpointError(
    `Cannot use ${shown(name)}: it must be a vector of positive F32 numbers: current value is ` +
      `${dtype} of shape ${shown(shape)}`,
  );
}

class GgufCheckpoint implements Checkpoint {
  readonly folder: string;
  readonly name: string;
  readonly format = "gguf";
  readonly configText: string;
  readonly companions: Companions;
  readonly files: readonly WeightFile[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #parts: readonly Part[];
  readonly #readers: ReadonlyMap<string, RowReader>;

  constructor(
    parts: readonly Part[],
    configText: string,
    tensors: ReadonlyMap<string, TensorInfo>,
    readers: ReadonlyMap<string, RowReader>,
  ) {
    const { source, header } = parts[0];
    this.folder = dirname(resolve(source.path));
    this.name = nameOf(source.path, header);
    this.configText = configText;
    this.companions = ggufCompanions(header.metadata, source.path);
    this.files = parts.map(({ source, header }) => ({
      path: source.path,
      fileBytes: source.size,
      modifiedMs: source.modifiedMs,
      headerSha256: header.sha256,
    }));
    this.tensors = tensors;
    this.#parts = parts;
    this.#readers = readers;
  }

  async read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>> {
    return await this.readRange(name, 0, this.#reader(name).info.byteLength, allocate);
  }

  async readRange(
    name: string,
    start: number,
    length: number,
    allocate?: Allocate,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#reader(name).read(start, length, allocate);
  }

  async close(): Promise<void> {
    await closeAll(this.#parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #reader(name: string): RowReader {
    const reader = this.#readers.get(name);
    if (reader !== undefined) return reader;
    throw new CheckpointError(`Cannot read ${shown(this.name)}: no tensor ${shown(name)} in it`);
  }
}

/** The file's name; where that says nothing, the one in its keys. */
function nameOf(path: string, { metadata }: GgufHeader): string {
  const stem = basename(path).replace(PART_NAME, "$<stem>").replace(/\.gguf$/i, "");
  const general = metadata.get("general.name");
  const isBare = /^(ggml-)?model([-_.].*)?$/i.test(stem);
  return isBare && typeof general === "string" && general.trim() !== "" ? general.trim() : stem;
}

/** @throws {CheckpointError} If a folder's GGUF files are not those of one model. */
export function onlyModel(folder: string, models: readonly string[]): string {
  if (models.length === 1) return models[0];
  throw new CheckpointError(
    `Cannot open ${shown(folder)}: it has ${models.length} GGUF models: give one of ` +
      shownList(models.map((path) => basename(path)), 8),
  );
}
