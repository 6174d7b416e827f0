import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { type Script, scriptedModel } from "../fake_scripted_model.ts";
import { type Json, overriding, testApp } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const PATH = "/v1/messages";
const messages = [{ role: "user", content: "Once upon a time" }];
const base = { model: "story", max_tokens: 64, messages };
const tools = [{ name: "f", input_schema: { type: "object" } }];
const CALL = ["<tool_call>\n", '{"name": "f", "arguments": {"a"', ": 1}}\n</tool_call>"];

async function scripted(script: Script) {
  const { model, ...asked } = scriptedModel(story, script);
  return { api: await testApp(model), ...asked };
}

Deno.test("messages: a whole answer", async () => {
  const { api, options } = await scripted({ pieces: ["Hello", " you"] });
  const message = await api.json(PATH, base);
  assert.match(message.id, /^msg_/);
  assert.deepEqual(message.content, [{ type: "text", text: "Hello you", citations: null }]);
  assert.deepEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
  assert.deepEqual(message.usage, {
    input_tokens: 3,
    cache_read_input_tokens: 2,
    cache_creation_input_tokens: 0,
    output_tokens: 2,
  });
  assert.equal(options[0].maxTokens, 64);
});

Deno.test("messages: a stream of text and a call has Anthropic's events in their order", async () => {
  const { api } = await scripted({ pieces: ["Let me", " see.\n", ...CALL] });
  const events = await api.events(PATH, { ...base, tools, stream: true });
  assert.ok(events.every(({ event, data }) => event === data.type));
  const [start, ...rest] = events.map(({ data }) => data);
  assert.equal(start.type, "message_start");
  assert.equal(start.message.usage.input_tokens, 5);
  const { id } = rest[4].content_block;
  assert.deepEqual(rest.slice(0, -2), [
    {
      type: "content_block_start",
      index: 0,
      content_block: { type: "text", text: "", citations: null },
    },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Let me" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: " see." } },
    { type: "content_block_stop", index: 0 },
    {
      type: "content_block_start",
      index: 1,
      content_block: { type: "tool_use", id, name: "f", input: {} },
    },
    {
      type: "content_block_delta",
      index: 1,
      delta: { type: "input_json_delta", partial_json: '{"a"' },
    },
    {
      type: "content_block_delta",
      index: 1,
      delta: { type: "input_json_delta", partial_json: ": 1}" },
    },
    { type: "content_block_stop", index: 1 },
  ]);
  const [delta, stop] = rest.slice(-2);
  assert.deepEqual(delta.delta, { stop_reason: "tool_use", stop_sequence: null });
  assert.equal(delta.usage.output_tokens, 5);
  assert.deepEqual(stop, { type: "message_stop" });
});

Deno.test("messages: a call is a block with its input", async () => {
  const { api } = await scripted({ pieces: CALL });
  const { content, stop_reason } = await api.json(PATH, {
    ...base,
    tools,
    tool_choice: { type: "any" },
  });
  assert.equal(stop_reason, "tool_use");
  assert.deepEqual(content.map(({ type, name, input }: Json) => [type, name, input]), [
    ["tool_use", "f", { a: 1 }],
  ]);
});

Deno.test("messages: tool choices", async () => {
  const { api, grammars } = await scripted({ pieces: ["x"] });
  const disable_parallel_tool_use = true;
  for (
    const choice of [{ type: "auto" }, { type: "any" }, { type: "tool", name: "f" }, {
      type: "none",
    }]
  ) {
    const tool_choice = choice.type === "none" ? choice : { ...choice, disable_parallel_tool_use };
    await api.json(PATH, { ...base, tools, tool_choice });
  }
  const choices = grammars.map((grammar: Json) => [grammar.choice, grammar.parallel]);
  assert.deepEqual(choices, [["auto", false], ["required", false], ["required", false]]);
});

const STOPS: [Script, string, string | null][] = [
  [{ pieces: ["a"], stopString: "END" }, "stop_sequence", "END"],
  [{ pieces: ["a"], finishReason: "length" }, "max_tokens", null],
];

for (const [script, reason, sequence] of STOPS) {
  Deno.test(`messages: ${reason}`, async () => {
    const { api, options } = await scripted(script);
    const message = await api.json(PATH, { ...base, stop_sequences: ["END"] });
    assert.deepEqual([message.stop_reason, message.stop_sequence], [reason, sequence]);
    assert.deepEqual(options[0].stop, ["END"]);
  });
}

Deno.test("messages: errors have Anthropic's shape", async () => {
  const { api } = await scripted({ pieces: [] });
  const missing = await api.json(PATH, { ...base, model: "claude" }, 404);
  assert.deepEqual([missing.type, missing.error.type], ["error", "not_found_error"]);
  const invalid = await api.json(PATH, { messages }, 400);
  assert.equal(invalid.error.type, "invalid_request_error");
  assert.match(invalid.error.message, /max_tokens/);
  const image = [{ role: "user", content: [{ type: "image", source: {} }] }];
  const { error } = await api.json(PATH, { ...base, messages: image }, 400);
  assert.match(error.message, /only text/);
});

Deno.test("messages: requests have an id, whatever comes of them", async () => {
  const { api } = await scripted({ pieces: ["a"] });
  for (const body of [base, { ...base, stream: true }, {}]) {
    const response = await api.post(PATH, body);
    await response.text();
    assert.match(response.headers.get("request-id") ?? "", /./);
  }
});

Deno.test("messages: a failure in a stream is its last event", async () => {
  const { api } = await scripted({ pieces: ["a"], failure: new Error("secret") });
  const { event, data } = (await api.events(PATH, { ...base, stream: true })).at(-1)!;
  assert.equal(event, "error");
  assert.equal(data.error.type, "api_error");
  assert.doesNotMatch(data.error.message, /secret/);
});

Deno.test("messages: silence is filled with pings", async () => {
  const { model } = scriptedModel(story, { pieces: ["a"], silenceMs: 30 });
  const api = await testApp(model, { keepAliveMs: 5 });
  const events = await api.events(PATH, { ...base, stream: true });
  assert.deepEqual(events[1], { event: "ping", data: { type: "ping" } });
});

Deno.test("messages: tokens are counted as they would be run", async () => {
  const api = await testApp(story);
  const { input_tokens } = await api.json("/v1/messages/count_tokens", { messages });
  const message = await api.json(PATH, { ...base, max_tokens: 1 });
  const { usage } = message;
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
});

Deno.test("messages: results of tools are turns before the user's text", async () => {
  const seen: Json[] = [];
  const model = overriding(story, {
    chatTemplate: "{{ tools }}<tool_call>",
    applyChatTemplate: (turns: Json) => (seen.push(turns), "text"),
  });
  const api = await testApp(model);
  await api.json("/v1/messages/count_tokens", {
    system: [{ type: "text", text: "Be kind" }],
    messages: [
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm" },
          { type: "text", text: "Let me see" },
          { type: "tool_use", id: "1", name: "f", input: { a: 1 } },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "1", content: [{ type: "text", text: "20" }] },
          { type: "text", text: "And now?" },
        ],
      },
    ],
  });
  const [turns] = seen;
  assert.deepEqual(turns.map(({ role, content }: Json) => [role, content]), [
    ["system", "Be kind"],
    ["assistant", "Let me see"],
    ["tool", "20"],
    ["user", "And now?"],
  ]);
  assert.deepEqual(turns[1].tool_calls[0].function, { name: "f", arguments: { a: 1 } });
  assert.equal(turns[2].tool_call_id, "1");
});
