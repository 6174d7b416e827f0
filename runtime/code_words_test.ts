import assert from "node:assert/strict";
import { firstDifference } from "./code_words.ts";

Deno.test("the first byte that differs is found wherever it is, however arrays are aligned", () => {
  for (const offset of [0, 1, 2, 3]) {
    const a = Uint8Array.from({ length: 23 }, (_, i) => i);
    const b = new Uint8Array(23 + offset).subarray(offset);
    b.set(a);
    assert.equal(firstDifference(a, b), -1);
    for (let i = a.length - 1; i >= 0; i--) {
      b[i] ^= 128;
      assert.equal(firstDifference(a, b), i);
      assert.equal(firstDifference(b, a), i);
    }
  }
});

Deno.test("arrays of different lengths differ behind the shorter one", () => {
  const a = new Uint8Array(9);
  assert.equal(firstDifference(a, a.subarray(0, 6)), 6);
  assert.equal(firstDifference(a.subarray(0, 4), a), 4);
  assert.equal(firstDifference(new Uint8Array(0), new Uint8Array(0)), -1);
});
