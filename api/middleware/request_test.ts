/** Request ids, headers, the log, and what is answered where no route is. */
import assert from "node:assert/strict";
import { createLog, logUnhandled } from "../log.ts";
import { jsonOf, sceneOf } from "./test_helpers.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;

Deno.test("request id: taken if it is sane, made otherwise, and in the log", async () => {
  const { ask, logged } = sceneOf();
  const headers = { "x-request-id": "proxy-1:a.b_c" };
  assert.equal((await ask("/version", { headers })).headers.get("x-request-id"), "proxy-1:a.b_c");
  assert.equal(logged[0].requestId, "proxy-1:a.b_c");
  for (const id of ["a b", 'a"b', "x".repeat(129), "a%20b"]) {
    const response = await ask("/nothing", { headers: { "x-request-id": id } });
    assert.match(response.headers.get("x-request-id")!, UUID, id);
  }
});

Deno.test("headers: every answer has the secure ones, and pages their own policy", async () => {
  const { ask } = sceneOf();
  for (const path of ["/version", "/nothing", "/fail", "/health", "/docs", "/"]) {
    const { headers } = await ask(path);
    assert.equal(headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(headers.get("x-frame-options"), "DENY", path);
    assert.match(headers.get("content-security-policy")!, /^default-src 'none'/, path);
  }
  const { headers } = await ask("/docs");
  assert.match(headers.get("content-security-policy")!, /style-src 'sha256-/);
});

Deno.test("access log: route, status, time, client; not the path or the query", async () => {
  const { ask, logged } = sceneOf();
  await ask("/v1/models/some-secret-name?key=hidden", { client: "192.0.2.9" });
  const [{ time, ms, requestId, ...entry }] = logged;
  assert.match(String(time), /^\d{4}-.*Z$/);
  assert.equal(typeof ms, "number");
  assert.match(String(requestId), UUID);
  assert.equal(entry.client, "192.0.2.9");
  assert.match(String(entry.route), /^\/v1\/models\/:/);
  assert.doesNotMatch(JSON.stringify(entry), /secret|hidden/);
});

Deno.test("errors: ours are in the log with their stack, and not in the answer", async () => {
  const { ask, logged } = sceneOf();
  const response = await ask("/fail");
  assert.equal(response.status, 500);
  assert.doesNotMatch(await response.text(), /secret/);
  const [failure, request] = logged;
  assert.match(String(failure.error), /^TypeError: a secret of ours\n\s+at /);
  assert.equal(failure.requestId, request.requestId);
  assert.equal(request.level, "error");
});

Deno.test("errors: 404 and 405 are JSON, 405 with what is allowed", async () => {
  const { ask } = sceneOf();
  const missing = await ask("/v1/nothing");
  assert.equal(missing.status, 404);
  assert.equal((await jsonOf(missing)).error.type, "not_found_error");
  assert.equal(typeof (await jsonOf(await ask("/api/nothing"))).error, "string");
  assert.equal((await jsonOf(await ask("/v1/messages/x/y"))).type, "error");
  const wrong = await ask("/v1/chat/completions");
  assert.equal(wrong.status, 405);
  assert.equal(wrong.headers.get("allow"), "POST");
  assert.equal((await ask("/version", { method: "DELETE" })).headers.get("allow"), "GET, HEAD");
  assert.equal((await ask("/version", { method: "HEAD" })).status, 200);
});

Deno.test("log: text lines can't be forged, levels are kept", () => {
  let text = "";
  const log = createLog({
    format: "text",
    level: "info",
    write: (line) => text += line,
    now: () => new Date(0),
  });
  log("debug", "hidden");
  log("warn", "request", { route: "/a", client: 'x\n1970 info fake="1"', ms: 1.5, none: null });
  assert.equal(
    text,
    '1970-01-01T00:00:00.000Z warn request route=/a client="x\\n1970 info fake=\\"1\\"" ms=1.5\n',
  );
});

Deno.test("log: an error that nobody waits for is logged, and ends nothing", async () => {
  // Waits for the line itself: after a fixed time a slow machine may not have told the listener yet.
  const { promise: line, resolve } = Promise.withResolvers<string>();
  using _ = logUnhandled(createLog({ format: "json", level: "info", write: resolve }));
  Promise.reject(new TypeError("forgotten"));
  const { event, error } = JSON.parse(await line);
  assert.equal(event, "unhandled");
  assert.match(error, /^TypeError: forgotten\n/);
});
