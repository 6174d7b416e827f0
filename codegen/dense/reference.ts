import { dot } from "../float_reference.ts";
import type { FloatType } from "../model_spec.ts";

/** One element of a stored float, widened to float32 without loss. */
export function widenRow(
  bytes: Uint8Array,
  type: FloatType,
  elements: number,
  at: number,
): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  const row = new Float32Array(elements);
  for (let i = 0; i < elements; i++) row[i] = WIDEN[type](view, i);
  return row;
}

const scratch = new DataView(new ArrayBuffer(4));

const WIDEN: Record<FloatType, (view: DataView, i: number) => number> = {
  f32: (view, i) => view.getFloat32(4 * i, true),
  f16: (view, i) => halfToFloat(view.getUint16(2 * i, true)),
  bf16: (view, i) => {
    scratch.setUint32(0, view.getUint16(2 * i, true) << 16);
    return scratch.getFloat32(0);
  },
};

const floatScratch = new Float32Array(1);
const wordScratch = new Uint32Array(floatScratch.buffer);

/** The bits of a float32 in a type that holds it exactly, or null if this one does not. */
export function narrowed(value: number, type: FloatType): number | null {
  floatScratch[0] = value;
  const [word] = wordScratch;
  if (type === "f32") return word;
  if (type === "bf16") return (word & 0xffff) === 0 ? word >>> 16 : null;
  const bits = word >>> 16 & 0x8000 | halfMagnitude(Math.abs(value));
  return halfToFloat(bits) === value ? bits : null;
}

/** Bits of the half below a positive number, or some others if it is none of a half's values. */
function halfMagnitude(size: number): number {
  if (size < 2 ** -14) return Math.floor(size * 2 ** 24);
  const exponent = (wordScratch[0] >>> 23 & 0xff) - 127;
  return exponent > 15 ? 0x7c00 : exponent + 15 << 10 | wordScratch[0] >>> 13 & 0x3ff;
}

/** IEEE 754 half precision to a number. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = bits >> 10 & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * logits[r] = row r of W . x in float32, W (vocabSize, hiddenSize) in its checkpoint's type.
 *
 * Source: the head is never quantised (BitNet b1.58 2B4T report, arXiv 2504.12285, section 2).
 */
export function dense(
  rows: (r: number) => Float32Array,
  count: number,
  x: Float32Array,
): Float32Array {
  return Float32Array.from({ length: count }, (_, r) => dot(x, rows(r)));
}
