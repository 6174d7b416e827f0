import assert from "node:assert/strict";
import {
  dot,
  dotWide,
  exp,
  laneSum,
  roundHalfEven,
  roundHalfEvenWide,
  shortened,
  treeSum,
  treeSumWide,
} from "./float_reference.ts";
import { randomFloats, randomOf } from "./test_helpers.ts";

const f = Math.fround;

/** Distance of neighbouring float32 values about x. */
function ulp(x: number): number {
  return 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -126) - 23);
}

Deno.test("exp is within 2 ulp of Math.exp", () => {
  const random = randomOf(1);
  const edges = [-87.3, -1e-8, 0, 1e-8, 0.34657, 0.34658, 88.3];
  const points = [...edges, ...Array.from({ length: 20_000 }, () => 175.6 * random() - 87.3)];
  for (const point of points) {
    const x = f(point);
    const expected = Math.exp(x);
    assert.ok(Math.abs(exp(x) - expected) <= 2 * ulp(expected), `exp(${x}) is ${exp(x)}`);
  }
});

Deno.test("exp is exact at 0 and stays normal and finite outside its range", () => {
  assert.equal(exp(0), 1);
  assert.equal(exp(-1000), exp(f(-87.3)));
  assert.ok(exp(-1000) >= 2 ** -126);
  assert.equal(exp(1000), exp(f(88.3)));
  assert.ok(exp(1000) < Infinity);
});

Deno.test("shortened keeps 13 bits, ties to even, nothing tiny and nothing huge", () => {
  const bit = 2 ** -12;
  const cases = [
    [0, 0],
    [1, 1],
    [1 + bit, 1 + bit],
    [1 + 1.5 * bit, 1 + 2 * bit],
    [1 + 0.5 * bit, 1],
    [1 + 0.5 * bit + 2 ** -23, 1 + bit],
    [-(2 - 0.375 * bit), -2],
    [2 ** -60, 2 ** -60],
    [2 ** -60 * (1 - 2 ** -24), 2 ** -60],
    [2 ** -60 * (1 - bit), 0],
    [-(2 ** -140), 0],
    [Infinity, 2 ** 100],
    [NaN, -(2 ** 100)],
  ];
  for (const [x, expected] of cases) assert.equal(shortened(f(x)), expected, `shortened(${x})`);
});

Deno.test("shortened numbers have exact products with f16 numbers", () => {
  const random = randomOf(2);
  for (let i = 0; i < 10_000; i++) {
    const product = shortened(f(random() - 0.5)) * Math.f16round(random() - 0.5);
    assert.equal(f(product), product);
  }
});

Deno.test("treeSum adds halves, quarters, pairs", () => {
  // 2^24 swallows a 1 that is added to it, but not the 2 that lanes 7 and 15 make first.
  const lanes = new Float32Array(16);
  lanes[0] = 2 ** 24;
  lanes[7] = 1;
  lanes[15] = 1;
  assert.equal(treeSum(lanes), 2 ** 24 + 2);
  // Lanes 0 and 8 meet first: here both ones are swallowed, one after the other.
  const swallowed = new Float32Array(16);
  swallowed[0] = 2 ** 24;
  swallowed[8] = 1;
  swallowed[4] = 1;
  assert.equal(treeSum(swallowed), 2 ** 24);
  assert.deepEqual(lanes[0], 2 ** 24, "the argument is left as it was");
});

Deno.test("treeSumWide has the same order in doubles", () => {
  const lanes = new Float64Array(16);
  lanes[0] = 2 ** 53;
  lanes[7] = 1;
  lanes[15] = 1;
  assert.equal(treeSumWide(lanes), 2 ** 53 + 2);
  lanes.set([0], 15);
  assert.equal(treeSumWide(lanes), 2 ** 53);
});

Deno.test("laneSum and dot give lane i % 16 its terms in order", () => {
  const a = randomFloats(randomOf(2), 100);
  const b = randomFloats(randomOf(3), 100);
  const lanes = new Float32Array(16);
  for (let i = 0; i < 100; i++) lanes[i % 16] = f(lanes[i % 16] + f(a[i] * b[i]));
  assert.equal(dot(a, b), treeSum(lanes));
  assert.equal(laneSum(100, (i) => f(a[i] * b[i])), treeSum(lanes));
});

Deno.test("dotWide is within its rounding error of a sum in another order", () => {
  const a = randomFloats(randomOf(4), 1000);
  const b = randomFloats(randomOf(5), 1000);
  const terms = Array.from(a, (v, i) => v * b[i]);
  const size = terms.reduce((sum, v) => sum + Math.abs(v), 0);
  const forward = terms.reduce((sum, v) => sum + v, 0);
  // Products of floats are exact doubles; each of the two sums rounds at most 1,000 times.
  assert.ok(Math.abs(dotWide(a, b) - forward) <= 2 * 1000 * 2 ** -53 * size);
});

Deno.test("rounding is to the nearest integer, ties to even", () => {
  const cases = [[0.5, 0], [1.5, 2], [2.5, 2], [-0.5, 0], [-1.5, -2], [-2.5, -2], [0.49, 0]];
  for (const round of [roundHalfEven, roundHalfEvenWide]) {
    for (const [x, expected] of cases) assert.equal(round(x) + 0, expected, `${round.name}(${x})`);
    for (const x of [0, 126.7, -127.2, 1e6 + 0.3]) assert.equal(round(x) + 0, Math.round(x));
  }
  assert.equal(roundHalfEvenWide(2 ** 31 - 0.5), 2 ** 31);
});
