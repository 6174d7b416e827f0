import assert from "node:assert/strict";
import { KV_TYPES, type KvType } from "../model_spec.ts";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { attention, type CachedRow, cachedRow } from "./reference.ts";

/** Attention over rows that the cache of a type keeps. */
function attend(kvType: KvType, q: Float32Array, keys: Float32Array[], values: Float32Array[]) {
  const [k, v] = [keys, values].map((rows) => rows.map((row) => cachedRow(kvType, row)));
  return attention(kvType, q, { first: 0, count: keys.length }, (i) => k[i], (i) => v[i]);
}

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

/** Largest error of a kept number, relative to the largest of its row. */
const ROUNDING: Record<KvType, number> = { f32: 0, f16: 2 ** -11, int8: 0.5 / 127 };

for (const kvType of KV_TYPES) {
  Deno.test(`${kvType} attention agrees with the formula within its rounding error`, () => {
    for (const [headDim, count] of [[16, 1], [10, 5], [64, 17], [128, 200], [32, 600]]) {
      const random = randomOf(count);
      const q = randomFloats(random, headDim, 3);
      const keys = Array.from({ length: count }, () => randomFloats(random, headDim, 3));
      const values = Array.from({ length: count }, () => randomFloats(random, headDim, 3));
      const out = attend(kvType, q, keys, values);
      // Scores are within 9 sqrt(d) of each other. They are off by the rounding of keys, and of queries
      // with int8, and by that of at most d + 3 sums; exp adds 2 ulp, and sums of at most `count`
      // roundings, two joins and a division follow.
      const ulp = 2 ** -24;
      const rounding = ROUNDING[kvType];
      const score = 9 * Math.sqrt(headDim) * (2 * rounding + rounding ** 2 + (headDim + 4) * ulp);
      const level = kvType === "int8" ? 1 / 16383 * count : 0;
      const relative = 2 * Math.expm1(score) + (2 * count + 12) * ulp + level;
      naive(q, keys, values).forEach((expected, d) => {
        const most = 3 * (relative + rounding * 1.01);
        assert.ok(Math.abs(out[d] - expected) <= most, `${out[d]} and ${expected}, ${most}`);
      });
    }
  });

  Deno.test(`${kvType} attention from a first position on does not see those before`, () => {
    const random = randomOf(5);
    const q = randomFloats(random, 16, 3);
    const rows = () =>
      Array.from({ length: 300 }, () => cachedRow(kvType, randomFloats(random, 16, 3)));
    const [keys, values] = [rows(), rows()];
    for (const first of [0, 1, 15, 16, 17, 255, 256, 257, 299]) {
      const read = (of: CachedRow[], later: number) => (i: number) => {
        assert.ok(i >= first + later);
        return of[i - later];
      };
      const at = (later: number) =>
        attention(
          kvType,
          q,
          { first: first + later, count: 300 + later },
          read(keys, later),
          read(values, later),
        );
      const real = (of: CachedRow[]) =>
        of.slice(first).map(({ values, scale }) =>
          Float32Array.from(values, (value) => value * scale)
        );
      // Terms of a score are at most 9 / 4; with f16 each query's loses up to 2^-14 of itself.
      const level = { f32: 1e-4, f16: 2e-3, int8: 0.2 }[kvType];
      naive(q, real(keys), real(values)).forEach((expected, d) => {
        assert.ok(Math.abs(at(0)[d] - expected) <= level, `${at(0)[d]} and ${expected}`);
      });
      // A whole span of positions later all stands in the same places: the same bits.
      assert.deepEqual(at(256), at(0));
    }
  });

  Deno.test(`${kvType} attention over one position is its value`, () => {
    // A row of int8 keeps multiples of its 127th part.
    const value = Float32Array.of(1.5, -127, 3).map((v) => v === 1.5 ? 5 : v);
    assert.deepEqual(attend(kvType, Float32Array.of(1, 2, 3), [value], [value]), value);
  });

  Deno.test(`${kvType} attention to equal keys is the mean, over many spans`, () => {
    const q = Float32Array.of(1, 2);
    const values = Array.from({ length: 1024 }, (_, i) => Float32Array.of(127, i % 2 ? 3 : 5));
    const out = attend(kvType, q, values.map(() => q), values);
    // 14 bits of weight, all rounded alike.
    assert.ok(Math.abs(out[0] - 127) < 1e-4 && Math.abs(out[1] - 4) < 1e-5, `${out}`);
  });

  Deno.test(`${kvType} attention does not overflow where scores are large`, () => {
    const q = Float32Array.of(1e4, 1e4);
    const keys = [Float32Array.of(1e4, 1e4), Float32Array.of(-1e4, -1e4)];
    const values = [Float32Array.of(1, 127), Float32Array.of(5, 127)];
    assert.deepEqual(attend(kvType, q, keys, values), Float32Array.of(1, 127));
  });

  Deno.test(`${kvType} attention keeps what a dominant position leaves over`, () => {
    // The first position takes most of the weight, as position 0 of trained models does; the other 255
    // are within 2 % of one another, and their sum is what matters.
    const headDim = 2;
    const q = Float32Array.of(Math.fround(Math.SQRT2), 0);
    const keys = Array.from({ length: 256 }, (_, i) => Float32Array.of(i === 0 ? 6.35 : 0, 1));
    const values = Array.from({ length: 256 }, (_, i) => Float32Array.of(i === 0 ? 0 : 1, 1));
    const out = attend(kvType, q, keys, values);
    const expected = 255 / (255 + Math.exp(6.35));
    assert.equal(out.length, headDim);
    assert.ok(Math.abs(out[0] - expected) < 0.01, `${out[0]} and ${expected}`);
  });

  Deno.test(`${kvType} rows keep no infinities and no NaN`, () => {
    const { values, scale } = cachedRow(kvType, Float32Array.of(Infinity, -Infinity, NaN, 1));
    for (const value of Array.from(values)) assert.ok(Number.isFinite(value * scale));
    assert.equal(values[0], -values[1]);
  });
}

Deno.test("int8 rows of zeros, and of numbers too small for a float32 factor, are zeros", () => {
  for (const v of [0, 1e-44, -1e-44]) {
    const { values, scale } = cachedRow("int8", Float32Array.of(v, v));
    assert.deepEqual(Array.from(values, Math.abs), [0, 0]);
    assert.ok(scale > 0 && Number.isFinite(scale));
  }
});
