import assert from "node:assert/strict";
import { jsonOf, sceneOf } from "./test_helpers.ts";

const LIMIT = 1000;

/** A body of which nobody says how long it is. */
function chunked(sizes: readonly number[]): RequestInit & { duplex: "half" } {
  const body = ReadableStream.from(sizes.map((size) => new Uint8Array(size).fill(120)));
  return { method: "POST", body, duplex: "half" };
}

Deno.test("body: one of the longest size passes whole", async () => {
  const { ask } = sceneOf({ maxBodyBytes: LIMIT });
  const body = "é".repeat(LIMIT / 2);
  assert.equal(await (await ask("/echo", { method: "POST", body })).text(), body);
  const parts = await ask("/echo", chunked([LIMIT - 1, 1]));
  assert.equal(await parts.text(), "x".repeat(LIMIT));
});

Deno.test("body: one byte more is 413, whatever the header says", async () => {
  const { ask } = sceneOf({ maxBodyBytes: LIMIT });
  const whole = { method: "POST", body: "x".repeat(LIMIT + 1) };
  const lying = { ...chunked([LIMIT, 1]), headers: { "content-length": "5" } };
  const declared = { ...chunked([1]), headers: { "content-length": String(LIMIT + 1) } };
  for (const init of [whole, chunked([LIMIT, 1]), lying, declared]) {
    const response = await ask("/echo", init);
    assert.equal(response.status, 413);
    assert.equal((await jsonOf(response)).error.code, "body_too_large");
  }
});

Deno.test("body: one that declares too much is not read at all", async () => {
  const { ask } = sceneOf({ maxBodyBytes: LIMIT });
  let pulled = 0;
  const body = new ReadableStream({
    pull(controller) {
      pulled++;
      controller.enqueue(new Uint8Array(1));
    },
  }, { highWaterMark: 0 });
  const headers = { "content-length": "100000" };
  const init = { method: "POST", body, headers, duplex: "half" } as RequestInit;
  assert.equal((await ask("/echo", init)).status, 413);
  assert.equal(pulled, 0);
});

Deno.test("body: one that dribbles is given up with 408", async () => {
  const { ask } = sceneOf({ bodyTimeoutMs: 30 });
  let isCancelled = false;
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new Uint8Array(1));
    },
    cancel() {
      isCancelled = true;
    },
  });
  const response = await ask("/echo", { method: "POST", body, duplex: "half" } as RequestInit);
  assert.equal(response.status, 408);
  assert.equal((await jsonOf(response)).error.code, "body_too_slow");
  assert.ok(isCancelled);
});

Deno.test("body: one that breaks off is the client's fault, not ours", async () => {
  const { ask, logged } = sceneOf();
  const body = new ReadableStream({
    pull(controller) {
      controller.error(new TypeError("the connection was reset"));
    },
  });
  const response = await ask("/echo", { method: "POST", body, duplex: "half" } as RequestInit);
  assert.equal(response.status, 400);
  assert.equal((await jsonOf(response)).error.code, "body_broken_off");
  assert.deepEqual(logged.map(({ event, level }) => [event, level]), [["request", "warn"]]);
});

Deno.test("body: prompts are in the log only when that was asked for", async () => {
  const prompt = "something private";
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: prompt }] }),
  };
  for (const path of ["/echo", "/v1/chat/completions", "/nothing"]) {
    const silent = sceneOf();
    await silent.ask(path, init);
    await silent.ask(`${path}?prompt=${encodeURIComponent(prompt)}`, init);
    assert.equal(silent.logged.length, 2);
    assert.doesNotMatch(JSON.stringify(silent.logged), /private/);
  }
  const talking = sceneOf({ logPrompts: true });
  await talking.ask("/echo", init);
  assert.equal(talking.logged[0].body, init.body);
});
