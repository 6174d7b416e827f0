import { dotWide, roundHalfEvenWide } from "../float_reference.ts";

/** An activation row ready for ternary linears: x ~ codes * inverse. */
export interface QuantizedRow {
  /** (k,) int8 in [-127, 127]. */
  codes: Int8Array;
  /** max|x| / 127, the factor that turns codes into values; a double. */
  inverse: number;
}

/**
 * RMSNorm: x / sqrt(mean(x^2) + eps) * weight, in double precision: a rounding error here could tip
 * an int8 rounding that the exact value does not.
 *
 * Source: transformers, LlamaRMSNorm.
 */
export function rmsNorm(
  x: Float32Array | Float64Array,
  weight: Float32Array,
  eps: number,
): Float64Array {
  const mean = dotWide(x, x) / x.length;
  const scale = 1 / Math.sqrt(mean + eps);
  return Float64Array.from(weight, (w, i) => x[i] * scale * w);
}

/**
 * Per-token int8: s = 127 / max(max|x|, 1e-5), codes = round-half-even(x * s), in double precision.
 *
 * Source: BitNet b1.58, arXiv 2402.17764, section 2; transformers, BitLinear.activation_quant.
 */
export function quantize(x: Float32Array | Float64Array): QuantizedRow {
  let largest = 1e-5;
  for (const v of x) largest = Math.max(largest, Math.abs(v));
  const scale = 127 / largest;
  const codes = new Int8Array(x.length);
  for (let i = 0; i < x.length; i++) {
    codes[i] = Math.min(Math.max(roundHalfEvenWide(x[i] * scale), -128), 127);
  }
  return { codes, inverse: 1 / scale };
}

/** A row of which each group of features is ready by itself. */
export interface GroupedRow {
  /** (k,) int8 in [-127, 127]. */
  codes: Int8Array;
  /** (ceil(k / size),) factors that turn a group's codes into values, float32. */
  inverses: Float32Array;
}

/** `quantize` of each group of `size` features; the last one may be shorter. */
export function quantizeGroups(x: Float32Array | Float64Array, size: number): GroupedRow {
  const codes = new Int8Array(x.length);
  const inverses = new Float32Array(Math.ceil(x.length / size));
  for (let from = 0, g = 0; from < x.length; from += size, g++) {
    const group = quantize(x.subarray(from, from + size));
    codes.set(group.codes, from);
    inverses[g] = group.inverse;
  }
  return { codes, inverses };
}
