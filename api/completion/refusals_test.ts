/** What is refused before an answer begins is an HTTP error in the shape of its dialect. */
import assert from "node:assert/strict";
import { loadModel } from "../../runtime/engine.ts";
import { QueueFullError } from "../../runtime/errors.ts";
import type { GenerateOptions, Model } from "../../runtime/types.ts";
import { type Json, overriding, testApp, until } from "../test_helpers.ts";

const story = await loadModel(undefined, { threads: 1 });
Deno.test.afterAll(async () => await story[Symbol.asyncDispose]());

const messages = [{ role: "user", content: "Hi" }];

const ROUTES: [path: string, body: object, messageOf: (json: Json) => string][] = [
  ["/v1/chat/completions", { messages }, (json) => json.error.message],
  ["/v1/completions", { prompt: "Hi" }, (json) => json.error.message],
  ["/v1/responses", { input: "Hi" }, (json) => json.error.message],
  ["/v1/messages", { messages, max_tokens: 5 }, (json) => json.error.message],
  ["/api/chat", { messages }, (json) => json.error],
  ["/api/generate", { prompt: "Hi" }, (json) => json.error],
];

/** @param starts How many generations are let in. */
function fullModel(starts: number): { model: Model; signals: AbortSignal[] } {
  const signals: AbortSignal[] = [];
  const generate = (prompt: string, options: GenerateOptions) => {
    if (signals.length === starts) throw new QueueFullError("9 wait already");
    signals.push(options.signal!);
    return story.generate(prompt, options);
  };
  return { model: overriding(story, { generate }), signals };
}

for (const [path, body, messageOf] of ROUTES) {
  Deno.test(`${path}: a full queue is a 503, also of streams`, async () => {
    const api = await testApp(fullModel(0).model);
    for (const stream of [false, true]) {
      const response = await api.post(path, { ...body, stream });
      assert.equal(response.status, 503);
      assert.match(response.headers.get("Retry-After") ?? "", /^[1-9]\d*$/);
      assert.match(messageOf(await response.json()), /9 wait/);
    }
  });
}

Deno.test("refusals: choices that have started end when one is refused", async () => {
  const { model, signals } = fullModel(2);
  const api = await testApp(model);
  await api.json("/v1/chat/completions", { messages, n: 3 }, 503);
  assert.deepEqual(signals.map(({ aborted }) => aborted), [true, true]);
});

Deno.test("refusals: nothing is started for a client that has left", async () => {
  const { model, signals } = fullModel(1);
  const api = await testApp(model);
  const signal = AbortSignal.abort();
  for (const stream of [false, true]) {
    const response = await api.post("/v1/chat/completions", { messages, stream }, { signal });
    await response.body?.cancel();
  }
  assert.deepEqual(signals, []);
});

Deno.test("refusals: a failed choice ends the others", async () => {
  const signals: AbortSignal[] = [];
  const generate = (prompt: string, options: GenerateOptions) => {
    signals.push(options.signal!);
    if (signals.length > 1) return story.generate(prompt, { ...options, ignoreEos: true });
    return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error("x")) }) };
  };
  const model = overriding(story, { generate });
  const api = await testApp(model);
  await api.json("/v1/chat/completions", { messages, n: 2 }, 500);
  assert.ok(signals.every(({ aborted }) => aborted));
  await until(() => model.status().slots.length === 0);
});
