import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { attention } from "./reference.ts";

/** softmax(q k^T / sqrt(d)) v in doubles, by the book. */
function naive(q: Float32Array, keys: Float32Array[], values: Float32Array[]): number[] {
  const scores = keys.map((key) =>
    key.reduce((sum, v, d) => sum + v * q[d], 0) / Math.sqrt(q.length)
  );
  const largest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Array.from(
    q,
    (_, d) => weights.reduce((sum, weight, i) => sum + weight * values[i][d], 0) / total,
  );
}

Deno.test("attention agrees with the formula within its rounding error", () => {
  for (const [headDim, count] of [[16, 1], [10, 5], [64, 17], [128, 200]]) {
    const random = randomOf(count);
    const q = randomFloats(random, headDim, 3);
    const keys = Array.from({ length: count }, () => randomFloats(random, headDim, 3));
    const values = Array.from({ length: count }, () => randomFloats(random, headDim, 3));
    const out = attention(q, count, (i) => keys[i], (i) => values[i]);
    // Scores are within 9 sqrt(d) of each other; rounding that to a float is a relative error of a
    // weight, to which exp adds 2 ulp. Two sums of at most `count` roundings follow, and a division.
    const relative = (2 * 9 * Math.sqrt(headDim) + 4 + 2 * count + 4) * 2 ** -24;
    naive(q, keys, values).forEach((expected, d) => {
      assert.ok(Math.abs(out[d] - expected) <= 2 * relative * 3, `${out[d]} and ${expected}`);
    });
  }
});

Deno.test("attention from a first position on does not see those before, and adds in their lanes", () => {
  const random = randomOf(5);
  const q = randomFloats(random, 16, 3);
  const keys = Array.from({ length: 40 }, () => randomFloats(random, 16, 3));
  const values = Array.from({ length: 40 }, () => randomFloats(random, 16, 3));
  const seen = (rows: Float32Array[], first: number) => (i: number) => {
    assert.ok(i >= first);
    return rows[i];
  };
  for (const first of [0, 1, 15, 16, 17, 39]) {
    const out = attention(q, 40, seen(keys, first), seen(values, first), first);
    const relative = (2 * 9 * 4 + 8 + 2 * 40) * 2 ** -24;
    naive(q, keys.slice(first), values.slice(first)).forEach((expected, d) => {
      assert.ok(Math.abs(out[d] - expected) <= 2 * relative * 3, `${out[d]} and ${expected}`);
    });
    // A whole block of positions later, all stands in the same lanes: the same bits.
    const later = attention(
      q,
      56,
      (i) => seen(keys, first)(i - 16),
      (i) => seen(values, first)(i - 16),
      first + 16,
    );
    assert.deepEqual(later, out);
  }
});

Deno.test("attention over one position is its value", () => {
  const value = Float32Array.of(1.5, -2, 3);
  assert.deepEqual(attention(Float32Array.of(1, 2, 3), 1, () => value, () => value), value);
});

Deno.test("attention to equal keys is the mean", () => {
  const q = Float32Array.of(1, 2);
  const values = [Float32Array.of(1, 0), Float32Array.of(3, 4)];
  assert.deepEqual(attention(q, 2, () => q, (i) => values[i]), Float32Array.of(2, 2));
});

Deno.test("attention does not overflow where scores are large", () => {
  const q = Float32Array.of(1e4, 1e4);
  const keys = [Float32Array.of(1e4, 1e4), Float32Array.of(-1e4, -1e4)];
  const values = [Float32Array.of(1, 2), Float32Array.of(5, 5)];
  assert.deepEqual(attention(q, 2, (i) => keys[i], (i) => values[i]), Float32Array.of(1, 2));
});
