import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../../kernels/test_helpers.ts";
import { fixturePath } from "../../tests/fixtures.ts";
import { readGguf, tensorBytes } from "../../tests/gguf_file.ts";
import { convertModel, type ConvertOptions } from "./convert.ts";

const model = (name: string) => fixturePath(`models/${name}`);

/** Files that others made of the same models: by the gguf package, and with bitnet.cpp's layout. */
const TWINS: [fixture: string, model: string, options: ConvertOptions][] = [
  ["llama3-158-TQ1_0", "llama3-158-packed", { type: "tq1_0" }],
  ["llama3-158-TQ2_0", "llama3-158-packed-sharded", { type: "tq2_0" }],
  ["llama3-158-I2_S", "llama3-158-packed", { type: "i2_s" }],
  ["llama31-158-ropescaled-TQ2_0", "llama31-158-packed-ropescaled", {}],
  ["bitnet-silu-TQ1_0", "bitnet-silu-packed", { type: "tq1_0" }],
  ["bitnet-silu-TQ2_0", "bitnet-silu-packed", {}],
  ["bitnet-2b4t-I2_S", "bitnet-2b4t-packed", {}],
];

for (const [fixture, name, options] of TWINS) {
  Deno.test(`convert: ${name} has the tensors of ${fixture}, byte for byte`, () =>
    inFolder(async (folder) => {
      const file = path.join(folder, "model.gguf");
      await convertModel(model(name), file, { ...options, embeddingType: "f16" });
      const ours = fs.readFileSync(file);
      const theirs = fs.readFileSync(fixturePath(`models-gguf/${fixture}.gguf`));
      const expected = tensorBytes(theirs);
      const actual = tensorBytes(ours);
      assert.deepEqual([...actual.keys()].sort(), [...expected.keys()].sort());
      for (const [tensor, bytes] of expected) {
        assert.ok(Buffer.compare(actual.get(tensor)!, bytes) === 0, tensor);
      }
      compareKeys(readGguf(ours).values, readGguf(theirs).values);
    }));
}

/** Keys that the other writer has and we leave out, as they say nothing; and the model's name. */
const LEFT_OUT = /^(general\.name|.*\.rope\.scaling\.(type|factor))$/;

function compareKeys(ours: Map<string, unknown>, theirs: Map<string, unknown>): void {
  for (const [key, value] of theirs) {
    if (!LEFT_OUT.test(key)) assert.deepEqual(ours.get(key), value, key);
  }
}
