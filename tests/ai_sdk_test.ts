/** Vercel's `ai` SDK, by its provider for servers like OpenAI's, against the server. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  embedMany,
  generateObject,
  generateText,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import assert from "node:assert/strict";
import { z } from "zod";
import { ServerProcess } from "../bench/server/server_process.ts";
import { untilIdle } from "./server_state.ts";

const PROMPT = "Once upon a time there was a dog.";
const SETTINGS = { prompt: PROMPT, temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

const Pet = z.strictObject({
  name: z.string().max(12),
  age: z.int().min(0).max(99),
  kind: z.enum(["dog", "cat"]),
});

Deno.test("ai: texts, objects, tools and errors", async (t) => {
  await using server = await ServerProcess.start({ args: ["--threads", "1", "--ctx", "16384"] });
  const provider = createOpenAICompatible({
    name: "trilith",
    baseURL: `${server.url}/v1`,
    supportsStructuredOutputs: true,
    includeUsage: true,
  });
  const model = provider("story");

  await t.step("generateText and streamText", async () => {
    const whole = await generateText({ ...SETTINGS, model });
    assert.ok(whole.text.length > 10);
    assert.equal(whole.finishReason, "length");
    assert.equal(whole.usage.outputTokens, 12);
    const stream = streamText({ ...SETTINGS, model });
    const text = (await Array.fromAsync(stream.textStream)).join("");
    assert.equal(text, whole.text);
    assert.equal((await stream.usage).outputTokens, 12);
    assert.equal(await stream.finishReason, "length");
  });

  await t.step("generateObject and streamObject", async () => {
    const settings = { ...SETTINGS, maxOutputTokens: 120, model, schema: Pet };
    const { object } = await generateObject(settings);
    assert.deepEqual(Pet.parse(object), object);
    const stream = streamObject(settings);
    const parts = await Array.fromAsync(stream.partialObjectStream);
    assert.ok(parts.length > 1);
    assert.deepEqual(await stream.object, object);
  });

  await t.step("tools are called and their results go back", async () => {
    const asked: string[] = [];
    const weather = tool({
      description: "The weather of a town",
      inputSchema: z.strictObject({ town: z.enum(["Rome", "Oslo"]) }),
      execute: ({ town }) => {
        asked.push(town);
        return { weather: "sunny" };
      },
    });
    const result = await generateText({
      ...SETTINGS,
      maxOutputTokens: 120,
      model,
      tools: { weather },
      toolChoice: { type: "tool", toolName: "weather" },
      stopWhen: stepCountIs(2),
    });
    assert.equal(result.steps.length, 2);
    assert.ok(asked.length === 2 && asked.every((town) => ["Rome", "Oslo"].includes(town)));
    const stream = streamText({
      ...SETTINGS,
      maxOutputTokens: 120,
      model,
      tools: { weather },
      toolChoice: { type: "tool", toolName: "weather" },
    });
    const calls = (await Array.fromAsync(stream.fullStream)).filter(({ type }) =>
      type === "tool-call"
    );
    assert.equal(calls.length, 1);
  });

  await t.step("embedMany", async () => {
    const { embeddings } = await embedMany({
      model: provider.embeddingModel("story"),
      values: ["a dog", "a cat"],
      maxRetries: 0,
    });
    assert.deepEqual(embeddings.map(({ length }) => length), [256, 256]);
  });

  await t.step("aborted in the middle", async () => {
    const abort = new AbortController();
    const stream = streamText({
      ...SETTINGS,
      maxOutputTokens: 15_000,
      model,
      abortSignal: abort.signal,
    });
    for await (const _ of stream.textStream) abort.abort();
    await untilIdle(server.url);
  });

  await t.step("errors", async () => {
    const prompt = "dog ".repeat(40_000);
    await assert.rejects(generateText({ ...SETTINGS, model, prompt }), (error: unknown) => {
      assert.ok(APICallError.isInstance(error));
      assert.equal(error.statusCode, 400);
      assert.equal(error.isRetryable, false);
      return true;
    });
  });
  await untilIdle(server.url);
});
