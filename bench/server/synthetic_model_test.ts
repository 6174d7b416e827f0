import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { loadModel } from "../../runtime/mod.ts";
import { shapeOf } from "../../runtime/shapes.ts";
import { syntheticModel } from "./synthetic_model.ts";

const SMALL = {
  ...shapeOf("bitnet-700m"),
  hiddenSize: 96,
  intermediateSize: 130,
  numHiddenLayers: 2,
  numAttentionHeads: 3,
  numKeyValueHeads: 3,
  headDim: 32,
  vocabSize: 2500,
};

async function withTemporary(use: (folder: string) => Promise<void>) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-test-"));
  try {
    await use(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

Deno.test("synthetic model: it opens as any other, of exactly its shape, and writes words", async () => {
  await withTemporary(async (parent) => {
    const folder = await syntheticModel("small", SMALL, parent);
    await using model = await loadModel(folder, { threads: 1, kernels: "reference" });
    assert.deepEqual({ ...model.spec, ...SMALL }, model.spec);
    const text = "The cat sat. \u{1f408}";
    assert.equal(
      model.tokenizer.decode(model.tokenizer.encode(text, { addSpecialTokens: false })),
      text,
    );
    const { completionTokens, text: answer } = await model.chat([{ role: "user", content: text }], {
      maxTokens: 6,
      ignoreEos: true,
      temperature: 1,
      seed: 1,
    });
    assert.equal(completionTokens, 6);
    assert.match(answer, /\w/);
  });
});

Deno.test("synthetic model: it is written once, and every token has a text of its own", async () => {
  await withTemporary(async (parent) => {
    const folder = await syntheticModel("small", SMALL, parent);
    const { mtimeMs } = fs.statSync(path.join(folder, "model.safetensors"));
    assert.equal(await syntheticModel("small", SMALL, parent), folder);
    assert.equal(fs.statSync(path.join(folder, "model.safetensors")).mtimeMs, mtimeMs);
    assert.deepEqual(fs.readdirSync(parent), [path.basename(folder)]);
    const { model } = JSON.parse(fs.readFileSync(path.join(folder, "tokenizer.json"), "utf8"));
    const ids = new Set(Object.values(model.vocab));
    assert.equal(ids.size, Object.keys(model.vocab).length);
    assert.equal(Math.max(...(ids as Set<number>)), SMALL.vocabSize - 1);
  });
});

Deno.test("synthetic model: shapes that no checkpoint has are refused", async () => {
  await withTemporary(async (parent) => {
    await assert.rejects(
      syntheticModel("x", shapeOf("maple-20b-a1b"), parent),
      /no file format has its experts, qkNorm, sliding, rotaryDim, rowScales/,
    );
    await assert.rejects(
      syntheticModel("x", { ...SMALL, vocabSize: 2000 }, parent),
      /current value is 2000, give one of more than 2047/,
    );
    assert.deepEqual(fs.readdirSync(parent), [], "nothing is left behind");
  });
});
