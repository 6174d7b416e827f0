/**
 * Whether a checkpoint's weights are ternary as they stand, and what has a factor of its own: told by
 * samples of all linears, which is checked for all weights when they are packed.
 */
import { type FloatType, type Groups, LINEAR_NAMES } from "../codegen/model_spec.ts";
import { type BlockKind, STORED_BLOCKS } from "../codegen/pack/stored.ts";
import { factorType } from "../codegen/ternary_linear/groups.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { finerGrain, type Grain, grainOf, GROUP_SIZES } from "./exact_ternary.ts";
import { ROUNDED_TERNARY, widenedAsTernary } from "./gguf/float_blocks.ts";
import {
  blockFactors,
  blockFactorType,
  blockKindOf,
  hasFourthCode,
} from "./gguf/ternary_blocks.ts";
import { LINEAR_PATHS } from "./tensor_names.ts";
import type { TensorInfo } from "./tensors.ts";

export interface TernaryGrain {
  grain: Grain;
  /** A type that holds all factors exactly. */
  scaleType: FloatType;
}

const FLOAT_KINDS: Partial<Record<TensorInfo["dtype"], FloatType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
};
/** Rows that are read at a place, and places in a matrix. */
interface Sampling {
  rows: number;
  places: number;
}
/** Of the first, the middle and the last layer, and of the others. */
const SAMPLING: Sampling = { rows: 32, places: 4 };
const SPARSE_SAMPLING: Sampling = { rows: 4, places: 2 };

/** @returns Null if linears are of no ternary type, and of floats that are not ternary. */
export async function ternaryGrain(checkpoint: Checkpoint): Promise<TernaryGrain | null> {
  const sampled = sampledTensors(checkpoint);
  const hasTernary = [...sampled.keys()].some((name) => isTernary(checkpoint, name));
  let found: TernaryGrain | null = null;
  for (const [name, sampling] of sampled) {
    const grain = await sampledGrain(checkpoint, name, sampling);
    // Floats among ternary tensors must be ternary too, which packing says more about.
    if (grain === null && hasTernary) continue;
    if (grain === null) return null;
    found = found === null ? grain : coarsestCommon(found, grain);
  }
  return found;
}

function isTernary(checkpoint: Checkpoint, name: string): boolean {
  return blockKindOf(checkpoint.tensors.get(name)!.dtype) !== null;
}

function coarsestCommon(a: TernaryGrain, b: TernaryGrain): TernaryGrain {
  return {
    grain: finerGrain(a.grain, b.grain),
    scaleType: a.scaleType === b.scaleType ? a.scaleType : "f32",
  };
}

/** The linears of all layers, those that are looked at closely first: they tell most models. */
function sampledTensors({ tensors }: Checkpoint): Map<string, Sampling> {
  const layers = new Set<number>();
  for (const name of tensors.keys()) {
    const layer = /^model\.layers\.(\d{1,6})\./.exec(name)?.[1];
    if (layer !== undefined) layers.add(Number(layer));
  }
  const last = Math.max(0, ...layers);
  // All experts in one tensor, or the first one's own.
  const experts = ["experts", "experts.0"].flatMap((stack) =>
    ["gate", "up", "down"].map((name) => `mlp.${stack}.${name}_proj`)
  );
  const paths = [...LINEAR_NAMES.map((name) => LINEAR_PATHS[name]), ...experts];
  const close = new Set([0, last >> 1, last]);
  const sampled = new Map<string, Sampling>();
  for (const layer of new Set([...close, ...layers])) {
    const names = paths.map((path) => `model.layers.${layer}.${path}.weight`);
    for (const name of names.filter((name) => tensors.has(name))) {
      sampled.set(name, close.has(layer) ? SAMPLING : SPARSE_SAMPLING);
    }
  }
  return sampled;
}

async function sampledGrain(
  checkpoint: Checkpoint,
  name: string,
  sampling = SAMPLING,
): Promise<TernaryGrain | null> {
  const { dtype, shape } = checkpoint.tensors.get(name)!;
  if (dtype === "I2_S") return { grain: "matrix", scaleType: "f32" };
  const kind = blockKindOf(dtype);
  const isRounded = ROUNDED_TERNARY.includes(dtype);
  const type = isRounded ? "f32" : FLOAT_KINDS[dtype];
  if (shape.length < 2 || shape.includes(0) || (kind === null && type === undefined)) return null;
  const { bytes, n, k } = await sampleOf(checkpoint, name, sampling);
  // Experts are matrices of their own.
  const isStack = shape.length > 2;
  const floats = isRounded ? float32Bytes(widenedAsTernary(bytes, dtype, name)) : bytes;
  const grain = kind === null
    ? grainOf({ kind: type!, bytes: floats, n, k })
    : grainOfFactors(blockFactors(bytes, kind, n * k, name), kind, k);
  if (grain === null) return null;
  return {
    grain: isStack && grain === "matrix" ? "row" : grain,
    scaleType: kind === null ? type! : blockFactorType(kind),
  };
}

/** Rows of some places of a matrix of at least one row, or of a stack of such. */
async function sampleOf(checkpoint: Checkpoint, name: string, sampling: Sampling) {
  const { shape, byteLength } = checkpoint.tensors.get(name)!;
  const k = shape.at(-1)!;
  const rows = shape.reduce((product, size) => product * size, 1) / k;
  const { places } = sampling;
  const count = Math.min(sampling.rows, rows);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (let place = 0; place < places; place++) {
    const first = Math.floor((rows - count) * place / (places - 1));
    const rowBytes = byteLength / rows;
    parts.push(await checkpoint.readRange(name, first * rowBytes, count * rowBytes));
  }
  return { bytes: joined(parts), n: places * count, k };
}

function float32Bytes(values: Float32Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(values.buffer as ArrayBuffer);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Whether an embedding or a head is ternary as it stands, with factors that groups of linears can have.
 * Types that hold a fourth value may hold it: those matrices are floats to us. All blocks of GGUF's types
 * are looked at; floats are told by samples, and checked when they are packed.
 */
export async function fitsGroups(
  checkpoint: Checkpoint,
  name: string,
  groups: Groups,
): Promise<boolean> {
  const kind = blockKindOf(checkpoint.tensors.get(name)!.dtype);
  const scaleType = factorType(groups);
  if (kind !== null) {
    return (scaleType === blockFactorType(kind) || scaleType === "f32") &&
      await blocksFit(checkpoint, name, kind, groups.size);
  }
  const { dtype } = checkpoint.tensors.get(name)!;
  const found = FLOAT_KINDS[dtype] === undefined ? null : await sampledGrain(checkpoint, name);
  if (found === null) return false;
  const isFine = typeof found.grain === "string" || found.grain % groups.size === 0;
  return isFine && (scaleType === "f32" || scaleType === found.scaleType);
}

/** Bytes of a matrix that are looked at together. */
const SCANNED_BYTES = 4 << 20;

/** Whether groups of `size` features have one factor each, and no weight is code 3. */
async function blocksFit(
  checkpoint: Checkpoint,
  name: string,
  kind: BlockKind,
  size: number,
): Promise<boolean> {
  const { shape: [rows, k], byteLength } = checkpoint.tensors.get(name)!;
  const { weights } = STORED_BLOCKS[kind];
  const isWhole = weights % size === 0 || (size % weights === 0 && k % size === 0);
  // I2_S has no factors in its rows.
  if (kind === "i2s" || !isWhole) return false;
  const rowBytes = byteLength / rows;
  const step = Math.max(1, Math.floor(SCANNED_BYTES / rowBytes));
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const bytes = await checkpoint.readRange(name, first * rowBytes, count * rowBytes);
    if (hasFourthCode(bytes, kind)) return false;
    if (weights >= size) continue;
    const factors = blockFactors(bytes, kind, count * k, name);
    if (!isShared(factors, size / weights)) return false;
  }
  return true;
}

/** The coarsest grain in which blocks have one factor; blocks of zeros fit any. */
export function grainOfFactors(factors: Float32Array, kind: BlockKind, k: number): Grain {
  const { weights } = STORED_BLOCKS[kind];
  const perRow = k / weights;
  if (isShared(factors, factors.length)) return "matrix";
  if (isShared(factors, perRow)) return "row";
  const sizes = GROUP_SIZES.filter((size) => size > weights && k % size === 0);
  return sizes.find((size) => isShared(factors, size / weights)) ?? weights;
}

/** Whether each `count` neighbours have one factor but for zeros. */
function isShared(factors: Float32Array, count: number): boolean {
  for (let from = 0; from < factors.length; from += count) {
    let common = 0;
    for (let i = from; i < from + count; i++) {
      if (factors[i] === 0) continue;
      if (common !== 0 && factors[i] !== common) return false;
      common = factors[i];
    }
  }
  return true;
}

/** Factors of blocks as those of a grain. @throws {CheckpointError} Through `fail`, where they differ. */
export function factorsIn(
  factors: Float32Array,
  kind: BlockKind,
  k: number,
  grain: Grain,
  fail: (index: number) => never,
): Float32Array {
  const { weights } = STORED_BLOCKS[kind];
  const perRow = k / weights;
  const count = grain === "matrix" ? factors.length : grain === "row" ? perRow : grain / weights;
  if (count < 1) return repeated(factors, 1 / count);
  const out = new Float32Array(Math.ceil(factors.length / count));
  for (let i = 0; i < factors.length; i++) {
    const at = Math.floor(i / count);
    if (factors[i] === 0 || out[at] === factors[i]) continue;
    if (out[at] !== 0) fail(i);
    out[at] = factors[i];
  }
  return out;
}

/** Groups may be smaller than blocks. */
function repeated(factors: Float32Array, times: number): Float32Array {
  return Float32Array.from(
    { length: factors.length * times },
    (_, i) => factors[Math.floor(i / times)],
  );
}
