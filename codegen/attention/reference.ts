import { dotWide, exp, laneSum } from "../float_reference.ts";

const f = Math.fround;

/** 1 / sqrt(headDim), the factor of a score, a double. */
export function scoreScale(headDim: number): number {
  return 1 / Math.sqrt(headDim);
}

/**
 * Attention of one query head over positions first .. count - 1: softmax(q k^T / sqrt(d)) v. Scores are
 * doubles, as their absolute error becomes a relative one of the weights.
 *
 * @param q (headDim,) after RoPE.
 * @param key Key of a position, (headDim,); value likewise.
 * @returns (headDim,)
 *
 * Source: arXiv 1706.03762, section 3.2.1.
 */
export function attention(
  q: Float32Array,
  count: number,
  key: (position: number) => Float32Array,
  value: (position: number) => Float32Array,
  first = 0,
): Float32Array {
  const scale = scoreScale(q.length);
  const scores = Float64Array.from(
    { length: count },
    (_, i) => i < first ? -Infinity : dotWide(q, key(i)) * scale,
  );
  const largest = scores.reduce((max, score) => Math.max(max, score), -Infinity);
  const weights = Float32Array.from(scores, (score, i) => i < first ? 0 : exp(f(score - largest)));
  const total = laneSum(count, (i) => weights[i]);
  const out = new Float32Array(q.length);
  for (let i = first; i < count; i++) {
    const v = value(i);
    for (let d = 0; d < out.length; d++) out[d] = f(out[d] + f(weights[i] * v[d]));
  }
  const inverse = f(1 / total);
  return out.map((sum) => f(sum * inverse));
}
