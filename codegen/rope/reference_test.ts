import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { rotate } from "./reference.ts";

Deno.test("rotate turns features i and i + d/2 by the angle of frequency i", () => {
  const half = 8;
  const angles = Array.from({ length: half }, (_, i) => 37 / 10_000 ** (i / half));
  const cos = Float32Array.from(angles, Math.cos);
  const sin = Float32Array.from(angles, Math.sin);
  const before = randomFloats(randomOf(1), 2 * half, 4);
  const after = before.slice();
  rotate(after, cos, sin);
  for (let i = 0; i < half; i++) {
    const [a, b] = [before[i], before[i + half]];
    // Two products and a sum, each rounded once.
    const bound = 2 * 2 ** -24 * (Math.abs(a) + Math.abs(b));
    assert.ok(Math.abs(after[i] - (a * cos[i] - b * sin[i])) <= bound);
    assert.ok(Math.abs(after[i + half] - (b * cos[i] + a * sin[i])) <= bound);
  }
});

Deno.test("rotate leaves a head at position 0 as it is", () => {
  const head = randomFloats(randomOf(2), 10);
  const turned = head.slice();
  rotate(turned, new Float32Array(5).fill(1), new Float32Array(5));
  assert.deepEqual(turned, head);
});

Deno.test("rotate leaves the features that have no angle", () => {
  const head = Float32Array.of(1, 2, 3, 4, 5, 6);
  rotate(head, Float32Array.of(0), Float32Array.of(1));
  assert.deepEqual(head, Float32Array.of(-2, 1, 3, 4, 5, 6));
});

Deno.test("rotate by a right angle swaps the halves", () => {
  const head = Float32Array.of(1, 2, 3, 4);
  rotate(head, Float32Array.of(0, 0), Float32Array.of(1, 1));
  assert.deepEqual(head, Float32Array.of(-3, -4, 1, 2));
});
