/**
 * Ternary codes of a linear, from packed bytes or from float masters. Code 0, 1, 2 is weight
 * -1, 0, +1.
 *
 * Source: transformers' integrations/bitnet.py, unpack_weights and WeightQuant.
 */
import type { FloatType } from "../codegen/model_spec.ts";
import { CheckpointError } from "./errors.ts";
import { valuesOf } from "./float_formats.ts";

export interface Ternary {
  /** (n, k) row-major. */
  codes: Uint8Array;
  /** Float32: W[row, column] = scale * (code - 1). */
  scale: number;
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
  const storedRows = Math.ceil(n / 4);
  const codes = new Uint8Array(n * k);
  for (let row = 0; row < n; row++) {
    const stored = (row % storedRows) * k;
    const shift = 2 * Math.floor(row / storedRows);
    const start = row * k;
    let seen = 0;
    for (let column = 0; column < k; column++) {
      const code = (packed[stored + column] >> shift) & 0b11;
      codes[start + column] = code;
      seen |= code & (code >> 1);
    }
    if (seen !== 0) throw codeError(codes, start, k, row, what);
  }
  return codes;
}

function codeError(codes: Uint8Array, start: number, k: number, row: number, what: string) {
  const column = codes.subarray(start, start + k).indexOf(3);
  return new CheckpointError(
    `Cannot unpack ${what}: codes must be 0, 1 or 2: the code at row ${row}, column ${column} ` +
      "is 3, the file is damaged",
  );
}

/** The floor of mean|W| in WeightQuant. */
const MIN_MEAN = 1e-5;

/**
 * Absmean quantisation over a whole matrix: s = 1 / max(mean|W|, 1e-5), code = round(W * s)
 * clamped to -1..1, W = code / s; float32 as PyTorch, ties to even (so that 0.5 becomes 0).
 *
 * @param bytes (n, k) elements of `type`, row-major, little-endian, aligned to an element.
 * @throws {CheckpointError} If a weight is not finite.
 */
export function absmeanCodes(bytes: Uint8Array, type: FloatType, what: string): Ternary {
  const { buffer, byteOffset, byteLength } = bytes;
  if (type === "f32") {
    const weights = new Float32Array(buffer, byteOffset, byteLength / 4);
    const { s, scale } = absmeanScale(weights, (w) => w, what);
    const codes = new Uint8Array(weights.length);
    for (let i = 0; i < weights.length; i++) codes[i] = codeOf(weights[i], s);
    return { codes, scale };
  }
  const patterns = new Uint16Array(buffer, byteOffset, byteLength / 2);
  const values = valuesOf(type);
  const { s, scale } = absmeanScale(patterns, (bits) => values[bits], what);
  const codeOfPattern = Uint8Array.from(values, (value) => codeOf(value, s));
  const codes = new Uint8Array(patterns.length);
  for (let i = 0; i < patterns.length; i++) codes[i] = codeOfPattern[patterns[i]];
  return { codes, scale };
}

function absmeanScale(
  elements: Float32Array | Uint16Array,
  valueOf: (element: number) => number,
  what: string,
): { s: number; scale: number } {
  let sum = 0;
  for (let i = 0; i < elements.length; i++) sum += Math.abs(valueOf(elements[i]));
  if (!Number.isFinite(sum)) throw notFiniteError(elements, valueOf, what);
  const mean = Math.max(Math.fround(sum / elements.length), Math.fround(MIN_MEAN));
  const s = Math.fround(1 / mean);
  return { s, scale: Math.fround(1 / s) };
}

function notFiniteError(
  elements: Float32Array | Uint16Array,
  valueOf: (element: number) => number,
  what: string,
): CheckpointError {
  const index = elements.findIndex((element: number) => !Number.isFinite(valueOf(element)));
  return new CheckpointError(
    `Cannot ternarise ${what}: weights must be finite: element ${index} is ` +
      `${valueOf(elements[index])}`,
  );
}

function codeOf(weight: number, s: number): number {
  const scaled = Math.fround(weight * s);
  return scaled > 0.5 ? 2 : scaled < -0.5 ? 0 : 1;
}
