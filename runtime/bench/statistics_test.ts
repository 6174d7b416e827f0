import assert from "node:assert/strict";
import { arithmeticRate } from "./batches.ts";
import { median, rateOf } from "./statistics.ts";
import { rangeSum } from "./turns.ts";

Deno.test("statistics: median of odd and even counts", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([7]), 7);
});

Deno.test("statistics: sample standard deviation beside the median", () => {
  assert.deepEqual(rateOf([5]), { tokensPerSecond: 5, stdev: 0 });
  assert.deepEqual(rateOf([1, 2, 3]), { tokensPerSecond: 2, stdev: 1 });
});

Deno.test("statistics: sums of ranges", () => {
  assert.equal(rangeSum(1, 4), 10);
  assert.equal(rangeSum(5, 5), 5);
});

Deno.test("batches: the arithmetic rate of a core grows with the tokens of a step", () => {
  const rates = [1, 2, 3, 4, 8, 15, 16, 512].map((tokens) => arithmeticRate("avx512", tokens));
  assert.deepEqual(rates, [160e9, 160e9, 160e9, 200e9, 230e9, 230e9, 250e9, 250e9]);
  assert.equal(arithmeticRate("portable", 4), null);
});
