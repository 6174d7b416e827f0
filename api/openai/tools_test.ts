import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { type Script, scriptedModel } from "../fake_scripted_model.ts";
import { type Json, overriding, testApp } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const PATH = "/v1/chat/completions";
const messages = [{ role: "user", content: "How warm is it in Rome?" }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tool = (name: string) => ({ type: "function", function: { name, parameters } });
const tools = [tool("weather"), tool("time")];

const ROME = [
  "<tool_call>\n",
  '{"name": "weather", "argu',
  'ments": {"city": "R',
  'ome"}}',
  "\n</tool_call>",
];

async function scripted(script: Script) {
  const { model, ...asked } = scriptedModel(story, script);
  return { api: await testApp(model), ...asked };
}

Deno.test("tools: a call is an answer of its own", async () => {
  const { api } = await scripted({ pieces: ROME });
  const [choice] = (await api.json(PATH, { messages, tools, tool_choice: "required" })).choices;
  const [call] = choice.message.tool_calls;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.equal(choice.message.content, null);
  assert.match(call.id, /^call_/);
  assert.equal(call.type, "function");
  assert.deepEqual(call.function, { name: "weather", arguments: '{"city": "Rome"}' });
  assert.equal(api.ended.at(-1)!.reason, "tool_calls");
});

Deno.test("tools: a call is streamed as its name, then its arguments", async () => {
  const { api } = await scripted({ pieces: ["Let me", " see.\n", ...ROME, ...ROME] });
  const events = await api.events(PATH, { messages, tools, stream: true });
  const choices = events.slice(0, -1).map(({ data }) => data.choices[0]);
  const deltas = choices.map((choice: Json) => choice.delta);
  const ids = deltas.map((delta: Json) => delta.tool_calls?.[0].id).filter((id) =>
    id !== undefined
  );
  assert.equal(new Set(ids).size, 2);
  const call = (index: number, id: string) => [
    { tool_calls: [{ index, id, type: "function", function: { name: "weather", arguments: "" } }] },
    { tool_calls: [{ index, function: { arguments: '{"city": "R' } }] },
    { tool_calls: [{ index, function: { arguments: 'ome"}' } }] },
  ];
  assert.deepEqual(deltas, [
    { role: "assistant", content: "" },
    { content: "Let me" },
    { content: " see." },
    ...call(0, ids[0]),
    ...call(1, ids[1]),
    {},
  ]);
  assert.equal(choices.at(-1).finish_reason, "tool_calls");
});

Deno.test("tools: a call that the limit cuts is a cut answer", async () => {
  const { api } = await scripted({ pieces: ROME.slice(0, 3), finishReason: "length" });
  const [choice] = (await api.json(PATH, { messages, tools })).choices;
  assert.equal(choice.finish_reason, "length");
  assert.equal(choice.message.tool_calls[0].function.arguments, '{"city": "R');
});

Deno.test("tools: a call that a stop string cuts is none to be made", async () => {
  const { api } = await scripted({ pieces: ROME.slice(0, 3), stopString: "ome" });
  const [choice] = (await api.json(PATH, { messages, tools, stop: "ome" })).choices;
  assert.equal(choice.finish_reason, "stop");
});

Deno.test("tools: an answer without a call is text", async () => {
  const { api } = await scripted({ pieces: ["It is", " warm"] });
  const [choice] = (await api.json(PATH, { messages, tools })).choices;
  assert.equal(choice.finish_reason, "stop");
  assert.deepEqual(choice.message, { role: "assistant", content: "It is warm", refusal: null });
});

const CHOICES: [tool_choice: unknown, names: string[] | null, choice: string | null][] = [
  [undefined, ["weather", "time"], "auto"],
  ["auto", ["weather", "time"], "auto"],
  ["required", ["weather", "time"], "required"],
  [{ type: "function", function: { name: "time" } }, ["time"], "required"],
  ["none", null, null],
];

for (const [tool_choice, names, choice] of CHOICES) {
  Deno.test(`tools: tool_choice ${JSON.stringify(tool_choice)}`, async () => {
    const { api, grammars, prompts } = await scripted({ pieces: ["x"] });
    await api.json(PATH, { messages, tools, tool_choice, parallel_tool_calls: false });
    if (names === null) {
      assert.deepEqual(grammars, []);
    } else {
      assert.deepEqual(grammars, [{
        kind: "tools",
        tools: names.map((name) => ({ name, parameters })),
        choice,
        parallel: false,
      }]);
    }
    assert.equal(prompts.length, 1);
  });
}

Deno.test("tools: a format is that of answers without calls", async () => {
  const response_format = { type: "json_object" };
  for (const tool_choice of ["auto", "required"]) {
    const { api, grammars } = await scripted({ pieces: ["{}"] });
    await api.json(PATH, { messages, tools, tool_choice, response_format });
    const { text } = grammars[0] as { text?: unknown };
    assert.deepEqual(text, tool_choice === "auto" ? { kind: "json" } : undefined);
  }
  const { api } = await scripted({ pieces: [] });
  const both = { messages, tools, guided_regex: "a" };
  assert.match((await api.json(PATH, both, 400)).error.message, /guided_regex at once/);
});

Deno.test("tools: a function that is not there is refused", async () => {
  const { api } = await scripted({ pieces: [] });
  const tool_choice = { type: "function", function: { name: "x" } };
  const { error } = await api.json(PATH, { messages, tools, tool_choice }, 400);
  assert.equal(error.param, "tool_choice");
  assert.match(error.message, /"x"/);
});

Deno.test("tools: text is not looked at where none are given", async () => {
  const { api } = await scripted({ pieces: ROME });
  const [choice] = (await api.json(PATH, { messages })).choices;
  assert.equal(choice.message.content, ROME.join(""));
});

const HISTORY = [
  { role: "user", content: "How warm?" },
  {
    role: "assistant",
    content: null,
    tool_calls: [{
      id: "call_1",
      type: "function",
      function: { name: "weather", arguments: '{"city":"Rome"}' },
    }],
  },
  { role: "tool", tool_call_id: "call_1", content: "20" },
  { role: "tool", tool_call_id: "call_2", content: "21" },
];

/** Shows all that a template gets. */
function withTemplate(chatTemplate: string | null) {
  const seen: Json[] = [];
  const model = overriding(story, {
    chatTemplate,
    applyChatTemplate: (messages: Json, options: Json) => {
      seen.push({ messages, tools: options?.tools });
      return "text";
    },
  });
  return { model, seen };
}

Deno.test("tools: a template that knows them gets them, and calls as objects", async () => {
  const { model, seen } = withTemplate("{% if tools %}<tool_call>");
  const api = await testApp(model);
  await api.json("/apply-template", { messages: HISTORY, tools });
  const [{ messages, tools: given }] = seen;
  assert.deepEqual(given, tools);
  assert.deepEqual(messages[1].tool_calls[0].function.arguments, { city: "Rome" });
  const [, , first, second] = messages;
  assert.deepEqual(first, { role: "tool", content: "20", tool_call_id: "call_1", name: "weather" });
  // Nobody called this one.
  assert.deepEqual(second, { role: "tool", content: "21", tool_call_id: "call_2" });
});

for (const template of ["{{ messages }}", "{{ tools }}: answer with [TOOL_CALLS]"]) {
  Deno.test(`tools: in words for ${template}`, () => toolsInWords(template));
}

async function toolsInWords(template: string): Promise<void> {
  const { model, seen } = withTemplate(template);
  const api = await testApp(model);
  await api.json("/apply-template", { messages: HISTORY, tools });
  const [{ messages, tools: given }] = seen;
  assert.equal(given, undefined);
  assert.deepEqual(messages.map(({ role }: Json) => role), ["system", "user", "assistant", "user"]);
  assert.match(messages[0].content, /<tools>\n\{"name":"weather".*\n\{"name":"time".*\n<\/tools>/);
  assert.equal(
    messages[2].content,
    '<tool_call>\n{"name":"weather","arguments":{"city":"Rome"}}\n</tool_call>',
  );
  assert.equal(
    messages[3].content,
    "<tool_response>\n20\n</tool_response>\n<tool_response>\n21\n</tool_response>",
  );
}

Deno.test("tools: a model without a chat template can't chat", async () => {
  const { model } = withTemplate(null);
  const { error } = await (await testApp(model)).json(PATH, { messages }, 400);
  assert.match(error.message, /no chat template.*\/v1\/completions/);
});
