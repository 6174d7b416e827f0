import assert from "node:assert/strict";
import { sseEvent, streamResponse } from "./sse.ts";

const options = {
  contentType: "text/plain",
  keepAlive: "-",
  keepAliveMs: 10_000,
  cancel: () => {},
};

async function* slow(texts: readonly string[], ms: number): AsyncGenerator<string> {
  for (const text of texts) {
    await new Promise((resolve) => setTimeout(resolve, ms));
    yield text;
  }
}

Deno.test("sse: an event is one line of JSON, with its name if it has one", () => {
  assert.equal(sseEvent({ a: "\n" }), 'data: {"a":"\\n"}\n\n');
  assert.equal(sseEvent(1, "tick"), "event: tick\ndata: 1\n\n");
});

Deno.test("streams: chunks as they come, and headers that keep proxies from waiting", async () => {
  const response = streamResponse(slow(["a", "b"], 0), options);
  assert.equal(response.headers.get("Content-Type"), "text/plain");
  assert.equal(response.headers.get("X-Accel-Buffering"), "no");
  assert.equal(await response.text(), "ab");
});

Deno.test("streams: silence is filled, and nothing is lost by it", async () => {
  const response = streamResponse(slow(["a", "b"], 25), { ...options, keepAliveMs: 5 });
  assert.match(await response.text(), /^-+a-+b$/);
});

Deno.test("streams: a client that leaves is told of once, and ends what is asked for", async () => {
  let asked = 0;
  let left = 0;
  const chunks = { next: () => Promise.resolve({ done: false, value: String(asked++) }) };
  const response = streamResponse(chunks, { ...options, cancel: () => left++ });
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  const before = asked;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual([left, asked], [1, before]);
});

Deno.test("streams: no more is asked for than the client takes", async () => {
  let asked = 0;
  const chunks = { next: () => Promise.resolve({ done: false, value: String(asked++) }) };
  const reader = streamResponse(chunks, options).body!.getReader();
  for (let i = 0; i < 10; i++) await reader.read();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(asked <= 12, `${asked} were asked for`);
  await reader.cancel();
});
