/**
 * A folder that MLX wrote, as a checkpoint of Hugging Face's names whose matrices are of types that are
 * read everywhere. Other tensors are as they are.
 */
import type { Checkpoint } from "../checkpoint.ts";
import type { Companions } from "../companions.ts";
import { checkRange, type TensorInfo, type WeightFile } from "../tensors.ts";
import type { Allocate } from "../weights.ts";
import { FACTOR_NAMES, type MlxMatrix, mlxMatrix } from "./matrix.ts";
import { settingsOf, withoutSections } from "./settings.ts";

/** Bytes of rows that are made at a time. */
const PART_BYTES = 4 << 20;

/** Whether one of a folder's matrices is of MLX's words. */
export function isMlx({ tensors }: Checkpoint): boolean {
  return [...tensors].some(([name, { dtype }]) => isWords(name, dtype));
}

function isWords(name: string, dtype: TensorInfo["dtype"]): boolean {
  return dtype === "U32" && name.endsWith(".weight");
}

/** What mlx-lm calls the experts of a layer in one tensor. */
function huggingFaceName(name: string): string {
  return name.replace(".mlp.switch_mlp.", ".mlp.experts.");
}

export class MlxCheckpoint implements Checkpoint {
  readonly folder: string;
  readonly name: string;
  readonly format = "safetensors";
  readonly configText: string;
  readonly companions: Companions;
  readonly files: readonly WeightFile[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #source: Checkpoint;
  readonly #matrices = new Map<string, MlxMatrix>();

  /** @throws If a matrix is packed in a way that is not read, or its tensors do not fit together. */
  constructor(source: Checkpoint) {
    const { folder, name, configText, companions, files } = source;
    this.folder = folder;
    this.name = name;
    this.configText = withoutSections(configText);
    this.companions = companions;
    this.files = files;
    this.#source = source;
    this.tensors = this.#given(settingsOf(configText));
  }

  /** Tensors as they are given; what belongs to a matrix is part of it. */
  #given(settings: ReturnType<typeof settingsOf>): Map<string, TensorInfo> {
    const { tensors } = this.#source;
    const given = new Map(tensors);
    for (const [name, { dtype }] of tensors) {
      if (!isWords(name, dtype)) continue;
      const module = name.slice(0, -".weight".length);
      const matrix = mlxMatrix(module, tensors, settings);
      for (const part of ["weight", ...FACTOR_NAMES]) given.delete(`${module}.${part}`);
      this.#matrices.set(huggingFaceName(name), matrix);
    }
    for (const [name, { info }] of this.#matrices) given.set(name, info);
    return given;
  }

  async read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>> {
    const matrix = this.#matrices.get(name);
    if (matrix === undefined) return await this.#source.read(name, allocate);
    return await this.readRange(name, 0, matrix.info.byteLength, allocate);
  }

  async readRange(
    name: string,
    start: number,
    length: number,
    allocate: Allocate = (bytes) => new Uint8Array(bytes),
  ): Promise<Uint8Array<ArrayBuffer>> {
    const matrix = this.#matrices.get(name);
    if (matrix === undefined) return await this.#source.readRange(name, start, length, allocate);
    const { rows, info } = matrix;
    checkRange(name, info, start, length);
    const out = allocate(length);
    const rowBytes = info.byteLength / rows;
    const end = Math.ceil((start + length) / rowBytes);
    const step = Math.max(1, Math.floor(PART_BYTES / rowBytes));
    for (let first = Math.floor(start / rowBytes); first < end; first += step) {
      const count = Math.min(step, end - first);
      await this.#fill(matrix, { first, count, rowBytes }, start, out);
    }
    return out;
  }

  /** Puts what a range has of some rows in their place. */
  async #fill(
    matrix: MlxMatrix,
    { first, count, rowBytes }: { first: number; count: number; rowBytes: number },
    start: number,
    out: Uint8Array,
  ): Promise<void> {
    const made = new Uint8Array(count * rowBytes);
    await matrix.readRows(
      (name, at, bytes) => this.#source.readRange(name, at, bytes),
      first,
      count,
      made,
    );
    const at = first * rowBytes - start;
    const from = Math.max(0, -at);
    out.set(made.subarray(from, Math.min(made.length, out.length - at)), at + from);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
