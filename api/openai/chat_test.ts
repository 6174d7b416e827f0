import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { type Json, testApp, until } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model, { aliases: ["gpt-3.5-turbo"] });

const PATH = "/v1/chat/completions";
const messages = [{ role: "user", content: "Once upon a time" }];

/** The model's own advice is to sample: a test that compares texts must say otherwise. */
const greedy = { messages, temperature: 0 };

const chunksOf = async (body: object): Promise<Json[]> =>
  (await api.events(PATH, { ...greedy, stream: true, ...body })).map(({ data }) => data);

Deno.test("chat: a whole answer", async () => {
  const answer = await api.json(PATH, { ...greedy, max_tokens: 8 });
  const expected = await model.chat(messages, { maxTokens: 8, temperature: 0 });
  assert.equal(answer.object, "chat.completion");
  assert.match(answer.id, /^chatcmpl-/);
  assert.equal(answer.model, "story");
  assert.deepEqual(answer.choices, [{
    index: 0,
    message: { role: "assistant", content: expected.text, refusal: null },
    logprobs: null,
    finish_reason: "length",
  }]);
  assert.equal(answer.usage.prompt_tokens, expected.promptTokens);
  assert.equal(answer.usage.completion_tokens, 8);
  assert.equal(answer.usage.total_tokens, expected.promptTokens + 8);
  assert.equal(answer.timings.predicted_n, 8);
});

Deno.test("chat: a stream is the role, the text, the reason, the usage and the end", async () => {
  const chunks = await chunksOf({ max_tokens: 8, stream_options: { include_usage: true } });
  const whole = await api.json(PATH, { ...greedy, max_tokens: 8 });
  assert.equal(chunks.pop(), "[DONE]");
  const usage = chunks.pop();
  assert.deepEqual(usage.choices, []);
  assert.equal(usage.usage.completion_tokens, 8);
  assert.ok(chunks.every((chunk) => chunk.usage === null && chunk.id === usage.id));
  const [first, ...rest] = chunks.map((chunk) => chunk.choices[0]);
  assert.deepEqual(first.delta, { role: "assistant", content: "" });
  const last = rest.pop()!;
  assert.deepEqual([last.delta, last.finish_reason], [{}, "length"]);
  assert.ok(rest.every((choice) => choice.finish_reason === null));
  assert.equal(rest.map(({ delta }) => delta.content).join(""), whole.choices[0].message.content);
});

Deno.test("chat: a stream without usage has none", async () => {
  const chunks = await chunksOf({ max_tokens: 2 });
  assert.equal(chunks.pop(), "[DONE]");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  assert.ok(chunks.every((chunk) => !("usage" in chunk)));
});

Deno.test("chat: n choices have seed, seed + 1, ...", async () => {
  const options = { messages, max_tokens: 6, temperature: 1.5 };
  const both = await api.json(PATH, { ...options, n: 2, seed: 7 });
  const texts = both.choices.map((choice: Json) => choice.message.content);
  for (const i of [0, 1]) {
    const one = await api.json(PATH, { ...options, seed: 7 + i });
    assert.equal(texts[i], one.choices[0].message.content);
  }
  assert.notEqual(texts[0], texts[1]);
  assert.equal(both.usage.completion_tokens, 12);
});

Deno.test("chat: stop strings end the answer and are no part of it", async () => {
  const answer = await api.json(PATH, { ...greedy, max_tokens: 50, stop: ["girl"] });
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "stop");
  assert.doesNotMatch(choice.message.content, /girl/);
});

Deno.test("chat: a bias of -100 bans a token", async () => {
  const [choice] = (await api.json(PATH, { ...greedy, max_tokens: 1 })).choices;
  const [id] = model.tokenizer.encode(choice.message.content, { addSpecialTokens: false });
  const banned = await api.json(PATH, { ...greedy, max_tokens: 1, logit_bias: { [id]: -100 } });
  assert.notEqual(banned.choices[0].message.content, choice.message.content);
});

Deno.test("chat: content in parts, null fields, unknown fields, aliases", async () => {
  const content = [{ type: "text", text: "Once upon " }, { type: "text", text: "a time" }];
  const body = {
    ...greedy,
    messages: [{ role: "user", content }],
    max_completion_tokens: 3,
    stop: null,
  };
  const answer = await api.json(PATH, { ...body, n: null, model: "gpt-3.5-turbo", store: true });
  const plain = await api.json(PATH, { ...greedy, max_tokens: 3 });
  assert.equal(answer.model, "gpt-3.5-turbo");
  assert.equal(answer.choices[0].message.content, plain.choices[0].message.content);
});

const REFUSED: [string, unknown, number, { param?: string | null; code?: string; says: RegExp }][] =
  [
    ["no JSON", "{", 400, { code: "invalid_json", says: /not valid JSON/ }],
    ["no messages", {}, 400, { param: "messages", says: /messages/ }],
    ["an unknown model", { messages, model: "x" }, 404, {
      param: "model",
      code: "model_not_found",
      says: /"x".*story/,
    }],
    ["a picture", { messages: [{ role: "user", content: [{ type: "image_url" }] }] }, 400, {
      param: "messages[0].content[0].type",
      says: /only text/,
    }],
    ["a temperature out of range", { messages, temperature: -1 }, 400, {
      param: "temperature",
      says: />=0/,
    }],
    ["a bias of no token", { messages, logit_bias: { a: 1 } }, 400, { says: /logit_bias/ }],
    ["a bias out of the vocabulary", { messages, logit_bias: { 99999: 1 } }, 400, {
      says: /99999/,
    }],
    ["too many choices", { messages, n: 1000 }, 400, { param: "n", says: /n is not/ }],
    ["a long prompt", { messages: [{ role: "user", content: "hello ".repeat(600) }] }, 400, {
      code: "context_length_exceeded",
      says: /1801.*512/,
    }],
  ];

for (const [name, body, status, { param, code, says }] of REFUSED) {
  Deno.test(`chat: ${name} is refused`, async () => {
    const { error } = await api.json(PATH, body, status);
    assert.match(error.message, says);
    if (param !== undefined) assert.equal(error.param, param);
    if (code !== undefined) assert.equal(error.code, code);
    const stream = typeof body === "string" ? body : { ...body as object, stream: true };
    assert.deepEqual((await api.json(PATH, stream, status)).error, error);
  });
}

Deno.test("chat: another content type is refused", async () => {
  const headers = { "Content-Type": "text/plain" };
  const response = await api.post(PATH, { messages }, { headers });
  assert.equal(response.status, 415);
  assert.match((await response.json()).error.message, /application\/json/);
});

Deno.test("chat: a client that leaves ends the generation", async () => {
  const response = await api.post(PATH, { messages, stream: true, ignore_eos: true });
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  await until(() => api.ended.at(-1)?.reason === "abort");
  assert.ok(api.ended.at(-1)!.completionTokens < 500);
});

Deno.test("chat: a client that leaves before the answer ends the generation", async () => {
  const client = new AbortController();
  const before = api.ended.length;
  const response = api.post(PATH, { messages, ignore_eos: true }, { signal: client.signal });
  await until(() => model.status().slots.length > 0);
  client.abort();
  await (await response).body?.cancel();
  await until(() => api.ended.length > before);
  assert.equal(api.ended.at(-1)!.reason, "abort");
});

Deno.test("chat: clients that left leave no sequence behind", async () => {
  const body = { messages, stream: true, ignore_eos: true, n: 4 };
  const responses = await Promise.all([1, 2, 3].map(() => api.post(PATH, body)));
  await Promise.all(responses.map((response) => response.body!.cancel()));
  await until(() => model.status().slots.length === 0 && model.status().waiting === 0);
  assert.equal(model.status().kvBlocks.used, 0);
});

Deno.test("chat: logprobs are of each token, with the likeliest ones", async () => {
  const answer = await api.json(PATH, {
    ...greedy,
    max_tokens: 5,
    logprobs: true,
    top_logprobs: 3,
  });
  const [{ message, logprobs: { content } }] = answer.choices;
  assert.equal(content.map(({ token }: Json) => token).join(""), message.content);
  for (const token of content) {
    assert.equal(token.top_logprobs.length, 3);
    // Greedy: the token is the likeliest one.
    assert.equal(token.top_logprobs[0].token, token.token);
    assert.equal(new TextDecoder().decode(Uint8Array.from(token.bytes)), token.token);
    const mass = token.top_logprobs.reduce(
      (sum: number, top: Json) => sum + Math.exp(top.logprob),
      0,
    );
    assert.ok(mass > 0 && mass <= 1 + 1e-6, `mass ${mass}`);
  }
  const chunks = await chunksOf({ max_tokens: 5, logprobs: true, top_logprobs: 3 });
  const streamed = chunks.slice(0, -1).flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []);
  assert.deepEqual(streamed, content);
});

Deno.test("models: the served one and its aliases", async () => {
  const list = await (await api.get("/v1/models")).json();
  assert.deepEqual(list.data.map(({ id }: Json) => id), ["story", "gpt-3.5-turbo"]);
  const card = await (await api.get("/v1/models/story")).json();
  assert.deepEqual(card, list.data[0]);
  assert.equal(card.max_model_len, 512);
  const missing = await api.get("/v1/models/org/name");
  assert.equal(missing.status, 404);
  assert.equal((await missing.json()).error.code, "model_not_found");
});
