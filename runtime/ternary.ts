/**
 * Ternary codes of a linear, from packed bytes or from float masters: the reference of
 * `kernels/zig/pack.zig`. Code 0, 1, 2 is weight -1, 0, +1.
 *
 * Source: transformers' integrations/bitnet.py, unpack_weights and WeightQuant.
 */
import { LANES, treeSumWide } from "../codegen/float_reference.ts";
import type { FloatType } from "../codegen/model_spec.ts";
import { isBlockKind, type StoredMatrix } from "../codegen/pack/stored.ts";
import { CODE_BITS, FOUR_ZEROS, wordsOf } from "./code_words.ts";
import { CheckpointError } from "./errors.ts";
import { signCodes } from "./exact_ternary.ts";
import { valuesOf } from "./float_formats.ts";
import { blockCodes } from "./gguf/block_words.ts";

export interface Ternary {
  /** (n, k) row-major. */
  codes: Uint8Array;
  /** Float32: W[row, column] = scale * (code - 1). Null where the matrix does not say. */
  scale: number | null;
}

/**
 * The codes of a matrix, and the scale if it is one of floats.
 *
 * @param what Names the tensor in errors.
 * @throws {CheckpointError} If a code is 3, which no writer produces, or a weight is not finite.
 */
export function ternaryOf(matrix: StoredMatrix, what: string): Ternary {
  const { kind, bytes, n, k } = matrix;
  if (kind === "codes") return { codes: checkedCodes(bytes, k, what), scale: null };
  if (kind === "quarters") return { codes: unpackCodes(bytes, n, k, what), scale: null };
  if (isBlockKind(kind)) return { codes: checkedCodes(blockCodes(matrix), k, what), scale: null };
  if (matrix.exact) return { codes: signCodes(matrix), scale: null };
  return absmeanCodes(matrix, what);
}

function checkedCodes(codes: Uint8Array, k: number, what: string): Uint8Array {
  const bad = codes.indexOf(3);
  if (bad < 0) return codes;
  const row = Math.floor(bad / k);
  throw codeError(codes, row, k, what);
}

/**
 * Codes of packed rows: stored row r holds rows r, r + R, r + 2R, r + 3R (R = ceil(n / 4)) in bits
 * 0-1, 2-3, 4-5, 6-7.
 *
 * @param packed (ceil(n / 4), k) bytes.
 * @param what Names the tensor in errors.
 * @throws {CheckpointError} If a code is 3, which no writer produces.
 */
export function unpackCodes(packed: Uint8Array, n: number, k: number, what: string): Uint8Array {
  const codes = new Uint8Array(n * k);
  // Quarters of the rows lie one after the other, each as long as what is packed.
  const quarter = Math.ceil(n / 4) * k;
  const sources = wordsOf(packed);
  let seen = 0;
  for (let part = 0; part < 4 && part * quarter < codes.length; part++) {
    const target = codes.subarray(part * quarter, (part + 1) * quarter);
    const isAligned = target.byteOffset % 4 === 0;
    const words = isAligned ? wordsOf(target) : new Uint32Array(0);
    for (let i = 0; i < words.length; i++) {
      const four = sources[i] >>> 2 * part & CODE_BITS;
      words[i] = four;
      seen |= four & four >>> 1;
    }
    for (let i = 4 * words.length; i < target.length; i++) {
      const code = packed[i] >> 2 * part & 3;
      target[i] = code;
      seen |= code & code >> 1;
    }
  }
  if ((seen & FOUR_ZEROS) === 0) return codes;
  throw codeError(codes, Math.floor(codes.indexOf(3) / k), k, what);
}

function codeError(codes: Uint8Array, row: number, k: number, what: string) {
  const column = codes.subarray(row * k, (row + 1) * k).indexOf(3);
  return new CheckpointError(
    `Cannot unpack ${what}: codes must be 0, 1 or 2: the code at row ${row}, column ${column} ` +
      "is 3: the file is damaged, or its weights have a fourth value and are not ternary",
  );
}

/** The floor of mean|W| in WeightQuant. */
const MIN_MEAN = 1e-5;

/** How float masters become codes: code = round(w * factor), clamped; w is about scale * code. */
export interface Absmean {
  factor: number;
  scale: number;
}

/**
 * Absmean quantisation over a whole matrix: s = 1 / max(mean|W|, 1e-5), W = code / s; float32 as
 * PyTorch.
 *
 * @param rowSums Sums of |w| of each row.
 * @param count Elements of the matrix.
 * @returns Null if a weight is not finite, as the sum then is not.
 */
export function absmeanOf(rowSums: Float64Array, count: number): Absmean | null {
  const sum = rowSums.reduce((sum, row) => sum + row, 0);
  if (!Number.isFinite(sum)) return null;
  const mean = Math.max(Math.fround(sum / count), Math.fround(MIN_MEAN));
  const factor = Math.fround(1 / mean);
  return { factor, scale: Math.fround(1 / factor) };
}

/**
 * Absmean quantisation of float masters, see `absmeanOf`: code = round(W * s) clamped to -1..1, ties
 * to even (so that 0.5 becomes 0).
 *
 * @throws {CheckpointError} If a weight is not finite.
 */
export function absmeanCodes(
  matrix: StoredMatrix,
  what: string,
): Ternary & { scale: number } {
  const floats = floatsOf(matrix);
  const absmean = absmeanOf(rowSums(matrix), matrix.n * matrix.k);
  if (absmean === null) throw notFiniteError(floats, what);
  return { codes: roundedCodes(floats, absmean.factor), scale: absmean.scale };
}

/** Of 16 bits there are so few that each is rounded once. */
function roundedCodes({ elements, values }: Floats, factor: number): Uint8Array {
  const codes = new Uint8Array(elements.length);
  if (values === null) {
    for (let i = 0; i < codes.length; i++) codes[i] = codeOf(elements[i], factor);
    return codes;
  }
  const codeOfBits = new Uint8Array(values.length);
  for (let bits = 0; bits < values.length; bits++) codeOfBits[bits] = codeOf(values[bits], factor);
  for (let i = 0; i < codes.length; i++) codes[i] = codeOfBits[elements[i]];
  return codes;
}

/** Sums of |w| of each row, in doubles: lane i % 16 adds its elements in order, then the lanes. */
export function rowSums(matrix: StoredMatrix): Float64Array {
  const { elements, values } = floatsOf(matrix);
  const { n, k } = matrix;
  const sums = new Float64Array(n);
  const lanes = new Float64Array(LANES);
  for (let row = 0; row < n; row++) {
    lanes.fill(0);
    const start = row * k;
    if (values === null) {
      for (let i = 0; i < k; i++) lanes[i % LANES] += Math.abs(elements[start + i]);
    } else {
      for (let i = 0; i < k; i++) lanes[i % LANES] += Math.abs(values[elements[start + i]]);
    }
    sums[row] = treeSumWide(lanes);
  }
  return sums;
}

/** Float masters as they lie. */
export interface Floats {
  elements: Float32Array | Uint16Array;
  /** Of each bit pattern of 16 bits; null where elements are values. */
  values: Float32Array | null;
}

export function floatsOf({ kind, bytes }: StoredMatrix): Floats {
  const { buffer, byteOffset, byteLength } = bytes;
  const type = kind as FloatType;
  if (type === "f32") {
    const elements = new Float32Array(buffer, byteOffset, byteLength / 4);
    return { elements, values: null };
  }
  const elements = new Uint16Array(buffer, byteOffset, byteLength / 2);
  return { elements, values: valuesOf(type) };
}

function notFiniteError({ elements, values }: Floats, what: string): CheckpointError {
  const valueOf = (element: number) => values?.[element] ?? element;
  const index = elements.findIndex((element: number) => !Number.isFinite(valueOf(element)));
  return new CheckpointError(
    `Cannot ternarise ${what}: weights must be finite: element ${index} is ` +
      `${valueOf(elements[index])}`,
  );
}

function codeOf(weight: number, factor: number): number {
  const scaled = Math.fround(weight * factor);
  return scaled > 0.5 ? 2 : scaled < -0.5 ? 0 : 1;
}
