/** Anthropic's own client against the server. */
import Anthropic from "@anthropic-ai/sdk";
import assert from "node:assert/strict";
import { ServerProcess } from "../bench/server/server_process.ts";
import { untilIdle } from "./server_state.ts";

const KEY = "secret-of-nobody";

const REQUEST = {
  model: "story",
  max_tokens: 12,
  temperature: 0,
  system: "Tell a story.",
  messages: [{ role: "user" as const, content: "Once upon a time there was a dog." }],
};

const TOOLS: Anthropic.Tool[] = [{
  name: "weather",
  description: "The weather of a town",
  input_schema: {
    type: "object",
    properties: { town: { enum: ["Rome", "Oslo"] } },
    required: ["town"],
    additionalProperties: false,
  },
}];

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => block.type === "text" ? block.text : "").join("");
}

Deno.test("anthropic: messages, streams, tools and errors", async (t) => {
  const args = ["--threads", "1", "--api-key", KEY, "--ctx", "16384"];
  await using server = await ServerProcess.start({ args });
  const options = { baseURL: server.url, maxRetries: 0 };
  const client = new Anthropic({ ...options, apiKey: KEY });

  await t.step("create", async () => {
    const message = await client.messages.create(REQUEST);
    assert.equal(message.type, "message");
    assert.equal(message.role, "assistant");
    assert.equal(message.stop_reason, "max_tokens");
    assert.equal(message.usage.output_tokens, 12);
    assert.ok(textOf(message).length > 10);
  });

  await t.step("stream", async () => {
    const whole = await client.messages.create(REQUEST);
    const events = await Array.fromAsync(
      await client.messages.create({ ...REQUEST, stream: true }),
    );
    const types = events.map(({ type }) => type).filter((type) => type !== "content_block_delta");
    assert.deepEqual(types, [
      "message_start",
      "content_block_start",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    const final = await client.messages.stream(REQUEST).finalMessage();
    assert.equal(textOf(final), textOf(whole));
    assert.deepEqual(final.usage.output_tokens, 12);
    assert.equal(final.stop_reason, "max_tokens");
  });

  await t.step("stop_sequences", async () => {
    const word = textOf(await client.messages.create(REQUEST)).trim().split(" ").at(-2)!;
    const message = await client.messages.create({ ...REQUEST, stop_sequences: [word] });
    assert.equal(message.stop_reason, "stop_sequence");
    assert.equal(message.stop_sequence, word);
  });

  await t.step("count_tokens", async () => {
    const { system, messages, model } = REQUEST;
    const { input_tokens } = await client.messages.countTokens({ model, system, messages });
    const { usage } = await client.messages.create(REQUEST);
    const all = usage.input_tokens + (usage.cache_read_input_tokens ?? 0);
    assert.equal(input_tokens, all);
  });

  await t.step("tool_use", async () => {
    const request = {
      ...REQUEST,
      max_tokens: 120,
      tools: TOOLS,
      tool_choice: { type: "tool" as const, name: "weather" },
    };
    const message = await client.messages.create(request);
    assert.equal(message.stop_reason, "tool_use");
    const final = await client.messages.stream(request).finalMessage();
    for (const { content } of [message, final]) {
      const call = content.find((block) => block.type === "tool_use")!;
      assert.equal(call.name, "weather");
      assert.ok(["Rome", "Oslo"].includes((call.input as { town: string }).town));
    }
    const { id } = message.content.find((block) => block.type === "tool_use")!;
    const after = await client.messages.create({
      ...REQUEST,
      tools: TOOLS,
      tool_choice: { type: "none" },
      messages: [
        ...REQUEST.messages,
        { role: "assistant", content: message.content },
        { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: "Sunny" }] },
      ],
    });
    assert.ok(textOf(after).length > 0);
  });

  await t.step("aborted in the middle", async () => {
    const stream = await client.messages.create({ ...REQUEST, max_tokens: 15_000, stream: true });
    let events = 0;
    for await (const _ of stream) if (++events === 5) break;
    assert.equal(events, 5);
    await untilIdle(server.url, KEY);
  });

  await t.step("errors", async () => {
    const stranger = new Anthropic({ ...options, apiKey: "wrong" });
    await assert.rejects(stranger.messages.create(REQUEST), Anthropic.AuthenticationError);
    const wrong = { ...REQUEST, temperature: -1 };
    await assert.rejects(client.messages.create(wrong), (error: unknown) => {
      assert.ok(error instanceof Anthropic.BadRequestError);
      assert.equal(error.type, "invalid_request_error");
      return true;
    });
    const long = [{ role: "user" as const, content: "dog ".repeat(40_000) }];
    await assert.rejects(
      client.messages.create({ ...REQUEST, messages: long }),
      Anthropic.BadRequestError,
    );
  });
  await untilIdle(server.url, KEY);
});
