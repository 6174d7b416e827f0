/** Ollama's own client against the server. */
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { ServerProcess } from "../bench/server/server_process.ts";
import { untilIdle } from "./server_state.ts";

const OPTIONS = { num_predict: 12, temperature: 0 };
const PROMPT = "Once upon a time there was a dog.";
const MESSAGES = [{ role: "user", content: PROMPT }];

Deno.test({
  name: "ollama: everything that its client asks of a model that is there",
  // The client does not read streams to their very end, nor what it aborts.
  sanitizeResources: false,
  fn: everything,
});

async function everything(t: Deno.TestContext): Promise<void> {
  const args = ["--threads", "1", "--ctx", "16384"];
  await using server = await ServerProcess.start({ args });
  const client = new Ollama({ host: server.url });
  const { models } = await client.list();
  const [{ name: model }] = models;

  await t.step("list, show, ps, version", async () => {
    assert.equal(models.length, 1);
    assert.ok(models[0].size > 1_000_000);
    const shown = await client.show({ model });
    assert.ok(shown.capabilities.includes("completion"));
    assert.equal(shown.details.family.length > 0, true);
    assert.deepEqual((await client.ps()).models.map(({ name }) => name), [model]);
    assert.match((await client.version()).version, /^\d+\.\d+/);
  });

  await t.step("generate", async () => {
    const request = { model, prompt: PROMPT, options: OPTIONS };
    const whole = await client.generate(request);
    assert.ok(whole.response!.length > 10);
    assert.equal(whole.eval_count, 12);
    assert.ok(whole.done && whole.done_reason === "length");
    assert.ok(whole.total_duration > 0 && whole.prompt_eval_count > 0);
    const parts = await Array.fromAsync(await client.generate({ ...request, stream: true }));
    assert.equal(parts.map(({ response }) => response).join(""), whole.response);
    assert.deepEqual(parts.map(({ done }) => done).filter(Boolean), [true]);
    assert.equal(parts.at(-1)!.eval_count, 12);
  });

  await t.step("chat", async () => {
    const request = { model, messages: MESSAGES, options: OPTIONS };
    const whole = await client.chat(request);
    assert.equal(whole.message.role, "assistant");
    const parts = await Array.fromAsync(await client.chat({ ...request, stream: true }));
    assert.equal(parts.map(({ message }) => message.content).join(""), whole.message.content);
    assert.ok(parts.at(-1)!.done);
  });

  await t.step("chat with a JSON schema", async () => {
    const format = {
      type: "object",
      properties: { age: { type: "integer", minimum: 0, maximum: 99 } },
      required: ["age"],
      additionalProperties: false,
    };
    const options = { ...OPTIONS, num_predict: 60 };
    const { message } = await client.chat({ model, messages: MESSAGES, options, format });
    assert.ok(Number.isInteger(JSON.parse(message.content).age), message.content);
  });

  await t.step("embed", async () => {
    const { embeddings } = await client.embed({ model, input: ["a dog", "a cat"] });
    assert.deepEqual(embeddings.map(({ length }) => length), [256, 256]);
    assert.ok(Math.abs(Math.hypot(...embeddings[0]) - 1) < 1e-5);
  });

  await t.step("aborted in the middle", async () => {
    const options = { num_predict: 15_000, temperature: 1 };
    const stream = await client.generate({ model, prompt: PROMPT, options, stream: true });
    let parts = 0;
    await assert.rejects(async () => {
      for await (const _ of stream) if (++parts === 5) client.abort();
    }, { name: "AbortError" });
    await untilIdle(server.url);
  });

  await t.step("errors", async () => {
    await assert.rejects(
      client.chat({ model: "nobody", messages: MESSAGES }),
      { name: "ResponseError", status_code: 404 },
    );
    await assert.rejects(
      client.generate({ model, prompt: PROMPT, options: { temperature: -1 } }),
      { name: "ResponseError", status_code: 400 },
    );
  });
  await untilIdle(server.url);
}
