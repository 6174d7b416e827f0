import { exp, laneSum, roundHalfEven, shortened } from "../float_reference.ts";
import type { KvType } from "../model_spec.ts";

const f = Math.fround;

/**
 * Positions whose weights are made together: each such span has a softmax of its own, and spans are
 * joined in order. A constant, so that results depend on nothing else.
 */
export const SPAN_POSITIONS = 256;

/** int8 attention: the largest weight times value scale of a span is this, two planes of 7 bits. */
export const WEIGHT_LEVELS = 16383;

/** Rows and weights that are all smaller become zeros; 127 and 16,383 divided by it are finite. */
export const LEAST_LARGEST = 1e-30;

/** The largest number that each type keeps; int8 has a scale, which is a float32. */
export const KV_LIMITS: Record<KvType, number> = {
  f32: 3.4028234663852886e38,
  f16: 65504,
  int8: 3.4028234663852886e38,
};

/** 1 / sqrt(headDim), the factor of a score, a double. */
export function scoreScale(headDim: number): number {
  return 1 / Math.sqrt(headDim);
}

/** A key or value of one position and head as the cache keeps it: values * scale. */
export interface CachedRow {
  values: ArrayLike<number>;
  scale: number;
}

/**
 * What the cache keeps of a row.
 *
 * @param row (headDim,) float32: a key after RoPE, or a value.
 */
export function cachedRow(kvType: KvType, row: Float32Array): CachedRow {
  const limit = f(KV_LIMITS[kvType]);
  // NaN becomes -limit, as with the CPU's maximum of NaN and a number.
  const bounded = row.map((v) => Number.isNaN(v) ? -limit : Math.min(Math.max(v, -limit), limit));
  if (kvType === "int8") return narrowed(bounded);
  return { values: kvType === "f16" ? bounded.map((v) => Math.f16round(v)) : bounded, scale: 1 };
}

/** round(row * 127 / max |row|) and max |row| / 127. */
function narrowed(row: Float32Array): CachedRow {
  const limit = row.reduce((max, v) => Math.max(max, Math.abs(v)), f(LEAST_LARGEST));
  const factor = f(127 / limit);
  return {
    values: Int8Array.from(row, (v) => roundHalfEven(f(v * factor))),
    scale: f(limit / 127),
  };
}

/** Softmax and weighted sum of values of one span, before division by `total`. */
interface Partial {
  largest: number;
  /** Sum of exp(score - largest). */
  total: number;
  sums: Float32Array;
}

type Read = (position: number) => CachedRow;

/** Positions first .. count - 1. */
interface Range {
  first: number;
  count: number;
}

/**
 * Attention of one query head over a range of positions: softmax(q k^T / sqrt(d)) v.
 *
 * Scores of f32 keys are doubles, as their absolute error becomes a relative one of the weights.
 * With f16, q and the weights have 13 bits, so that no product is rounded. With int8, q is int8 too, and weights times value scales are rounded to 14 bits a span.
 *
 * @param q (headDim,) after RoPE.
 * @param key Asked for the range's positions only: what the cache keeps of a position's key, (headDim,); value likewise.
 * @returns (headDim,)
 *
 * Source: arXiv 1706.03762, section 3.2.1; spans are joined as in arXiv 1805.02867, algorithm 3.
 */
export function attention(
  kvType: KvType,
  q: Float32Array,
  { first, count }: Range,
  key: Read,
  value: Read,
): Float32Array {
  const score = SCORES[kvType](q);
  let state: Partial | null = null;
  const begin = first - first % SPAN_POSITIONS;
  for (let start = begin; start < count; start += SPAN_POSITIONS) {
    const from = Math.max(first - start, 0);
    const scores = new Float64Array(Math.min(SPAN_POSITIONS, count - start)).fill(-Infinity);
    for (let i = from; i < scores.length; i++) scores[i] = score(key(start + i));
    const part = attendSpan(kvType, scores, from, (i) => value(start + i), q.length);
    state = state === null ? part : join(state, part);
  }
  const inverse = f(1 / state!.total);
  return state!.sums.map((sum) => f(sum * inverse));
}

/** q k^T / sqrt(d) for each type, feature by feature. */
const SCORES: Record<KvType, (q: Float32Array) => (key: CachedRow) => number> = {
  f32: (q) => ({ values }) => {
    let sum = 0;
    for (let d = 0; d < q.length; d++) sum += q[d] * values[d];
    return sum * scoreScale(q.length);
  },
  f16: (q) => ({ values }) => {
    let sum = 0;
    for (let d = 0; d < q.length; d++) sum = f(sum + shortened(q[d]) * values[d]);
    return f(sum * f(scoreScale(q.length)));
  },
  int8: (q) => {
    const { values: codes, scale } = cachedRow("int8", q);
    const factor = f(scale * f(scoreScale(q.length)));
    return (key) => {
      let exact = 0;
      for (let d = 0; d < q.length; d++) exact += codes[d] * key.values[d];
      return f(f(exact * factor) * key.scale);
    };
  },
};

function attendSpan(
  kvType: KvType,
  scores: Float64Array,
  from: number,
  value: Read,
  headDim: number,
): Partial {
  const largest = scores.reduce((max, score) => Math.max(max, score), -Infinity);
  const kept = kvType === "f16" ? shortened : (weight: number) => weight;
  const weights = Float32Array.from(
    scores,
    (score, i) => i < from ? 0 : kept(exp(f(score - largest))),
  );
  const total = laneSum(weights.length, (i) => weights[i]);
  const sums = kvType === "int8"
    ? integerSums(weights, from, value, headDim)
    : floatSums(weights, from, value, headDim);
  return { largest, total, sums };
}

function floatSums(
  weights: Float32Array,
  from: number,
  value: Read,
  headDim: number,
): Float32Array {
  const sums = new Float32Array(headDim);
  for (let i = from; i < weights.length; i++) {
    const { values } = value(i);
    for (let d = 0; d < headDim; d++) sums[d] = f(sums[d] + f(weights[i] * values[d]));
  }
  return sums;
}

function integerSums(
  weights: Float32Array,
  from: number,
  value: Read,
  headDim: number,
): Float32Array {
  const scaled = weights.map((weight, i) => i < from ? 0 : f(weight * value(i).scale));
  const limit = scaled.reduce((max, v) => Math.max(max, v), f(LEAST_LARGEST));
  const factor = f(WEIGHT_LEVELS / limit);
  const exact = new Int32Array(headDim);
  for (let i = from; i < scaled.length; i++) {
    const level = roundHalfEven(f(scaled[i] * factor));
    const { values } = value(i);
    for (let d = 0; d < headDim; d++) exact[d] += level * values[d];
  }
  const unit = f(limit / WEIGHT_LEVELS);
  return Float32Array.from(exact, (sum) => f(f(sum) * unit));
}

/** Both spans' sums relative to the larger of their scores. */
function join(a: Partial, b: Partial): Partial {
  const largest = Math.max(a.largest, b.largest);
  const [x, y] = [a, b].map((part) => exp(f(part.largest - largest)));
  return {
    largest,
    total: f(f(a.total * x) + f(b.total * y)),
    sums: a.sums.map((sum, d) => f(f(sum * x) + f(b.sums[d] * y))),
  };
}
