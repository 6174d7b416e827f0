import { laneSum, roundHalfEven } from "../float_reference.ts";

const f = Math.fround;

/** An activation row ready for ternary linears: x ~ codes * inverse. */
export interface QuantizedRow {
  /** (k,) int8 in [-127, 127]. */
  codes: Int8Array;
  /** max|x| / 127, the factor that turns codes into values. */
  inverse: number;
}

/**
 * RMSNorm: x / sqrt(mean(x^2) + eps) * weight, all in float32.
 *
 * Source: transformers, LlamaRMSNorm (float32 throughout).
 */
export function rmsNorm(x: Float32Array, weight: Float32Array, eps: number): Float32Array {
  const squares = laneSum(x.length, (i) => f(x[i] * x[i]));
  const mean = f(squares / x.length);
  const scale = f(1 / f(Math.sqrt(f(mean + f(eps)))));
  return x.map((v, i) => f(f(v * scale) * weight[i]));
}

/**
 * Per-token int8: s = 127 / max(max|x|, 1e-5), codes = round-half-even(x * s).
 *
 * Source: BitNet b1.58, arXiv 2402.17764, section 2; transformers, BitLinear.activation_quant.
 */
export function quantize(x: Float32Array): QuantizedRow {
  const largest = f(x.reduce((max, v) => Math.max(max, Math.abs(v)), f(1e-5)));
  const scale = f(127 / largest);
  const codes = Int8Array.from(x, (v) => {
    const code = roundHalfEven(f(v * scale));
    return Math.min(Math.max(code, -128), 127);
  });
  return { codes, inverse: f(1 / scale) };
}
