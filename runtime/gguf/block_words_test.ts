import assert from "node:assert/strict";
import { type BlockKind, STORED_BLOCKS } from "../../codegen/pack/stored.ts";
import { randomOf } from "../../codegen/random.ts";
import * as fast from "./block_words.ts";
import { blockCodes, factorPlace } from "./ternary_blocks.ts";

const [N, BLOCKS_PER_ROW] = [5, 7];

for (const [kind, { weights, bytes: size }] of Object.entries(STORED_BLOCKS)) {
  Deno.test(`${kind}: any bytes have the codes that they have a weight at a time`, () => {
    const random = randomOf(11);
    const length = N * BLOCKS_PER_ROW * size;
    // An odd place in its buffer, as parts of tensors may have.
    const bytes = new Uint8Array(length + 1).subarray(1);
    for (let i = 0; i < length; i++) bytes[i] = Math.floor(random() * 256);
    const factorAt = factorPlace(kind as BlockKind);
    if (factorAt !== null) bytes.fill(0, 3 * size + factorAt, 3 * size + factorAt + 2);
    const matrix = { kind: kind as BlockKind, bytes, n: N, k: BLOCKS_PER_ROW * weights };
    const expected = blockCodes(matrix);
    assert.equal(new Set(expected).size, /tq1/.test(kind) ? 3 : 4);
    assert.deepEqual(fast.blockCodes(matrix), expected);
  });
}
