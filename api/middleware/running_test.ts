import assert from "node:assert/strict";
import { streamResponse } from "../sse.ts";
import { jsonOf, type Scene, sceneOf } from "./test_helpers.ts";

/** Adds a stream that says "data: n" until it is cancelled, or `count` times. */
function addStream({ app }: Scene, path: string, { type = "text/event-stream", count = Infinity }) {
  const state = { isCancelled: false };
  app.post(path, () => {
    async function* chunks() {
      for (let n = 0; n < count; n++) {
        if (n > 0) await new Promise((resolve) => setTimeout(resolve, 1));
        yield `data: ${n}\n\n`;
      }
    }
    const cancel = () => void (state.isCancelled = true);
    const keepAlive = { keepAlive: ": ping\n\n", keepAliveMs: 1000 };
    return streamResponse(chunks(), { contentType: type, ...keepAlive, cancel });
  });
  return state;
}

/** The chunk that was being made when a stream was cut is ready a millisecond later. */
function chunkEnded(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

const POST = { method: "POST", body: "{}" };

Deno.test("running: a stream that ends by itself is as it was", async () => {
  const scene = sceneOf();
  addStream(scene, "/stream", { count: 2 });
  const text = await (await scene.ask("/stream", POST)).text();
  assert.equal(text, "data: 0\n\ndata: 1\n\n");
  assert.equal(scene.options.lifecycle.runningRequests, 0);
  assert.equal(scene.logged[0].status, 200);
});

Deno.test("running: draining waits for a stream", async () => {
  const scene = sceneOf();
  addStream(scene, "/stream", { count: 5 });
  const response = await scene.ask("/stream", POST);
  const [aborted, text] = await Promise.all([
    scene.options.lifecycle.drain(10_000),
    response.text(),
  ]);
  assert.equal(aborted, 0);
  assert.match(text, /data: 4\n\n$/);
});

Deno.test("running: a stream that can't be waited for ends with an error of its dialect", async () => {
  const expected: [string, string, RegExp][] = [
    ["/stream", "text/event-stream", /\n\ndata: \{"error":\{"message":.*"shutting_down"\}\}\n\n$/],
    [
      "/v1/messages/s",
      "text/event-stream",
      /\n\nevent: error\ndata: \{"type":"error".*overloaded_error.*\n\n$/,
    ],
    [
      "/v1/responses/s",
      "text/event-stream",
      /\n\nevent: error\ndata: \{"type":"error","code":.*\n\n$/,
    ],
    ["/api/s", "application/x-ndjson", /\n\{"error":"The server is shutting down.*"\}\n$/],
  ];
  for (const [path, type, ending] of expected) {
    const scene = sceneOf();
    const state = addStream(scene, path, { type });
    const response = await scene.ask(path, POST);
    const [aborted, text] = await Promise.all([
      scene.options.lifecycle.drain(10),
      response.text(),
    ]);
    assert.equal(aborted, 1);
    assert.match(text, ending);
    assert.doesNotMatch(text, /\[DONE\]/);
    assert.ok(state.isCancelled, "the route is told");
    await chunkEnded();
    assert.equal(scene.options.lifecycle.runningRequests, 0);
  }
});

Deno.test("running: while the server stops new requests are refused, and health says why", async () => {
  const { ask, options } = sceneOf();
  options.lifecycle.stopAccepting();
  const refused = await ask("/version");
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get("retry-after"), "5");
  const health = await ask("/health");
  assert.equal(health.status, 503);
  assert.equal((await jsonOf(health)).status, "draining");
});

Deno.test("running: an answer that is not there in time is 504, and its work is told", async () => {
  const scene = sceneOf({ timeoutMs: 20 });
  let reason: unknown;
  scene.app.post("/slow", async (c) => {
    const { signal } = c.req.raw;
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    reason = signal.reason;
    return c.text("late");
  });
  const response = await scene.ask("/slow", POST);
  assert.equal(response.status, 504);
  assert.equal((await jsonOf(response)).error.code, "timeout");
  assert.match(String(reason), /longer than this server's 0.02 s/);
  assert.equal(scene.options.lifecycle.runningRequests, 0);
});

Deno.test("running: a stream that takes too long ends with an error", async () => {
  const scene = sceneOf({ timeoutMs: 20 });
  const state = addStream(scene, "/stream", {});
  assert.match(await (await scene.ask("/stream", POST)).text(), /"code":"timeout"\}\}\n\n$/);
  assert.ok(state.isCancelled);
  await chunkEnded();
});

Deno.test("running: a client that leaves its stream ends the work", async () => {
  const scene = sceneOf();
  const state = addStream(scene, "/stream", {});
  const response = await scene.ask("/stream", POST);
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  assert.ok(state.isCancelled);
  assert.equal(scene.options.lifecycle.runningRequests, 0);
  assert.equal(scene.logged[0].ending, "cancelled");
  await chunkEnded();
});

Deno.test("running: a client that leaves before the answer is told to the route", async () => {
  const scene = sceneOf();
  const client = new AbortController();
  const isAborted = Promise.withResolvers<void>();
  scene.app.post("/slow", async (c) => {
    c.req.raw.signal.addEventListener("abort", () => isAborted.resolve());
    setTimeout(() => client.abort(), 1);
    await isAborted.promise;
    return c.text("nobody reads this");
  });
  await scene.ask("/slow", { ...POST, signal: client.signal });
  assert.equal(scene.options.lifecycle.runningRequests, 0);
});
