import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { route, weightedSum } from "./reference.ts";

/** Routes a token whose scores are given: features are scores, rows of the router unit vectors. */
function routeScores(scores: readonly number[], picks: number) {
  const unit = (e: number) => Float32Array.from(scores, (_, i) => i === e ? 1 : 0);
  return route(Float32Array.from(scores), unit, scores.length, picks);
}

Deno.test("route picks the largest scores, falling", () => {
  assert.deepEqual(routeScores([0.5, -1, 3, 2, 2.5], 3).experts, [2, 4, 3]);
  assert.deepEqual(routeScores([-5], 1).experts, [0]);
});

Deno.test("route gives ties to the lower expert", () => {
  assert.deepEqual(routeScores([1, 2, 1, 2, 1, 2], 4).experts, [1, 3, 5, 0]);
  assert.deepEqual(routeScores([0, -0, 0, -0], 2).experts, [0, 1]);
});

Deno.test("route picks different experts whatever the scores are", () => {
  for (const scores of [[NaN, NaN, NaN, NaN], [NaN, 1, NaN, 2], [1, NaN, Infinity, -Infinity]]) {
    const x = Float32Array.of(1);
    const { experts } = route(x, (e) => Float32Array.of(scores[e]), 4, 3);
    assert.equal(new Set(experts).size, 3, `${scores}`);
  }
});

Deno.test("weights are the softmax over all scores, divided by its sum over the picked", () => {
  const scores = [...randomFloats(randomOf(1), 256, 6)];
  const { experts, weights } = routeScores(scores, 8);
  const exps = scores.map((score) => Math.exp(score));
  const total = exps.reduce((sum, e) => sum + e, 0);
  const probabilities = experts.map((e) => exps[e] / total);
  const picked = probabilities.reduce((sum, p) => sum + p, 0);
  weights.forEach((weight, rank) => {
    const expected = probabilities[rank] / picked;
    // The difference of two scores below 8 in size, exp within 2 ulp, a sum of 8, its inverse, a product.
    const relative = (2 * 12 + 4 + 8 + 2) * 2 ** -24;
    assert.ok(Math.abs(weight - expected) <= relative * expected, `${weight} and ${expected}`);
  });
});

Deno.test("weights are finite and sum to one where scores are far apart", () => {
  for (const scores of [[1e30, -1e30, 0], [88, -200, 300], [0, 0, 0]]) {
    const { weights } = routeScores(scores, 3);
    const sum = weights.reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum - 1) < 1e-6, `${scores}: ${weights}`);
  }
});

Deno.test("the weighted sum adds in the order of the ranks, each term rounded", () => {
  const f = Math.fround;
  const weights = Float32Array.of(1, 0.1, 0.3);
  const outputs = [Float32Array.of(2 ** 24, 1), Float32Array.of(9, 3), Float32Array.of(-7, 5)];
  const expected = [0, 1].map((i) =>
    outputs.reduce((sum, output, rank) => f(sum + f(weights[rank] * output[i])), 0)
  );
  assert.deepEqual([...weightedSum(weights, outputs)], expected);
  // 2^24 swallows 0.9: in another order the sum would be another.
  assert.equal(expected[0], 2 ** 24 - 2);
});
