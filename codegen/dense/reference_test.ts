import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { dense, halfToFloat, widenRow } from "./reference.ts";

Deno.test("halfToFloat agrees with Float16Array on all 65,536 bit patterns", () => {
  const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
  const expected = new Float16Array(bits.buffer);
  bits.forEach((half, i) => assert.ok(Object.is(halfToFloat(half), expected[i]), `bits ${half}`));
});

Deno.test("widenRow reads rows of every type at any offset", () => {
  const row = Float32Array.of(1.5, -2, 0.15625, 1024);
  const bf16 = Uint16Array.from(new Uint32Array(row.buffer), (word) => word >>> 16);
  const stored = { f32: row, f16: Float16Array.from(row), bf16 } as const;
  for (const [type, values] of Object.entries(stored)) {
    const bytes = new Uint8Array(values.byteLength + 3);
    bytes.set(new Uint8Array(values.buffer), 3);
    assert.deepEqual(widenRow(bytes, type as keyof typeof stored, 4, 3), row, type);
  }
});

Deno.test("dense agrees with the sum of products within its rounding error", () => {
  const k = 100;
  const x = randomFloats(randomOf(1), k);
  const rows = Array.from({ length: 5 }, (_, r) => randomFloats(randomOf(r), k));
  dense((r) => rows[r], 5, x).forEach((y, r) => {
    const terms = Array.from(x, (v, i) => v * rows[r][i]);
    const size = terms.reduce((sum, v) => sum + Math.abs(v), 0);
    const expected = terms.reduce((sum, v) => sum + v, 0);
    // A product, 7 additions in a lane and 4 in the tree: each term meets 12 roundings.
    assert.ok(Math.abs(y - expected) <= 12 * 2 ** -24 * size * (1 + 1e-6));
  });
});
