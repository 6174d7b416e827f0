import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { Pointer } from "../kernels/ffi.ts";
import type { ModelLibrary } from "../kernels/native_model.ts";
import { inFolder } from "../kernels/test_helpers.ts";
import { loadWeights } from "./native_executor.ts";
import { HEADER_BYTES } from "./packed_file.ts";

const MIB = 1 << 20;

/** A system that can't map, with memory for `bytes`. */
function unmappable(bytes: number) {
  const memory = new Uint8Array(bytes);
  const state = { freed: 0, most: 0 };
  const symbols = {
    trilith_map_file: () => null,
    trilith_alloc: () => ({}) as Pointer,
    trilith_free: () => void state.freed++,
    trilith_write(_memory: Pointer, offset: bigint, piece: Uint8Array, count: bigint) {
      state.most = Math.max(state.most, Number(count));
      memory.set(piece.subarray(0, Number(count)), Number(offset));
    },
  };
  return { library: { symbols } as unknown as ModelLibrary, memory, state };
}

async function withData(bytes: number, use: (file: string, data: Uint8Array) => Promise<void>) {
  await inFolder(async (folder) => {
    const file = path.join(folder, "weights");
    const all = Uint8Array.from({ length: HEADER_BYTES + bytes }, (_, i) => i * 31 + (i >> 16));
    fs.writeFileSync(file, all);
    await use(file, all.subarray(HEADER_BYTES));
  });
}

Deno.test("weights: a file that can't be mapped is read into memory, a piece at a time", async () => {
  await withData(17 * MIB + 5, async (file, data) => {
    const { library, memory, state } = unmappable(data.length);
    const weights = await loadWeights(library, { path: file, dataBytes: data.length });
    assert.ok(memory.every((byte, i) => byte === data[i]));
    assert.ok(state.most <= 8 * MIB);
    assert.equal(state.freed, 0);
    weights.release();
    assert.equal(state.freed, 1);
  });
});

Deno.test("weights: memory is given back where the file is cut short", async () => {
  await withData(100, async (file, { length }) => {
    const { library, state } = unmappable(length + 1);
    const dataBytes = length + 1;
    await assert.rejects(loadWeights(library, { path: file, dataBytes }), /was cut short/);
    assert.equal(state.freed, 1);
  });
});
