import assert from "node:assert/strict";
import { CheckpointError, UnsupportedModelError } from "../errors.ts";
import type { TensorInfo } from "../tensors.ts";
import { isFused, partsOf } from "./fused.ts";

const NAME = "blk.3.attn_qkv.weight";
const ROWS = { q: 64, k: 16, v: 16 };

function info(dtype: TensorInfo["dtype"], shape: number[], byteLength: number): TensorInfo {
  return { dtype, shape, byteOffset: 1000, byteLength };
}

Deno.test("fused tensors: rows of queries, keys and values one after the other", () => {
  const rowBytes = 2 * 66;
  assert.deepEqual([...partsOf(NAME, info("TQ2_0", [96, 512], 96 * rowBytes), ROWS)], [
    ["blk.3.attn_q.weight", { ...info("TQ2_0", [64, 512], 64 * rowBytes), byteOffset: 1000 }],
    [
      "blk.3.attn_k.weight",
      { ...info("TQ2_0", [16, 512], 16 * rowBytes), byteOffset: 1000 + 64 * rowBytes },
    ],
    [
      "blk.3.attn_v.weight",
      { ...info("TQ2_0", [16, 512], 16 * rowBytes), byteOffset: 1000 + 80 * rowBytes },
    ],
  ]);
  const bias = partsOf("blk.3.attn_qkv.bias", info("F32", [96], 384), ROWS);
  assert.deepEqual(bias.get("blk.3.attn_v.bias"), {
    ...info("F32", [16], 64),
    byteOffset: 1000 + 320,
  });
  assert.deepEqual(["blk.3.attn_q.weight", "attn_qkv.weight"].map(isFused), [false, false]);
});

Deno.test("fused tensors: other rows, broken blocks and a factor for all are refused", () => {
  const parts = (...args: Parameters<typeof info>) => () => partsOf(NAME, info(...args), ROWS);
  assert.throws(parts("F16", [95, 64], 95 * 128), (error: Error) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(error.message, /must have 96 rows together: current value is 95$/);
    return true;
  });
  assert.throws(parts("Q8_0", [96, 33], 99 * 34), /rows must be whole blocks of Q8_0/);
  assert.throws(parts("I2_S", [96, 128], 96 * 32 + 32), UnsupportedModelError);
});
