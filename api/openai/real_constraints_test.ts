/** Grammars and calls on a model that knows neither: only the constraint makes its answers valid. */
import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { testApp } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model);

const PATH = "/v1/chat/completions";
const messages = [{ role: "user", content: "Once upon a time" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", maxLength: 12 }, days: { enum: [1, 2, 3] } },
  required: ["city", "days"],
  additionalProperties: false,
};
const base = { messages, max_tokens: 200, temperature: 1 };

Deno.test("a schema holds, whatever the seed", async () => {
  const json_schema = { name: "trip", schema: parameters, strict: true };
  for (const seed of [1, 2, 3, 4]) {
    const body = { ...base, seed, response_format: { type: "json_schema", json_schema } };
    const [choice] = (await api.json(PATH, body)).choices;
    assert.equal(choice.finish_reason, "stop");
    const trip = JSON.parse(choice.message.content);
    assert.deepEqual(Object.keys(trip), ["city", "days"]);
    assert.ok([1, 2, 3].includes(trip.days));
  }
});

Deno.test("regexes, choices and GBNF hold", async () => {
  const cases: [object, RegExp][] = [
    [{ guided_regex: "[a-c]{3}-[0-9]{2}" }, /^[a-c]{3}-\d{2}$/],
    [{ guided_choice: ["yes", "no"] }, /^(yes|no)$/],
    [{ grammar: 'root ::= "<" [x-z] ">"' }, /^<[x-z]>$/],
  ];
  for (const [constraint, expected] of cases) {
    const [choice] = (await api.json(PATH, { ...base, ...constraint })).choices;
    assert.match(choice.message.content, expected);
  }
});

Deno.test("a required call is one, streamed or not", async () => {
  const tools = ["weather", "time"].map((name) => ({
    type: "function",
    function: { name, parameters },
  }));
  const body = { ...base, seed: 5, tools, tool_choice: "required", parallel_tool_calls: false };
  const [choice] = (await api.json(PATH, body)).choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const [call, ...others] = choice.message.tool_calls;
  assert.deepEqual(others, []);
  assert.ok(["weather", "time"].includes(call.function.name));
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city", "days"]);

  const events = await api.events(PATH, { ...body, stream: true });
  const deltas = events.slice(0, -1).flatMap(({ data }) => data.choices[0].delta.tool_calls ?? []);
  assert.equal(deltas[0].function.name, call.function.name);
  const args = deltas.map((delta) => delta.function.arguments).join("");
  assert.equal(args, call.function.arguments);
  assert.ok(deltas.length > 3, "the arguments came in one piece");
});

Deno.test("a named call is that function's", async () => {
  const tools = [{ name: "a", input_schema: parameters }, { name: "b", input_schema: parameters }];
  const tool_choice = { type: "tool", name: "b", disable_parallel_tool_use: true };
  const message = await api.json("/v1/messages", { ...base, tools, tool_choice });
  assert.equal(message.stop_reason, "tool_use");
  const [call] = message.content;
  assert.deepEqual([call.type, call.name, Object.keys(call.input)], ["tool_use", "b", [
    "city",
    "days",
  ]]);
});

Deno.test("what a schema can't ask for is refused by its field", async () => {
  const response_format = { type: "json_schema", json_schema: { schema: { $dynamicRef: "#x" } } };
  const { error } = await api.json(PATH, { ...base, response_format }, 400);
  assert.equal(error.param, "response_format");
  assert.match(error.message, /dynamicRef/);
});

Deno.test("vectors have length 1, and differ by their text", async () => {
  const { data } = await api.json("/v1/embeddings", { input: ["a dog", "the sea", "a dog"] });
  const vectors: number[][] = data.map(({ embedding }: { embedding: number[] }) => embedding);
  for (const vector of vectors) assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
  assert.deepEqual(vectors[0], vectors[2]);
  assert.notDeepEqual(vectors[0], vectors[1]);
});
