import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { loadModel } from "../runtime/engine.ts";
import { CheckpointError } from "../runtime/errors.ts";
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
  others: Readonly<Record<string, string>> = {},
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
  return withFolder({ ...files, ...own, ...others }, use);
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

Deno.test("embeddings: an embedding model that is wanted to write is refused before it is prepared", async () => {
  await withStoryAs({ pooling: "last" }, async (folder) => {
    const phases: string[] = [];
    const onProgress = ({ phase }: { phase: string }) => void phases.push(phase);
    await assert.rejects(
      loadModel(folder, { task: "generate", onProgress }),
      /Cannot generate with .* as it is an embedding model/,
    );
    assert.deepEqual(phases, []);
  });
});

Deno.test("embeddings: prompts of sentence-transformers stand before texts, not before ids", async () => {
  const prompts = { query: "Find: ", document: "" };
  const file = (more: object) => ({
    "config_sentence_transformers.json": JSON.stringify({ prompts, ...more }),
  });
  const [text] = TEXTS;
  const use = async (folder: string) => {
    await using model = await loadModel(folder, { threads: 1 });
    assert.deepEqual(model.embeddingPrompts, {
      texts: prompts,
      defaultName: "query",
      arePooled: true,
    });
    const vector = async (input: string | number[], options = {}) =>
      (await model.embed(input, options)).values;
    const [bare, found] = [await vector(text, { prompt: "" }), await vector(text)];
    assert.notDeepEqual(found, bare);
    assert.deepEqual(found, await vector(`Find: ${text}`, { prompt: "" }));
    assert.deepEqual(found, await vector(text, { promptName: "query" }));
    assert.deepEqual(bare, await vector(text, { promptName: "document" }));
    assert.deepEqual(
      await vector(text, { prompt: "A " }),
      await vector(`A ${text}`, { prompt: "" }),
    );
    const ids = model.tokenizer.encode(text);
    assert.deepEqual(await vector(ids), await vector(ids, { prompt: "A " }));
    await assert.rejects(vector(text, { promptName: "task" }), {
      name: "RangeError",
      message:
        'Cannot embed with the prompt "task" as it is none of the model\'s, query, document: ' +
        "give one of these, or the prompt itself",
    });
  };
  await withStoryAs({ pooling: "mean" }, use, {}, file({ default_prompt_name: "query" }));
});

Deno.test("embeddings: a prompt's states count unless the pooling leaves them out", async () => {
  const files = {
    "config_sentence_transformers.json": JSON.stringify({ prompts: { query: "Find: " } }),
    "1_Pooling/config.json": JSON.stringify({ pooling_mode: "mean", include_prompt: false }),
  };
  const use = async (folder: string) => {
    await using model = await loadModel(folder, { threads: 1 });
    const options = { normalize: false, promptName: "query" };
    const { values } = await model.embed(TEXTS[0], options);
    const ids = model.tokenizer.encode(`Find: ${TEXTS[0]}`);
    const ends = await Promise.all(
      ids.map((_, i) => model.embed(ids.slice(0, i + 1), { pooling: "last", normalize: false })),
    );
    const own = ends.slice(model.tokenizer.encode("Find: ").length);
    assert.ok(own.length > 0 && own.length < ends.length);
    const mean = (i: number) => own.reduce((sum, end) => sum + end.values[i], 0) / own.length;
    assert.deepEqual(values, values.map((_, i) => mean(i)));
    // The first token's state is that of the whole text.
    const cls = await model.embed(TEXTS[0], { ...options, pooling: "cls" });
    assert.deepEqual(cls.values, ends[0].values);
    assert.equal((await model.embed("", options)).values.length, values.length);
  };
  await withStoryAs({}, use, {}, files);
});

for (
  const [what, file, message] of [
    ["a list", [], /config_sentence_transformers.json: it must be a JSON object/],
    ["prompts in a list", { prompts: ["a"] }, /prompts must be an object of texts/],
    ["a prompt of numbers", { prompts: { query: 3 } }, /prompts must be an object of texts/],
    [
      "a default that is no prompt",
      { prompts: { query: "a" }, default_prompt_name: "task" },
      /default_prompt_name must be one of prompts, query: current value is "task"/,
    ],
    [
      "a default without prompts",
      { default_prompt_name: "task" },
      /prompts, of which there are none/,
    ],
    ["a default of numbers", { default_prompt_name: 3 }, /default_prompt_name must be a string/],
  ] as const
) {
  Deno.test(`embeddings: a file of prompts with ${what} is refused`, async () => {
    const files = { "config_sentence_transformers.json": JSON.stringify(file) };
    await withStoryAs(
      { pooling: "mean" },
      async (folder) => {
        await assert.rejects(loadModel(folder, { threads: 1 }), (error: Error) => {
          assert.ok(error instanceof CheckpointError);
          assert.match(error.message, message);
          return true;
        });
      },
      {},
      files,
    );
  });
}

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
