import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { loadModel } from "../runtime/engine.ts";
import { POOLINGS } from "../runtime/pooling.ts";
import type { Model } from "../runtime/types.ts";
import { withFolder } from "./safetensors_file.ts";

const TEXTS = [
  "Once upon a time",
  "The dragon was sad, and the rabbit laughed at it all day.",
  "A",
];

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

/** The story model, with more in its config.json and its tokenizer.json. */
function withStoryAs<T>(
  more: object,
  use: (folder: string) => Promise<T>,
  tokenizer: object = {},
): Promise<T> {
  const story = embeddedModelFolder();
  const names = fs.readdirSync(story);
  const files = Object.fromEntries(
    names.map((name) => [name, fs.readFileSync(path.join(story, name))]),
  );
  const changed = (name: string, more: object) =>
    JSON.stringify({ ...JSON.parse(String(files[name])), ...more });
  const own = {
    "config.json": changed("config.json", more),
    "tokenizer.json": changed("tokenizer.json", tokenizer),
  };
  return withFolder({ ...files, ...own }, use);
}

Deno.test("embeddings: a model made for them takes its last token, after an end, and writes nothing", async () => {
  await withStoryAs({ pooling: "last" }, async (folder) => {
    await using model = await loadModel(folder, { threads: 1 });
    assert.equal(model.task, "embed");
    const { values } = await model.embed(TEXTS[0]);
    const ids = [...model.tokenizer.encode(TEXTS[0]), model.generationDefaults.eosTokenIds[0]];
    assert.deepEqual(values, (await model.embed(ids, { pooling: "last" })).values);
    const mean = await model.embed(TEXTS[0], { pooling: "mean" });
    assert.equal(mean.promptTokens, ids.length - 1);
    assert.throws(() => model.generate("Once"), /as it is an embedding model: .*\/v1\/embeddings/);
    assert.throws(() => model.chat([{ role: "user", content: "Hello" }]), RangeError);
  });
});

Deno.test("embeddings: a tokenizer that ends texts itself is left to do so", async () => {
  const piece = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const after = {
    type: "TemplateProcessing",
    single: [{ Sequence: { id: "A", type_id: 0 } }, piece("a")],
    pair: [],
    special_tokens: { a: { id: "a", ids: [7], tokens: ["a"] } },
  };
  const use = async (folder: string) => {
    await using model = await loadModel(folder, { threads: 1 });
    const ids = model.tokenizer.encode(TEXTS[0]);
    assert.equal(ids.at(-1), 7);
    assert.deepEqual((await model.embed(TEXTS[0])).values, (await model.embed(ids)).values);
  };
  await withStoryAs({ pooling: "last" }, use, { post_processor: after });
});
