import assert from "node:assert/strict";
import { packMatrix } from "../layouts/layout.ts";
import { randomActivations, randomCodes, randomOf } from "../test_helpers.ts";
import { ternaryLinear } from "./reference.ts";
import { LAYOUTS } from "./spec.ts";

for (const layout of LAYOUTS) {
  Deno.test(`ternaryLinear of ${layout.name} is the matrix product`, () => {
    const [n, k] = [37, 29];
    const codes = randomCodes(randomOf(1), n * k);
    const x = randomActivations(randomOf(2), k);
    const expected = Int32Array.from({ length: n }, (_, row) => {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += [-x[i], 0, x[i]][codes[row * k + i]];
      return sum;
    });
    const packed = packMatrix(layout, codes, n, k);
    assert.deepEqual(ternaryLinear(layout, packed, n, k, x), expected);
    const some = ternaryLinear(layout, packed, n, k, x, { first: 30, last: 33 });
    assert.deepEqual(some, expected.slice(30, 33));
  });

  Deno.test(`ternaryLinear of ${layout.name} reaches the limits of its sums`, () => {
    const k = 300;
    for (const [code, x, sum] of [[2, 127, 38_100], [0, 127, -38_100], [0, -128, 38_400]]) {
      const packed = packMatrix(layout, new Uint8Array(k).fill(code), 1, k);
      const y = ternaryLinear(layout, packed, 1, k, new Int8Array(k).fill(x));
      assert.deepEqual(y, Int32Array.of(sum));
    }
  });
}
