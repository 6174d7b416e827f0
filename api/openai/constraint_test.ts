import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { GrammarError } from "../../runtime/grammar/types.ts";
import { scriptedModel } from "../fake_scripted_model.ts";
import { type Json, overriding, testApp } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const PATH = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hi" }];
const schema = { type: "object", properties: { a: { type: "integer" } } };

const ACCEPTED: [body: Json, source: Json][] = [
  [{ response_format: { type: "text" } }, null],
  [{ response_format: { type: "json_object" } }, { kind: "json" }],
  [{ response_format: { type: "json_object", schema } }, { kind: "jsonSchema", schema }],
  [{ response_format: { type: "json_schema", json_schema: { name: "x", schema } } }, {
    kind: "jsonSchema",
    schema,
  }],
  [{ guided_json: schema }, { kind: "jsonSchema", schema }],
  [{ guided_json: JSON.stringify(schema) }, { kind: "jsonSchema", schema }],
  [{ guided_regex: "a+" }, { kind: "regex", pattern: "a+" }],
  [{ guided_choice: ["a", "b"] }, { kind: "choice", choices: ["a", "b"] }],
  [{ grammar: 'root ::= "a"' }, { kind: "gbnf", grammar: 'root ::= "a"' }],
  [{ structured_outputs: { regex: "a+" } }, { kind: "regex", pattern: "a+" }],
  [{ structured_outputs: { json_object: true } }, { kind: "json" }],
];

for (const [body, source] of ACCEPTED) {
  Deno.test(`constraints: ${JSON.stringify(body)}`, async () => {
    const { model, grammars, options } = scriptedModel(story, { pieces: ["{}"] });
    const api = await testApp(model);
    for (const path of [PATH, "/v1/completions"]) {
      const [choice] = (await api.json(path, { messages, prompt: "Hi", ...body })).choices;
      assert.equal(choice.finish_reason, "stop");
    }
    assert.deepEqual(grammars, source === null ? [] : [source, source]);
    assert.deepEqual(options.map(({ grammar }) => grammar?.source ?? null), [source, source]);
  });
}

Deno.test("constraints: two at once are refused", async () => {
  const api = await testApp(story);
  const tools = [{ type: "function", function: { name: "f" } }];
  for (const more of [{ response_format: { type: "json_object" } }, { tools }]) {
    const body = { messages, guided_regex: "a", ...more };
    const { error } = await api.json(PATH, body, 400);
    assert.match(error.message, /at once/);
  }
});

Deno.test("constraints: what a grammar can't do is said of its field", async () => {
  const grammar = () => Promise.reject(new GrammarError("Cannot use $dynamicRef"));
  const model = overriding(story, { grammar });
  const api = await testApp(model);
  const body = { messages, response_format: { type: "json_object" } };
  const { error } = await api.json(PATH, body, 400);
  assert.deepEqual([error.param, error.message], ["response_format", "Cannot use $dynamicRef"]);
});
