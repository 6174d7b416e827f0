import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { scriptedModel } from "../fake_scripted_model.ts";
import { type Json, testApp } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model, { maxChoices: 4 });

const PATH = "/v1/completions";
const prompt = "Once upon a time";
const greedy = { prompt, temperature: 0 };

Deno.test("completions: 16 tokens unless it is said", async () => {
  const answer = await api.json(PATH, greedy);
  const { text } = await model.generate(prompt, { temperature: 0, maxTokens: 16 });
  assert.equal(answer.object, "text_completion");
  assert.deepEqual(answer.choices, [{ index: 0, text, logprobs: null, finish_reason: "length" }]);
  assert.equal(answer.usage.completion_tokens, 16);
});

Deno.test("completions: a stream says the same", async () => {
  const whole = await api.json(PATH, { ...greedy, echo: true });
  const stream = { stream: true, stream_options: { include_usage: true } };
  const events = await api.events(PATH, { ...greedy, echo: true, ...stream });
  assert.equal(events.pop()!.data, "[DONE]");
  assert.deepEqual(events.at(-1)!.data.choices, []);
  assert.deepEqual(events.pop()!.data.usage, whole.usage);
  const choices = events.map(({ data }) => data.choices[0]);
  assert.equal(choices.map(({ text }: Json) => text).join(""), whole.choices[0].text);
  assert.equal(choices.at(-1).finish_reason, "length");
  assert.ok(choices.slice(0, -1).every((choice: Json) => choice.finish_reason === null));
});

Deno.test("completions: prompts in words and ids, several at once", async () => {
  const ids = model.tokenizer.encode(prompt);
  const body = { max_tokens: 4, temperature: 0 };
  const one = (await api.json(PATH, { ...greedy, max_tokens: 4 })).choices[0].text;
  for (const several of [[prompt, "The dog"], [ids, model.tokenizer.encode("The dog")]]) {
    const { choices, usage } = await api.json(PATH, { ...body, prompt: several });
    assert.deepEqual(choices.map(({ index }: Json) => index), [0, 1]);
    assert.equal(choices[0].text, one);
    assert.equal(usage.completion_tokens, 8);
  }
  assert.equal((await api.json(PATH, { ...body, prompt: ids })).choices[0].text, one);
});

Deno.test("completions: choices go prompt by prompt", async () => {
  const body = {
    prompt: [prompt, "The dog"],
    n: 2,
    max_tokens: 5,
    temperature: 1,
    seed: 3,
    echo: true,
  };
  const { choices } = await api.json(PATH, body);
  const starts = choices.map(({ text }: Json) => text.startsWith(prompt));
  assert.deepEqual(starts, [true, true, false, false]);
  const single = await api.json(PATH, { ...body, prompt: "The dog", n: 1, seed: 4 });
  assert.equal(choices[3].text, single.choices[0].text);
});

Deno.test("completions: logprobs have texts and offsets", async () => {
  const scripted = scriptedModel(model, { pieces: ["ab", "c"] });
  const { json } = await testApp(scripted.model);
  const [{ logprobs }] = (await json(PATH, { prompt, logprobs: 0 })).choices;
  assert.equal(scripted.options[0].logprobs, 0);
  const texts = [0, 1].map((id) => new TextDecoder().decode(model.tokenizer.tokenBytes(id)));
  assert.deepEqual(logprobs, {
    tokens: texts,
    token_logprobs: [-1, -1],
    top_logprobs: [{}, {}],
    text_offset: [0, texts[0].length],
  });
});

Deno.test("completions: an echoed prompt has the logprobs that its tokens had", async () => {
  const made = (await api.json(PATH, { ...greedy, max_tokens: 4, logprobs: 2 })).choices[0];
  const { tokenIds } = await model.generate(prompt, { temperature: 0, maxTokens: 4 });
  const ids = [...model.tokenizer.encode(prompt), ...tokenIds];
  const echo = { echo: true, logprobs: 2, max_tokens: 0, temperature: 0 };
  const [echoed] = (await api.json(PATH, { ...echo, prompt: ids })).choices;
  for (const field of ["tokens", "token_logprobs", "top_logprobs"]) {
    assert.deepEqual(echoed.logprobs[field].slice(-4), made.logprobs[field], field);
  }
  assert.deepEqual([echoed.logprobs.token_logprobs[0], echoed.logprobs.top_logprobs[0]], [
    null,
    null,
  ]);
});

Deno.test("completions: an echo's tokens are its text, with what comes after it", async () => {
  const body = { ...greedy, echo: true, logprobs: 0, max_tokens: 3 };
  const [{ text, logprobs }] = (await api.json(PATH, body)).choices;
  assert.equal(logprobs.tokens.join(""), text);
  assert.ok(text.startsWith(prompt));
  for (const [i, offset] of logprobs.text_offset.entries()) {
    assert.ok(text.startsWith(logprobs.tokens[i], offset), `token ${i}`);
  }
  const events = await api.events(PATH, { ...body, stream: true });
  const parts = events.slice(0, -1).map(({ data }) => data.choices[0].logprobs).filter((part) =>
    part
  );
  for (const field of ["tokens", "token_logprobs", "text_offset"]) {
    assert.deepEqual(parts.flatMap((part: Json) => part[field]), logprobs[field], field);
  }
});

Deno.test("completions: a part of a character is named by its bytes", async () => {
  const ids = model.tokenizer.encode("é", { addSpecialTokens: false });
  const body = { prompt: ids, echo: true, logprobs: 0, max_tokens: 0 };
  const [{ logprobs }] = (await api.json(PATH, body)).choices;
  assert.deepEqual(logprobs.tokens.slice(-2), ["bytes:\\xc3", "bytes:\\xa9"]);
});

const REFUSED: [string, object, string, RegExp][] = [
  ["a suffix", { suffix: "x" }, "suffix", /filled in/],
  ["best_of that is not n", { best_of: 2 }, "best_of", /must be n/],
  ["too many choices", { prompt: ["a", "b", "c"], n: 2 }, "n", /6 choices.*4/],
  ["an id out of the vocabulary", { prompt: [99999] }, "", /99999/],
  ["a negative id", { prompt: [1, -1] }, "prompt", /token ids \(whole numbers from 0/],
  ["ids among texts", { prompt: ["a", 1] }, "prompt", /1 to 16 of these/],
  ["an empty list of prompts", { prompt: [] }, "prompt", />=1/],
  ["no prompt", { prompt: undefined }, "prompt", /prompt/],
  [
    "a prompt that does not fit",
    { prompt: "a ".repeat(600), echo: true, logprobs: 0 },
    "prompt",
    /512/,
  ],
];

for (const [name, body, param, says] of REFUSED) {
  Deno.test(`completions: ${name} is refused`, async () => {
    const { error } = await api.json(PATH, { ...greedy, ...body }, 400);
    assert.match(error.message, says);
    assert.equal(error.param ?? "", param);
  });
}

Deno.test("completions: a failure in a stream is its last event", async () => {
  const scripted = scriptedModel(model, { pieces: ["a"], failure: new Error("secret") });
  const { events, ended } = await testApp(scripted.model);
  const [first, last, ...rest] = await events(PATH, { prompt, stream: true });
  assert.equal(first.data.choices[0].text, "a");
  assert.deepEqual(rest, []);
  assert.equal(last.data.error.type, "server_error");
  assert.doesNotMatch(last.data.error.message, /secret/);
  assert.equal(ended.at(-1)!.reason, "error");
});

Deno.test("completions: a failure before a whole answer is a 500", async () => {
  const scripted = scriptedModel(model, { pieces: ["a"], failure: new Error("secret") });
  const { json } = await testApp(scripted.model);
  const { error } = await json(PATH, { prompt }, 500);
  assert.doesNotMatch(error.message, /secret/);
});

Deno.test("completions: silence is filled with comments", async () => {
  const scripted = scriptedModel(model, { pieces: ["a"], silenceMs: 30 });
  const { post } = await testApp(scripted.model, { keepAliveMs: 5 });
  const text = await (await post(PATH, { prompt, stream: true })).text();
  assert.match(text, /^(: ping\n\n)+data: \{/);
});

Deno.test("completions: guessing ahead is the client's to forbid, and changes nothing", async () => {
  // A story that is told twice is easily guessed.
  const twice = `${prompt} there was a dog. ${prompt} there was`;
  const asked = async (speculate: unknown) =>
    await api.json(PATH, { ...greedy, prompt: twice, max_tokens: 60, speculate });
  const [off, fixed] = [await asked("off"), await asked(8)];
  assert.equal(off.timings.draft_n, 0);
  assert.ok(fixed.timings.draft_n > 0);
  assert.equal(fixed.choices[0].text, off.choices[0].text);
  await api.json(PATH, { ...greedy, speculate: 99 }, 400);
});
