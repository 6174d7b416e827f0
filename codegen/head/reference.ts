import { dot, dotWide, roundHalfEven } from "../float_reference.ts";
import { FLOAT_SLACK, INPUT_CODES, LARGEST_LEVEL, marginOf } from "./sketch.ts";

const f = Math.fround;

/** A row of the head as the sketch has it. */
export interface SketchedRow {
  /** (k,) upper and lower trits as codes 0, 1, 2: level = 3 * (upper - 1) + lower - 1. */
  upper: Uint8Array;
  lower: Uint8Array;
  scale: number;
  /** sum(level * v), which the dither of the input adds to a product. */
  correction: number;
  /** |w|. */
  norm: number;
}

/**
 * Rounds a row of the head to 9 levels with subtractive dither; see `sketch.ts`.
 *
 * @param w (k,) float32. @param dither u then v, each of dither.length / 2.
 */
export function sketchRow(w: Float32Array, dither: Float32Array): SketchedRow {
  const v = dither.subarray(dither.length / 2);
  let largest = 0;
  for (const weight of w) largest = Math.max(largest, Math.abs(weight));
  const scale = f(largest / LARGEST_LEVEL);
  const inverse = scale > 0 ? f(1 / scale) : 0;
  const levels = w.map((weight, i) => {
    const level = roundHalfEven(f(f(weight * inverse) + (scale > 0 ? dither[i] : 0)));
    return Math.max(-LARGEST_LEVEL, Math.min(LARGEST_LEVEL, level));
  });
  const trit = (level: number) => Number(level >= 2) - Number(level <= -2);
  return {
    upper: Uint8Array.from(levels, (level) => trit(level) + 1),
    lower: Uint8Array.from(levels, (level) => level - 3 * trit(level) + 1),
    scale,
    correction: f(dotWide(levels, v.subarray(0, w.length))),
    norm: f(Math.sqrt(dotWide(w, w))),
  };
}

/** An input of the head, rounded to int8 with subtractive dither. */
export interface SketchedInput {
  /** (k,) int8. */
  codes: Int8Array;
  step: number;
  /** sum(u * (codes - v)). */
  offset: number;
  /** |x| and |step * (codes - v)|. */
  norm: number;
  roundedNorm: number;
}

/** @param x (k,), the final norm's output. */
export function sketchInput(x: Float32Array, dither: Float32Array): SketchedInput {
  const [u, v] = [dither.subarray(0, x.length), dither.subarray(dither.length / 2)];
  let largest = f(1e-20);
  for (const value of x) largest = Math.max(largest, Math.abs(value));
  const step = f(largest / INPUT_CODES);
  const inverse = f(1 / step);
  const codes = Int8Array.from(x, (value, i) => roundHalfEven(f(f(value * inverse) + v[i])));
  const rounded = Float64Array.from(codes, (code, i) => code - v[i]);
  return {
    codes,
    step,
    offset: f(dotWide(u, rounded)),
    norm: f(Math.sqrt(dotWide(x, x))),
    roundedNorm: f(Math.sqrt(dotWide(rounded, rounded)) * step),
  };
}

/** The most that a row's logit can be, but for 1 of 1e9 tokens. */
export function upperBound(row: SketchedRow, x: SketchedInput, candidates: number): number {
  let sum = 0;
  row.upper.forEach((upper, i) => {
    sum += (3 * (upper - 1) + row.lower[i] - 1) * x.codes[i];
  });
  const levels = f(f(sum - row.correction) - x.offset);
  const estimate = f(row.scale * f(x.step * levels));
  const { weight, scale } = marginsOf(x, candidates);
  return f(estimate + f(f(row.norm * weight) + f(row.scale * scale)));
}

/** Factors of |w| and of a row's scale in its margin. */
export function marginsOf(x: SketchedInput, candidates: number): { weight: number; scale: number } {
  const margin = f(marginOf(candidates));
  return {
    weight: f(f(margin * x.step) + f(f(FLOAT_SLACK) * x.norm)),
    scale: f(margin * x.roundedNorm),
  };
}

/**
 * What the two-stage head gives: the `candidates` largest logits and every other whose upper bound
 * reaches the least of these are exact, the others -Infinity.
 */
export function twoStage(
  rows: readonly Float32Array[],
  x: Float32Array,
  dither: Float32Array,
  candidates: number,
): Float32Array {
  const input = sketchInput(x, dither);
  const upper = rows.map((row) => upperBound(sketchRow(row, dither), input, candidates));
  const best = upper.map((_, r) => r).sort((a, b) => upper[b] - upper[a]).slice(0, candidates);
  const threshold = Math.min(...best.map((r) => dot(x, rows[r])));
  return Float32Array.from(
    rows,
    (row, r) => upper[r] >= threshold ? dot(x, row) : -Infinity,
  );
}
