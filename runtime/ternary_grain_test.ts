import assert from "node:assert/strict";
import type { Checkpoint } from "./checkpoint.ts";
import type { TensorInfo } from "./tensors.ts";
import { ternaryGrain } from "./ternary_grain.ts";

const [ROWS, COLUMNS, LAYERS] = [64, 64, 6];

/** A model of one linear a layer, in half precision, of these weights. */
function checkpoint(weight: (layer: number, row: number, column: number) => number): Checkpoint {
  const tensors = new Map<string, TensorInfo>();
  const bytes = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let layer = 0; layer < LAYERS; layer++) {
    const name = `model.layers.${layer}.mlp.up_proj.weight`;
    const values = Float16Array.from(
      { length: ROWS * COLUMNS },
      (_, i) => weight(layer, Math.floor(i / COLUMNS), i % COLUMNS),
    );
    const byteLength = values.byteLength;
    tensors.set(name, { dtype: "F16", shape: [ROWS, COLUMNS], byteOffset: 0, byteLength });
    bytes.set(name, new Uint8Array(values.buffer));
  }
  const readRange = (name: string, start: number, length: number) =>
    Promise.resolve(bytes.get(name)!.slice(start, start + length));
  return { tensors, readRange } as unknown as Checkpoint;
}

const code = (row: number, column: number) => (row * 7 + column) % 3 - 1;

Deno.test("grain: all layers are asked, not only those that are looked at closely", async () => {
  const plain = checkpoint((_, row, column) => code(row, column) / 2);
  assert.deepEqual(await ternaryGrain(plain), { grain: "matrix", scaleType: "f16" });
  for (let odd = 0; odd < LAYERS; odd++) {
    const byRow = checkpoint((layer, row, column) =>
      code(row, column) * (layer === odd ? 1 + row / 64 : 0.5)
    );
    assert.deepEqual(await ternaryGrain(byRow), { grain: "row", scaleType: "f16" }, `${odd}`);
    const floats = checkpoint((layer, row, column) =>
      layer === odd ? (row + column) / 128 : code(row, column) / 2
    );
    assert.equal(await ternaryGrain(floats), null, `${odd}`);
  }
});
