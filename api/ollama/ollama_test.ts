import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { scriptedModel } from "../fake_scripted_model.ts";
import { type Json, overriding, testApp } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model, { aliases: ["tiny:1b"] });

const prompt = "Once upon a time";
const messages = [{ role: "user", content: prompt }];
const options = { num_predict: 4, temperature: 0 };
const CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>';
const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];

async function lines(response: Response): Promise<Json[]> {
  assert.equal(response.headers.get("Content-Type"), "application/x-ndjson");
  const text = await response.text();
  assert.ok(text.endsWith("\n"));
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("ollama: generate streams lines, the counts in the last", async () => {
  const all = await lines(await api.post("/api/generate", { prompt, options }));
  const whole = await api.json("/api/generate", { prompt, options, stream: false });
  const last = all.pop();
  assert.ok(all.every((line) => line.done === false && line.model === "story:latest"));
  assert.equal(all.map((line) => line.response).join("") + last.response, whole.response);
  for (const answer of [last, whole]) {
    assert.deepEqual([answer.done, answer.done_reason, answer.eval_count], [true, "length", 4]);
    assert.ok(Number.isInteger(answer.total_duration) && answer.total_duration > 0);
    assert.equal(answer.context.length, answer.prompt_eval_count + 4);
  }
});

Deno.test("ollama: an answer goes on from an earlier one's context", async () => {
  const ask = (body: object) => api.json("/api/generate", { stream: false, raw: true, ...body });
  const first = await ask({ prompt, options });
  const second = await ask({ prompt: "!", context: first.context, options });
  const ids = [...first.context, ...model.tokenizer.encode("!", { addSpecialTokens: false })];
  const expected = await model.generate(ids, { maxTokens: 4, temperature: 0 });
  assert.equal(second.response, expected.text);
});

Deno.test("ollama: chat streams messages", async () => {
  const all = await lines(await api.post("/api/chat", { messages, options }));
  const whole = await api.json("/api/chat", { messages, options, stream: false });
  assert.equal(all.map((line) => line.message.content).join(""), whole.message.content);
  assert.ok(all.every((line) => line.message.role === "assistant"));
  assert.equal(whole.message.role, "assistant");
});

Deno.test("ollama: calls come whole", async () => {
  const scripted = scriptedModel(model, { pieces: ["Well. ", ...CALL] });
  const fake = await testApp(scripted.model);
  const calls = [{ function: { name: "f", arguments: { a: 1 } } }];
  const all = await lines(await fake.post("/api/chat", { messages, tools }));
  assert.deepEqual(all.map((line) => line.message), [
    { role: "assistant", content: "Well." },
    { role: "assistant", content: "", tool_calls: calls },
    { role: "assistant", content: "" },
  ]);
  const whole = await fake.json("/api/chat", { messages, tools, stream: false });
  assert.deepEqual(whole.message, { role: "assistant", content: "Well.", tool_calls: calls });
  assert.equal(whole.done_reason, "stop");
});

Deno.test("ollama: formats are grammars", async () => {
  const scripted = scriptedModel(model, { pieces: ["{}"] });
  const fake = await testApp(scripted.model);
  const schema = { type: "object" };
  for (const format of ["", "json", schema]) {
    await fake.json("/api/generate", { prompt, format, stream: false });
  }
  assert.deepEqual(scripted.grammars, [{ kind: "json" }, { kind: "jsonSchema", schema }]);
});

Deno.test("ollama: without a prompt the model is only loaded", async () => {
  for (const path of ["/api/generate", "/api/chat"]) {
    const answer = await api.json(path, { model: "story" });
    assert.deepEqual([answer.done, answer.done_reason], [true, "load"]);
  }
});

Deno.test("ollama: names with a tag and without", async () => {
  for (const name of ["story", "story:latest", "tiny:1b"]) {
    assert.equal((await api.json("/api/generate", { model: name })).model, name);
  }
  const { error } = await api.json("/api/generate", { model: "llama3:8b" }, 404);
  assert.match(error, /llama3:8b/);
});

Deno.test("ollama: curl's untyped bodies are read, but not for pages of other origins", async () => {
  const untyped = { "Content-Type": "application/x-www-form-urlencoded" };
  const body = { model: "story" };
  assert.equal((await api.post("/api/generate", body, { headers: untyped })).status, 200);
  const headers = { ...untyped, Origin: "http://localhost" };
  const refused = await api.post("/api/generate", body, { headers });
  assert.ok(refused.status === 415 || refused.status === 403);
  await refused.body?.cancel();
});

const REFUSED: [string, string, object, RegExp][] = [
  ["a suffix", "/api/generate", { prompt, suffix: "x" }, /filled in/],
  ["a template", "/api/generate", { prompt, template: "x" }, /template/],
  ["a picture", "/api/generate", { prompt, images: ["aGk="] }, /only text/],
  [
    "a picture in a chat",
    "/api/chat",
    { messages: [{ ...messages[0], images: ["x"] }] },
    /only text/,
  ],
  ["an option out of range", "/api/chat", { messages, options: { top_p: 2 } }, /options\.top_p/],
];

for (const [name, path, body, says] of REFUSED) {
  Deno.test(`ollama: ${name} is refused`, async () => {
    assert.match((await api.json(path, body, 400)).error, says);
  });
}

Deno.test("ollama: a failure in a stream is its last line", async () => {
  const scripted = scriptedModel(model, { pieces: ["a"], failure: new Error("secret") });
  const fake = await testApp(scripted.model);
  const all = await lines(await fake.post("/api/generate", { prompt }));
  assert.equal(all.length, 2);
  assert.equal(typeof all[1].error, "string");
  assert.doesNotMatch(all[1].error, /secret/);
});

Deno.test("ollama: silence is filled with lines that say nothing", async () => {
  const scripted = scriptedModel(model, { pieces: ["a"], silenceMs: 30 });
  const fake = await testApp(scripted.model, { keepAliveMs: 5 });
  const [first] = await lines(await fake.post("/api/generate", { prompt }));
  assert.deepEqual([first.response, first.done], ["", false]);
});

Deno.test("ollama: the model's card", async () => {
  const { models } = await (await api.get("/api/tags")).json();
  assert.deepEqual(models.map(({ name }: Json) => name), ["story:latest", "tiny:1b"]);
  assert.match(models[0].digest, /^[0-9a-f]{64}$/);
  assert.match(models[0].details.parameter_size, /^\d+\.\dM$/);
  const ps = await (await api.get("/api/ps")).json();
  assert.equal(ps.models[0].context_length, 512);
  const show = await api.json("/api/show", { model: "story" });
  assert.equal(show.model_info["bitnet.context_length"], 512);
  assert.match(show.parameters, /temperature 0.7/);
  assert.deepEqual(show.capabilities, ["completion", "tools", "embedding"]);
  const bare = await testApp(overriding(model, { chatTemplate: null }));
  assert.deepEqual((await bare.json("/api/show", {})).capabilities, ["completion", "embedding"]);
  assert.match((await (await api.get("/api/version")).json()).version, /^\d+\.\d+\.\d+$/);
});

Deno.test("ollama: vectors", async () => {
  const embed = (input: string) =>
    Promise.resolve({ values: Float32Array.of(0.6, 0.8), promptTokens: input.length });
  const fake = await testApp(
    overriding(model, { embed }),
  );
  const answer = await fake.json("/api/embed", { input: ["a", "bc"] });
  assert.equal(answer.embeddings.length, 2);
  assert.equal(answer.prompt_eval_count, 3);
  const { embedding } = await fake.json("/api/embeddings", { prompt: "a" });
  assert.deepEqual(embedding, answer.embeddings[0]);
});
