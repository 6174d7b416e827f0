/**
 * Float matrices that are ternary as they stand: every weight is -f, 0 or +f, with one magnitude f for
 * the matrix, a row, or a group of neighbouring features of a row. Published models come so when their
 * ternary weights were written back as floats (TriLM's "unpacked" files, BitCPM4).
 *
 * `config` asks `grainOf` of some matrices, keeps the finest (`finerGrain`), and says in the spec what
 * it found: "matrix" needs nothing, "row" `rowScales`, a number `groups` of that size with `weightScales`
 * and the tensor's type as `scaleType`. The weight source then gives `{ matrix: { kind, bytes, n, k, exact:
 * true }, scale: null }`: packing finds the factors and checks every value of every matrix.
 */
import type { FloatType } from "../codegen/model_spec.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import { CheckpointError } from "./errors.ts";
import { valuesOf } from "./float_formats.ts";

/** What shares a magnitude: the whole matrix, a row, or a group of so many features of a row. */
export type Grain = "matrix" | "row" | number;

/** Sizes of groups that are tried, each the half of the one before. */
export const GROUP_SIZES: readonly number[] = [1024, 512, 256, 128, 64, 32];
const FINEST = GROUP_SIZES[GROUP_SIZES.length - 1];

/**
 * The coarsest grain in which a float matrix is ternary as it stands, or null if it is not. Reads each
 * value once, and ends at the first that does not fit: 5 ns a value.
 */
export function grainOf(matrix: StoredMatrix): Grain | null {
  const finest = magnitudesOf(matrix, FINEST);
  if (finest.fault !== null) return null;
  const perRow = Math.ceil(matrix.k / FINEST);
  const rows = merged(finest.bits, perRow, perRow);
  if (rows !== null) return merged(rows, matrix.n, matrix.n) === null ? "row" : "matrix";
  return GROUP_SIZES.find((size) => merged(finest.bits, perRow, size / FINEST) !== null)!;
}

/** The finer of two grains: what matrices of both have in common. */
export function finerGrain(a: Grain, b: Grain): Grain {
  const features = (grain: Grain) =>
    grain === "matrix" ? Infinity : grain === "row" ? Number.MAX_SAFE_INTEGER : grain;
  return features(a) < features(b) ? a : b;
}

/** Factors in a grain: (n, ceil(k / size)) of groups, (n,) of rows, (1,) of a matrix. */
export function factorCount({ n, k }: { n: number; k: number }, grain: Grain): number {
  if (grain === "matrix") return 1;
  return grain === "row" ? n : n * Math.ceil(k / grain);
}

/**
 * The magnitudes of a float matrix that is ternary as it stands, `factorCount` of them; 0 where all
 * weights are 0.
 *
 * @param what Names the tensor in errors.
 * @throws {CheckpointError} Names the first element whose magnitude is another one, or is not finite.
 */
export function exactFactors(matrix: StoredMatrix, grain: Grain, what: string): Float32Array {
  const { n, k } = matrix;
  const rows = grain === "matrix" ? { ...matrix, n: 1, k: n * k } : matrix;
  const { bits, fault } = magnitudesOf(rows, typeof grain === "number" ? grain : rows.k);
  if (fault === null) return floatsOf(matrix, bits);
  const [found, before] = [fault.index, fault.other].map((index) => describe(matrix, index));
  const share = grain === "matrix" ? "a matrix" : grain === "row" ? "a row" : `${grain} features`;
  throw new CheckpointError(
    `Cannot use ${what} as it stands as all weights of ${share} must have one finite magnitude or be 0` +
      `: ${found}${fault.other === fault.index ? "" : `, ${before}`}, quantise the model`,
  );
}

/** Codes of a float matrix that is ternary as it stands: its signs. */
export function signCodes(matrix: StoredMatrix): Uint8Array<ArrayBuffer> {
  const { elements, sign } = elementsOf(matrix);
  const codes = new Uint8Array(elements.length);
  for (let i = 0; i < codes.length; i++) {
    codes[i] = (elements[i] & sign - 1) === 0 ? 1 : (elements[i] & sign) === 0 ? 2 : 0;
  }
  return codes;
}

interface Magnitudes {
  /** Bits of each group's magnitude, (n, ceil(k / size)). */
  bits: Uint32Array;
  /** The first element that does not fit, and one before it of another magnitude; or that is not finite. */
  fault: { index: number; other: number } | null;
}

function magnitudesOf(matrix: StoredMatrix, size: number): Magnitudes {
  const { elements, sign, infinity } = elementsOf(matrix);
  const { n, k } = matrix;
  const bits = new Uint32Array(n * Math.ceil(k / size));
  let group = 0;
  for (let row = 0; row < n; row++) {
    for (let from = 0; from < k; from += size, group++) {
      const start = row * k + from;
      const end = row * k + Math.min(from + size, k);
      let magnitude = 0;
      for (let i = start; i < end; i++) {
        const one = elements[i] & sign - 1;
        if (one === 0 || one === magnitude) continue;
        if (one >= infinity) return { bits, fault: { index: i, other: i } };
        if (magnitude !== 0) {
          return { bits, fault: { index: i, other: firstNonzero(matrix, start) } };
        }
        magnitude = one;
      }
      bits[group] = magnitude;
    }
  }
  return { bits, fault: null };
}

function firstNonzero(matrix: StoredMatrix, from: number): number {
  const { elements, sign } = elementsOf(matrix);
  let i = from;
  while ((elements[i] & sign - 1) === 0) i++;
  return i;
}

/** Magnitudes of `count` neighbours in a row as one, or null if some differ. */
function merged(bits: Uint32Array, perRow: number, count: number): Uint32Array | null {
  const groups = Math.ceil(perRow / count);
  const out = new Uint32Array(bits.length / perRow * groups);
  for (let i = 0; i < bits.length; i++) {
    if (bits[i] === 0) continue;
    const at = Math.floor(i / perRow) * groups + Math.floor(i % perRow / count);
    if (out[at] !== 0 && out[at] !== bits[i]) return null;
    out[at] = bits[i];
  }
  return out;
}

interface Elements {
  elements: Uint16Array | Uint32Array;
  /** The bit of the sign, and the bits of infinity. */
  sign: number;
  infinity: number;
}

const INFINITIES: Record<FloatType, number> = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 };

function elementsOf({ kind, bytes }: StoredMatrix): Elements {
  const { buffer, byteOffset, byteLength } = bytes;
  const infinity = INFINITIES[kind as FloatType];
  return kind === "f32"
    ? { elements: new Uint32Array(buffer, byteOffset, byteLength / 4), sign: 0x80000000, infinity }
    : { elements: new Uint16Array(buffer, byteOffset, byteLength / 2), sign: 0x8000, infinity };
}

function floatsOf({ kind }: StoredMatrix, bits: Uint32Array): Float32Array {
  if (kind === "f32") return new Float32Array(bits.buffer);
  const values = valuesOf(kind as "f16" | "bf16");
  return Float32Array.from(bits, (half) => values[half]);
}

function describe(matrix: StoredMatrix, index: number): string {
  const { elements, sign } = elementsOf(matrix);
  const [value] = floatsOf(matrix, Uint32Array.of((elements[index] & sign - 1) >>> 0));
  const minus = (elements[index] & sign) === 0 ? "" : "-";
  const [row, column] = [Math.floor(index / matrix.k), index % matrix.k];
  return `row ${row}, column ${column} is ${minus}${value}`;
}
