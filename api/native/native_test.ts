import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { testApp } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model);

Deno.test("tokenize: there and back", async () => {
  const content = "Once upon a time, héllo";
  const { tokens } = await api.json("/tokenize", { content });
  assert.deepEqual(tokens, model.tokenizer.encode(content, { addSpecialTokens: false }));
  assert.deepEqual(await api.json("/detokenize", { tokens }), { content });
});

Deno.test("tokenize: special tokens on demand", async () => {
  const bos = model.generationDefaults.bosTokenId!;
  const { tokens } = await api.json("/tokenize", { content: "a", add_special: true });
  assert.equal(tokens[0], bos);
  const content = model.tokenizer.tokenText(bos)!;
  assert.deepEqual((await api.json("/tokenize", { content })).tokens, [bos]);
  const plain = await api.json("/tokenize", { content, parse_special: false });
  assert.ok(!plain.tokens.includes(bos));
});

Deno.test("tokenize: pieces are texts, or bytes that are none", async () => {
  const { tokens } = await api.json("/tokenize", { content: "Hé", with_pieces: true });
  const [first, ...rest] = tokens;
  assert.deepEqual(first, {
    id: model.tokenizer.encode("H", { addSpecialTokens: false })[0],
    piece: "H",
  });
  assert.deepEqual(rest.flatMap(({ piece }: { piece: number[] }) => piece), [0xc3, 0xa9]);
});

Deno.test("detokenize: an id out of the vocabulary is refused", async () => {
  const { error } = await api.json("/detokenize", { tokens: [model.tokenizer.vocabSize] }, 400);
  assert.equal(error.param, "tokens");
});

Deno.test("apply-template: what the model would see", async () => {
  const messages = [{ role: "user", content: "Hi" }];
  const { prompt } = await api.json("/apply-template", { messages });
  assert.equal(prompt, model.applyChatTemplate(messages));
});
