import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { quantize, rmsNorm } from "./reference.ts";

Deno.test("rmsNorm agrees with the formula within its rounding error", () => {
  for (const k of [1, 16, 33, 2560]) {
    const x = randomFloats(randomOf(k), k, 30);
    const weight = randomFloats(randomOf(k + 1), k, 2);
    const mean = x.reduce((sum, v) => sum + v * v, 0) / k;
    const y = rmsNorm(x, weight, 1e-5);
    for (let i = 0; i < k; i++) {
      const expected = x[i] / Math.sqrt(mean + 1e-5) * weight[i];
      // k additions on each side, then a division, a root and two products.
      assert.ok(Math.abs(y[i] - expected) <= (2 * k + 8) * 2 ** -53 * Math.abs(expected));
    }
  }
});

Deno.test("rmsNorm of zeros is zero", () => {
  assert.deepEqual(
    rmsNorm(new Float32Array(3), Float32Array.of(1, 2, 3), 1e-5),
    new Float64Array(3),
  );
});

Deno.test("quantize: codes reach 127, values are half a step away at most", () => {
  const x = randomFloats(randomOf(1), 1000, 5);
  const { codes, inverse } = quantize(x);
  assert.equal(codes.reduce((max, code) => Math.max(max, Math.abs(code)), 0), 127);
  x.forEach((v, i) => {
    assert.ok(Math.abs(v - codes[i] * inverse) <= inverse / 2 * (1 + 1e-12), `x = ${v}`);
  });
});

Deno.test("quantize rounds ties to even", () => {
  // The largest value makes the scale 1.
  assert.deepEqual(
    quantize(Float32Array.of(127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5)).codes,
    Int8Array.of(127, 0, 2, 2, 0, -2, -2),
  );
});

Deno.test("quantize: rows of nearly nothing have the smallest scale, not infinity", () => {
  const { codes, inverse } = quantize(Float32Array.of(0, 1e-6, -1e-7));
  assert.deepEqual(codes, Int8Array.of(0, 13, -1));
  assert.equal(inverse, 1 / (127 / 1e-5));
});
