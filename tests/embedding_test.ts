import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { loadModel } from "../runtime/engine.ts";
import type { Model, Pooling } from "../runtime/types.ts";
import { withFolder } from "./safetensors_file.ts";

const TEXTS = [
  "Once upon a time",
  "The dragon was sad, and the rabbit laughed at it all day.",
  "A",
];
const POOLINGS: Pooling[] = ["mean", "last"];

async function vectors(model: Model): Promise<Float32Array[]> {
  const asked = TEXTS.flatMap((text) =>
    POOLINGS.map((pooling) => model.embed(text, { pooling, normalize: false }))
  );
  return (await Promise.all(asked)).map(({ values }) => values);
}

Deno.test("embeddings: the same bits from the reference, in chunks and beside others", async () => {
  await using reference = await loadModel(undefined, { kernels: "reference", head: "full" });
  const expected = await vectors(reference);
  for (const maxBatchTokens of [3, 256]) {
    await using model = await loadModel(undefined, { threads: 2, maxBatchTokens });
    const story = model.generate("Once upon a time", { maxTokens: 30 });
    assert.deepEqual(await vectors(model), expected);
    await story;
    assert.equal(model.status().kvBlocks.used, 0);
  }
});

Deno.test("embeddings: unless told otherwise they have length 1", async () => {
  await using model = await loadModel(undefined, { threads: 1 });
  const ids = model.tokenizer.encode(TEXTS[0]);
  const { values } = await model.embed(ids, { pooling: "last", normalize: false });
  assert.equal(values.length, model.spec.hiddenSize);
  const { values: unit } = await model.embed(ids, { pooling: "last" });
  const length = Math.hypot(...unit);
  assert.ok(Math.abs(length - 1) < 1e-6);
  const size = Math.hypot(...values);
  unit.forEach((value, i) => assert.ok(Math.abs(value * size - values[i]) < 1e-4));
});

Deno.test("embeddings: an aborted one ends with its reason, an impossible one is refused", async () => {
  await using model = await loadModel(undefined, { threads: 1 });
  const reason = new DOMException("Enough", "AbortError");
  const late = model.embed(TEXTS[1], { signal: AbortSignal.abort(reason) });
  await assert.rejects(late, reason);
  await assert.rejects(model.embed([]), /empty prompt/);
  await assert.rejects(model.embed(new Array(513).fill(1)), /a prompt of 513 tokens/);
});

/** The story model, with more in its config.json. */
function withStoryAs<T>(more: object, use: (folder: string) => Promise<T>): Promise<T> {
  const story = embeddedModelFolder();
  const names = fs.readdirSync(story);
  const files = Object.fromEntries(
    names.map((name) => [name, fs.readFileSync(path.join(story, name))]),
  );
  const config = { ...JSON.parse(String(files["config.json"])), ...more };
  return withFolder({ ...files, "config.json": JSON.stringify(config) }, use);
}

Deno.test("embeddings: a model made for them takes its last token, after an end, and writes nothing", async () => {
  await withStoryAs({ pooling: "last" }, async (folder) => {
    await using model = await loadModel(folder, { threads: 1 });
    assert.equal(model.task, "embed");
    const { values } = await model.embed(TEXTS[0]);
    const ids = [...model.tokenizer.encode(TEXTS[0]), model.generationDefaults.eosTokenIds[0]];
    assert.deepEqual(values, (await model.embed(ids, { pooling: "last" })).values);
    assert.throws(() => model.generate("Once"), /as it is an embedding model: .*\/v1\/embeddings/);
    assert.throws(() => model.chat([{ role: "user", content: "Hello" }]), RangeError);
  });
});
