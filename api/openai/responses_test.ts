import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { type Script, scriptedModel } from "../fake_scripted_model.ts";
import { type Json, testApp } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const PATH = "/v1/responses";
const input = "Once upon a time";
const tools = [{ type: "function", name: "f", parameters: { type: "object" }, strict: true }];

async function scripted(script: Script) {
  const { model, ...asked } = scriptedModel(story, script);
  return { api: await testApp(model), ...asked };
}

Deno.test("responses: a whole answer", async () => {
  const { api } = await scripted({ pieces: ["Hello", " you"] });
  const response = await api.json(PATH, { input, instructions: "Be kind", metadata: { a: "b" } });
  assert.equal(response.status, "completed");
  assert.equal(response.instructions, "Be kind");
  assert.deepEqual(response.metadata, { a: "b" });
  const [message] = response.output;
  assert.deepEqual([message.type, message.role, message.status], [
    "message",
    "assistant",
    "completed",
  ]);
  assert.equal(message.content[0].text, "Hello you");
  assert.equal(response.usage.input_tokens_details.cached_tokens, 2);
});

Deno.test("responses: a stream of text has OpenAI's events in their order", async () => {
  const { api } = await scripted({ pieces: ["Hello", " you"] });
  const events = await api.events(PATH, { input, stream: true });
  assert.deepEqual(events.map(({ event }) => event), [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
  ]);
  const data = events.map((event) => event.data);
  assert.ok(
    data.every(({ type, sequence_number }, i) => type === events[i].event && sequence_number === i),
  );
  assert.equal(data[6].text, "Hello you");
  assert.deepEqual(data[0].response.output, []);
  assert.deepEqual(data[9].response.output, [data[8].item]);
  const ids = new Set(data.slice(2, 9).map((event) => event.item_id ?? event.item.id));
  assert.equal(ids.size, 1);
});

Deno.test("responses: a stream of a call", async () => {
  const call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>';
  const { api, grammars } = await scripted({ pieces: ["Well. ", ...call] });
  const events = await api.events(PATH, { input, tools, tool_choice: "required", stream: true });
  const names = events.map(({ event }) => event).filter((name, i, all) => name !== all[i - 1]);
  assert.deepEqual(names.slice(names.indexOf("response.output_item.done")), [
    "response.output_item.done",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
  ]);
  const item = events.at(-2)!.data;
  assert.equal(item.output_index, 1);
  assert.equal(item.item.arguments, '{"a": 1}');
  const deltas = events.filter(({ event }) => event === "response.function_call_arguments.delta");
  assert.equal(deltas.map(({ data }) => data.delta).join(""), '{"a": 1}');
  assert.deepEqual((grammars[0] as Json).choice, "required");
  assert.equal(events.at(-1)!.data.response.output.length, 2);
});

Deno.test("responses: an answer that the limit cuts is incomplete", async () => {
  const { api, options } = await scripted({ pieces: ["a"], finishReason: "length" });
  const response = await api.json(PATH, { input, max_output_tokens: 1 });
  assert.equal(response.status, "incomplete");
  assert.deepEqual(response.incomplete_details, { reason: "max_output_tokens" });
  assert.equal(options[0].maxTokens, 1);
  const events = await api.events(PATH, { input, stream: true });
  assert.equal(events.at(-1)!.event, "response.incomplete");
});

Deno.test("responses: input items and formats", async () => {
  const { api, grammars } = await scripted({ pieces: ["{}"] });
  const schema = { type: "object" };
  await api.json(PATH, {
    input: [
      { role: "developer", content: "Be kind" },
      { type: "message", role: "user", content: [{ type: "input_text", text: "Hi" }] },
      { type: "function_call", call_id: "1", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "1", output: "20" },
    ],
    text: { format: { type: "json_schema", name: "x", schema, strict: true } },
  });
  assert.deepEqual(grammars, [{ kind: "jsonSchema", schema }]);
});

Deno.test("responses: logprobs where they are included", async () => {
  const include = ["message.output_text.logprobs"];
  const api = await testApp(story);
  const body = { input, include, top_logprobs: 2, max_output_tokens: 3, temperature: 0 };
  const response = await api.json(PATH, body);
  const { text, logprobs } = response.output[0].content[0];
  assert.equal(logprobs.map(({ token }: Json) => token).join(""), text);
  assert.equal(logprobs[0].top_logprobs.length, 2);
  const events = await api.events(PATH, { ...body, stream: true });
  const deltas = events.filter(({ event }) => event === "response.output_text.delta");
  assert.deepEqual(deltas.flatMap(({ data }) => data.logprobs), logprobs);
  assert.deepEqual(events.at(-1)!.data.response.output[0].content[0].logprobs, logprobs);
});

Deno.test("responses: what would need memory is refused", async () => {
  const { api } = await scripted({ pieces: [] });
  for (const body of [{ previous_response_id: "x" }, { conversation: "x" }, { background: true }]) {
    const { error } = await api.json(PATH, { input, ...body }, 400);
    assert.equal(error.param, Object.keys(body)[0]);
  }
});

Deno.test("responses: a failure in a stream is its last event", async () => {
  const { api } = await scripted({ pieces: ["a"], failure: new Error("secret") });
  const { event, data } = (await api.events(PATH, { input, stream: true })).at(-1)!;
  assert.equal(event, "error");
  assert.equal(data.type, "error");
  assert.doesNotMatch(data.message, /secret/);
});
