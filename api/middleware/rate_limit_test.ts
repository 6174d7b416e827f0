import assert from "node:assert/strict";
import { TokenBuckets } from "./rate_limit.ts";
import { jsonOf, sceneOf } from "./test_helpers.ts";

Deno.test("rate limit: buckets fill evenly, and hold a minute's worth", () => {
  let now = 0;
  const buckets = new TokenBuckets(6, () => now);
  for (let i = 0; i < 6; i++) assert.equal(buckets.take("a"), 0);
  assert.equal(buckets.take("a"), 10_000);
  assert.equal(buckets.take("b"), 0, "each has its own");
  now = 4_000;
  assert.equal(Math.round(buckets.take("a")), 6_000);
  now = 10_000;
  assert.equal(buckets.take("a"), 0);
  assert.ok(buckets.take("a") > 0);
  now = 10_000_000;
  for (let i = 0; i < 6; i++) assert.equal(buckets.take("a"), 0);
  assert.ok(buckets.take("a") > 0, "a long pause is worth no more than a minute");
});

Deno.test("rate limit: clients that are gone are forgotten", () => {
  let now = 0;
  const buckets = new TokenBuckets(6, () => now);
  for (let i = 0; i < 10_000; i++) {
    buckets.take(`client ${i}`);
    now += 100;
  }
  assert.ok(buckets.size <= 1_100, `${buckets.size} are remembered`);
});

Deno.test("rate limit: 429 says when to come back, an address has its own limit", async () => {
  const { ask } = sceneOf({ requestsPerMinute: 2 });
  assert.equal((await ask("/version")).status, 200);
  // Without keys to check, a header can't buy another bucket.
  assert.equal((await ask("/version", { headers: { "x-api-key": "new" } })).status, 200);
  const response = await ask("/version", { headers: { "x-api-key": "newer" } });
  assert.equal(response.status, 429);
  assert.equal(response.headers.get("retry-after"), "30");
  assert.equal((await jsonOf(response)).error.type, "rate_limit_error");
  assert.equal((await ask("/version", { client: "192.0.2.2" })).status, 200);
  assert.notEqual((await ask("/health")).status, 429);
});

Deno.test("rate limit: a key has its own limit, from whatever address", async () => {
  const { ask } = sceneOf({ requestsPerMinute: 1, apiKeys: ["a", "b"] });
  const as = (key: string, client: string) =>
    ask("/version", { headers: { "x-api-key": key }, client });
  assert.equal((await as("a", "192.0.2.1")).status, 200);
  assert.equal((await as("a", "192.0.2.2")).status, 429);
  assert.equal((await as("b", "192.0.2.1")).status, 200);
});
