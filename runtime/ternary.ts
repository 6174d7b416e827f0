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
  const { source, target, mask, lowBits, rowLength } = unitsOf(packed, codes, k);
  for (let row = 0; row < n; row++) {
    const stored = (row % storedRows) * rowLength;
    const shift = 2 * Math.floor(row / storedRows);
    const start = row * rowLength;
    let seen = 0;
    for (let i = 0; i < rowLength; i++) {
      const unit = (source[stored + i] >>> shift) & mask;
      target[start + i] = unit;
      seen |= unit & (unit >>> 1);
    }
    if ((seen & lowBits) !== 0) throw codeError(codes, row, k, what);
  }
  return codes;
}

/** Four codes at a time where rows consist of whole 32-bit words, which is 3 times as fast. */
function unitsOf(packed: Uint8Array, codes: Uint8Array, k: number) {
  if (k % 4 !== 0 || packed.byteOffset % 4 !== 0) {
    return { source: packed, target: codes, mask: 0b11, lowBits: 1, rowLength: k };
  }
  return {
    source: new Uint32Array(packed.buffer, packed.byteOffset, packed.byteLength / 4),
    target: new Uint32Array(codes.buffer),
    mask: 0x03030303,
    lowBits: 0x01010101,
    rowLength: k / 4,
  };
}

function codeError(codes: Uint8Array, row: number, k: number, what: string) {
  const column = codes.subarray(row * k, (row + 1) * k).indexOf(3);
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
