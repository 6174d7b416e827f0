import assert from "node:assert/strict";
import { randomOf } from "../../codegen/random.ts";
import { memoryBytes } from "../byte_source.ts";
import type { I2sLayout } from "./checkpoint.ts";
import { RowReader } from "./rows.ts";
import { blockCodes } from "./ternary_blocks.ts";

const [N, K] = [8, 256];

/** Codes as a layout's definition puts them into bytes, each by itself. */
function encoded(codes: Uint8Array, layout: I2sLayout): Uint8Array {
  const out = new Uint8Array(N * K / 4 + 32);
  for (let row = 0; row < N; row++) {
    for (let column = 0; column < K; column++) {
      const [at, shift] = placeOf(row, column, layout);
      out[at] |= codes[row * K + column] << shift;
    }
  }
  new DataView(out.buffer).setFloat32(N * K / 4, 0.5, true);
  return out;
}

function placeOf(row: number, column: number, layout: I2sLayout): [at: number, shift: number] {
  if (layout === "rows4") return [(row >> 2) * K + column, 6 - 2 * (row & 3)];
  const bytes = layout === "x86" ? 32 : 16;
  const i = row * K + column;
  return [Math.floor(i / (4 * bytes)) * bytes + i % bytes, 6 - 2 * Math.floor(i / bytes % 4)];
}

for (const i2sLayout of ["x86", "arm", "rows4"] as const) {
  Deno.test(`I2_S in the layout ${i2sLayout} is read as x86 has it, rows of heads in order`, async () => {
    const random = randomOf(1);
    const codes = Uint8Array.from({ length: N * K }, () => Math.floor(random() * 3));
    const bytes = encoded(codes, i2sLayout);
    const info = { dtype: "I2_S", shape: [N, K], byteOffset: 0, byteLength: bytes.length } as const;
    for (const turn of [null, { heads: 2, headDim: 4 }]) {
      const reader = new RowReader(memoryBytes(bytes, "m"), info, { name: "w", turn, i2sLayout });
      const read = await reader.read(0, bytes.length);
      const found = blockCodes({ kind: "i2s", bytes: read, n: N, k: K });
      const order = turn === null ? [0, 1, 2, 3, 4, 5, 6, 7] : [0, 2, 1, 3, 4, 6, 5, 7];
      const expected = order.flatMap((row) => [...codes.subarray(row * K, (row + 1) * K)]);
      assert.deepEqual([...found], expected);
      assert.deepEqual(read.subarray(N * K / 4), bytes.subarray(N * K / 4));
      for (const [start, length] of [[0, 1], [63, 66], [200, 330], [500, 44], [512, 32]]) {
        assert.deepEqual(await reader.read(start, length), read.slice(start, start + length));
      }
    }
  });
}
