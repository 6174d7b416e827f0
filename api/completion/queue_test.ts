/** Requests that wait for others: they are told so, can leave, and can be too many. */
import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { testApp, until } from "../test_helpers.ts";

const model = await loadModel(undefined, { threads: 1, maxSequences: 1, maxWaiting: 1 });
Deno.test.afterAll(async () => await model[Symbol.asyncDispose]());
const api = await testApp(model, { keepAliveMs: 1 });

const PATH = "/v1/completions";
const body = { prompt: "Once upon a time", stream: true, ignore_eos: true, max_tokens: -1 };

Deno.test("queue: a stream that waits begins at once, with comments", async () => {
  const first = await api.post(PATH, body);
  const second = await api.post(PATH, { ...body, max_tokens: 2 });
  assert.equal(second.status, 200);
  const reader = second.body!.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, ": ping\n\n");
  await first.body!.cancel();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) rest += read.value;
  assert.ok(rest.endsWith("data: [DONE]\n\n"));
});

Deno.test("queue: who waits can leave, and does not run later", async () => {
  const first = await api.post(PATH, body);
  const second = await api.post(PATH, body);
  await until(() => model.status().waiting === 1);
  const before = api.ended.length;
  await second.body!.cancel();
  await until(() => model.status().waiting === 0);
  await until(() => api.ended.length > before);
  const { reason, completionTokens } = api.ended.at(-1)!;
  assert.deepEqual([reason, completionTokens], ["abort", 0]);
  await first.body!.cancel();
  await until(() => model.status().slots.length === 0);
});

Deno.test("queue: one too many is a 503, and leaves nothing behind", async () => {
  const responses = [await api.post(PATH, body), await api.post(PATH, body)];
  for (const n of [1, 2]) {
    const refused = await api.post(PATH, { ...body, n });
    assert.equal(refused.status, 503);
    assert.match(refused.headers.get("Retry-After") ?? "", /^\d+$/);
    assert.equal((await refused.json()).error.code, "queue_full");
  }
  for (const response of responses) await response.body!.cancel();
  await until(() => model.status().slots.length === 0 && model.status().waiting === 0);
  assert.equal(model.status().kvBlocks.used, 0);
});

Deno.test("queue: a whole answer's client can leave while it waits", async () => {
  const first = await api.post(PATH, body);
  const client = new AbortController();
  const second = api.post(PATH, { ...body, stream: false }, { signal: client.signal });
  await until(() => model.status().waiting === 1);
  client.abort();
  await (await second).body?.cancel();
  await until(() => model.status().waiting === 0);
  await first.body!.cancel();
  await until(() => model.status().slots.length === 0);
});
