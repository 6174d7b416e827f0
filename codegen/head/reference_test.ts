import assert from "node:assert/strict";
import fc from "fast-check";
import { dot } from "../float_reference.ts";
import { randomOf } from "../random.ts";
import { sketchInput, sketchRow, twoStage, upperBound } from "./reference.ts";
import { marginOf, SKETCH_CANDIDATES, sketchDither } from "./sketch.ts";

/** Normal, with a tail: the cube of a normal value is large now and then. */
function heavyTailed(random: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random();
  return random() < 0.05 ? sum ** 3 : sum;
}

const floats = (k: number, next: () => number) => Float32Array.from({ length: k }, next);

Deno.test("sketch: levels and dither give each weight back to half a step", () => {
  for (const k of [1, 15, 16, 17, 100]) {
    const random = randomOf(k);
    const dither = sketchDither(k);
    const w = floats(k, () => heavyTailed(random));
    const { upper, lower, scale } = sketchRow(w, dither);
    w.forEach((weight, i) => {
      const level = 3 * (upper[i] - 1) + lower[i] - 1;
      assert.ok(Math.abs(weight - scale * (level - dither[i])) <= scale * 0.50001, `${k}: ${i}`);
    });
  }
});

Deno.test("sketch: a row of zeros has a scale of zero, and its bound is its logit", () => {
  const dither = sketchDither(20);
  const row = sketchRow(new Float32Array(20), dither);
  assert.equal(row.scale, 0);
  const x = sketchInput(Float32Array.from({ length: 20 }, (_, i) => i - 7), dither);
  assert.ok(Math.abs(upperBound(row, x, 1)) < 1e-6);
});

Deno.test("sketch: dither is never half, so that no level passes the largest", () => {
  const dither = sketchDither(2560);
  assert.ok(dither.every((d) => Math.abs(d) < 0.5));
  const mean = dither.reduce((sum, d) => sum + d, 0) / dither.length;
  const variance = dither.reduce((sum, d) => sum + d * d, 0) / dither.length;
  assert.ok(Math.abs(mean) < 0.02 && Math.abs(variance - 1 / 12) < 0.005, `${mean} ${variance}`);
});

Deno.test("sketch: errors of logits have the size that the bound takes them to have", () => {
  const k = 256;
  const random = randomOf(5);
  const dither = sketchDither(k);
  let largest = 0;
  let squares = 0;
  const count = 4000;
  for (let i = 0; i < count; i++) {
    const w = floats(k, () => heavyTailed(random));
    const x = floats(k, () => heavyTailed(random));
    const row = sketchRow(w, dither);
    const input = sketchInput(x, dither);
    // The bound is the estimate and a margin of marginOf(1) sqrt(12) deviations.
    const margin = marginOf(1) * (input.step * row.norm + row.scale * input.roundedNorm);
    const deviations = (upperBound(row, input, 1) - margin - dot(x, w)) / margin *
      marginOf(1) * Math.sqrt(12);
    largest = Math.max(largest, Math.abs(deviations));
    squares += deviations ** 2;
  }
  // Both parts of the margin are added although they are independent: less than one deviation.
  assert.ok(squares / count > 0.3 && squares / count < 1.05, `variance ${squares / count}`);
  assert.ok(largest < 5.5, `${largest} deviations`);
});

Deno.test("two-stage: the largest logits are exact, whatever the matrix and the input", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.constantFrom(1, 2, 5, 40),
      fc.constantFrom(16, 33, 64),
      fc.constantFrom("heavy", "sparse", "ties", "along a row"),
      (seed, candidates, k, kind) => {
        const random = randomOf(seed);
        const rows = Array.from({ length: 300 }, () => floats(k, () => heavyTailed(random)));
        if (kind === "ties") rows.forEach((_, i) => rows[i] = rows[i % 3]);
        const x = kind === "along a row"
          ? rows[7].map((v) => 100 * v)
          : floats(k, () => kind === "sparse" && random() < 0.9 ? 0 : heavyTailed(random));
        const full = rows.map((row) => dot(x, row));
        const least = full.toSorted((a, b) => b - a)[candidates - 1];
        twoStage(rows, x, sketchDither(k), candidates).forEach((logit, r) => {
          if (full[r] >= least || logit !== -Infinity) assert.equal(logit, full[r], `row ${r}`);
        });
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("margins: a miss of one of c rows has a chance of 1e-9", () => {
  for (const candidates of [1, 40, SKETCH_CANDIDATES]) {
    const m = marginOf(candidates) * Math.sqrt(12);
    assert.ok(2 * candidates * Math.exp(-m * m / 2) <= 1e-9);
  }
});
