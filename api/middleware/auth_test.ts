import assert from "node:assert/strict";
import { digestOf, isOneOf } from "./auth.ts";
import { jsonOf, sceneOf } from "./test_helpers.ts";

const KEYS = ["first-key", "second-key"];

Deno.test("auth: any of the keys opens, in either header", async () => {
  const { ask } = sceneOf({ apiKeys: KEYS });
  for (const key of KEYS) {
    for (const headers of headersOf(key)) {
      assert.equal((await ask("/version", { headers })).status, 200);
    }
  }
});

/** The ways to send a key. */
function headersOf(key: string): Record<string, string>[] {
  return [
    { authorization: `Bearer ${key}` },
    { authorization: `bearer  ${key} ` },
    { "x-api-key": key },
  ];
}

Deno.test("auth: without a key, or with another, there is 401 and a challenge", async () => {
  const { ask } = sceneOf({ apiKeys: KEYS });
  const wrong = ["first-ke", "first-key2", "FIRST-KEY", "first-key,second-key", ""];
  const headers = [{}, ...wrong.flatMap(headersOf), { authorization: "Basic first-key" }];
  for (const given of headers) {
    const response = await ask("/version", { headers: given });
    assert.equal(response.status, 401, JSON.stringify(given));
    assert.match(response.headers.get("www-authenticate")!, /^Bearer realm="trilith"/);
    assert.equal((await jsonOf(response)).error.type, "authentication_error");
  }
});

Deno.test("auth: 401 comes in the dialect's shape", async () => {
  const { ask } = sceneOf({ apiKeys: KEYS });
  const post = { method: "POST", body: "{}" };
  const anthropic = await jsonOf(await ask("/v1/messages", post));
  assert.equal(anthropic.type, "error");
  assert.equal(anthropic.error.type, "authentication_error");
  const ollama = await jsonOf(await ask("/api/chat", post));
  assert.equal(typeof ollama.error, "string");
});

Deno.test("auth: every route asks for a key, but health and the pages", async () => {
  const { app, ask } = sceneOf({ apiKeys: KEYS });
  const open = ["/health", "/v1/health", "/", "/docs", "/openapi.json"];
  const routes = app.routes.filter(({ method }) => method !== "ALL");
  const paths = new Set(routes.map(({ path }) => path));
  assert.ok(paths.size > 10);
  for (const { path, method } of routes) {
    const isOpen = open.includes(path) || path.startsWith("/web/");
    const response = await ask(path.replaceAll(/:\w+(\{.*\})?/g, "x"), { method });
    await response.body?.cancel();
    assert.equal(response.status !== 401, isOpen, `${method} ${path}`);
  }
  for (const path of ["/nothing", "/health/../props", "/HEALTH", "//health", "/docs/x"]) {
    assert.equal((await ask(path)).status, 401, path);
  }
});

Deno.test("auth: all keys are compared, as digests of one length", () => {
  const digests = KEYS.map(digestOf);
  assert.ok(digests.every((digest) => digest.length === 32));
  // timingSafeEqual throws for other lengths, so whatever is given must become a digest as well.
  for (const given of ["", "x", "x".repeat(10_000)]) assert.equal(isOneOf(given, digests), false);
  assert.equal(isOneOf(KEYS[0], digests), true);
  assert.equal(isOneOf(KEYS[1], digests), true);
  // A match does not end the search, whose length would tell which key it was.
  let compared = 0;
  const watched = new Proxy(digests, {
    get(target, name) {
      if (name === "0" || name === "1") compared++;
      return Reflect.get(target, name);
    },
  });
  assert.equal(isOneOf(KEYS[0], watched), true);
  assert.equal(compared, 2);
});

Deno.test("auth: the log has a key's fingerprint, and never the key", async () => {
  const { ask, logged } = sceneOf({ apiKeys: KEYS });
  await ask("/version", { headers: { "x-api-key": KEYS[0] } });
  await ask("/version", { headers: { "x-api-key": KEYS[1] } });
  await ask("/version", { headers: { "x-api-key": "wrong-key" } });
  const [first, second, wrong] = logged;
  assert.match(String(first.key), /^[0-9a-f]{8}$/);
  assert.notEqual(first.key, second.key);
  assert.equal(wrong.key, undefined);
  assert.doesNotMatch(JSON.stringify(logged), /-key"/);
});
