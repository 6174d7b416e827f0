import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { loadModel } from "../../runtime/engine.ts";
import type { EmbedOptions } from "../../runtime/types.ts";
import { type Json, overriding, testApp } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const asked: [unknown, EmbedOptions | undefined][] = [];
/** Vectors that tell what they are of. */
const model = overriding(story, {
  embed: (input: string | number[], options?: EmbedOptions) => {
    asked.push([input, options]);
    return Promise.resolve({
      values: Float32Array.of(0.6, 0.8, input.length),
      promptTokens: 2,
    });
  },
});
const api = await testApp(model);
const PATH = "/v1/embeddings";

Deno.test("embeddings: one vector a text, in order", async () => {
  const answer = await api.json(PATH, { input: ["a", "bcd"], pooling: "last" });
  assert.deepEqual(answer.data.map((item: Json) => [item.index, item.embedding[2]]), [[0, 1], [
    1,
    3,
  ]]);
  assert.deepEqual(answer.usage, { prompt_tokens: 4, total_tokens: 4 });
  assert.equal(asked.at(-1)![1]!.pooling, "last");
  await api.json(PATH, { input: "a", pooling: "cls" });
  assert.equal(asked.at(-1)![1]!.pooling, "cls");
  await api.json(PATH, { input: "a", pooling: "median" }, 400);
  await api.json(PATH, { input: "a", prompt_name: "query" });
  assert.equal(asked.at(-1)![1]!.promptName, "query");
});

Deno.test("embeddings: ids are one text, lists of ids several", async () => {
  assert.equal((await api.json(PATH, { input: [5, 6] })).data.length, 1);
  assert.deepEqual(asked.at(-1)![0], [5, 6]);
  assert.equal((await api.json(PATH, { input: [[5], [6, 7]] })).data.length, 2);
});

Deno.test("embeddings: base64 is float32, the lowest byte first", async () => {
  const { data: [{ embedding }] } = await api.json(PATH, { input: "a", encoding_format: "base64" });
  const bytes = Buffer.from(embedding, "base64");
  const values = [0, 4, 8].map((offset) => bytes.readFloatLE(offset));
  assert.deepEqual(values, [Math.fround(0.6), Math.fround(0.8), 1]);
});

Deno.test("embeddings: fewer dimensions have length 1, unless the model's vectors have other lengths", async () => {
  const { data: [{ embedding }] } = await api.json(PATH, { input: "abcd", dimensions: 2 });
  assert.equal(embedding.length, 2);
  assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-6);
  const { error } = await api.json(PATH, { input: "a", dimensions: 100_000 }, 400);
  assert.equal(error.param, "dimensions");
  const plain = overriding(model, { embeddingDefaults: { pooling: "mean", normalize: false } });
  const other = await testApp(plain);
  const { data: [{ embedding: front }] } = await other.json(PATH, { input: "a", dimensions: 2 });
  assert.deepEqual(front, [...Float32Array.of(0.6, 0.8)]);
});

Deno.test("embeddings: a model made for them does not chat", async () => {
  const other = await testApp(overriding(model, { task: "embed" }));
  const messages = [{ role: "user", content: "Hello" }];
  const { error } = await other.json("/v1/chat/completions", { messages }, 400);
  assert.match(error.message, /as it is an embedding model: use \/v1\/embeddings$/);
});
