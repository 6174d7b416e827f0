import assert from "node:assert/strict";
import { isAllowedOrigin } from "./cors.ts";
import { sceneOf } from "./test_helpers.ts";

const ORIGIN = "https://app.example";

function preflight(origin: string): RequestInit {
  return {
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type",
    },
  };
}

Deno.test("cors: off by default", async () => {
  const { ask } = sceneOf();
  const response = await ask("/version", { headers: { origin: ORIGIN } });
  assert.equal(response.headers.get("access-control-allow-origin"), null);
  const asked = await ask("/v1/chat/completions", preflight(ORIGIN));
  assert.equal(asked.status, 405);
  assert.equal(asked.headers.get("access-control-allow-origin"), null);
});

Deno.test("cors: a preflight needs no key, and says what is allowed", async () => {
  const { ask } = sceneOf({ corsOrigins: [ORIGIN], apiKeys: ["key"] });
  const { status, headers } = await ask("/v1/chat/completions", preflight(ORIGIN));
  assert.equal(status, 204);
  assert.equal(headers.get("access-control-allow-origin"), ORIGIN);
  assert.match(headers.get("access-control-allow-methods")!, /POST/);
  assert.equal(headers.get("access-control-allow-headers"), "authorization,content-type");
  assert.match(headers.get("vary") ?? "", /origin/i);
});

Deno.test("cors: another origin gets no permission", async () => {
  const { ask } = sceneOf({ corsOrigins: [ORIGIN] });
  for (const origin of ["https://evil.example", "http://app.example", "null"]) {
    const { headers } = await ask("/v1/chat/completions", preflight(origin));
    assert.equal(headers.get("access-control-allow-origin"), null, origin);
  }
});

Deno.test("cors: errors can be read by the origin, with their request id", async () => {
  const { ask } = sceneOf({ corsOrigins: [ORIGIN], apiKeys: ["key"] });
  const { status, headers } = await ask("/version", { headers: { origin: ORIGIN } });
  assert.equal(status, 401);
  assert.equal(headers.get("access-control-allow-origin"), ORIGIN);
  assert.match(headers.get("access-control-expose-headers")!, /x-request-id/);
});

Deno.test("cors: localhost is this machine on any port", () => {
  for (const origin of ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:3000"]) {
    assert.ok(isAllowedOrigin(origin, ["localhost"]), origin);
  }
  for (const origin of ["http://localhost.evil.example", "null", "https://evil.example"]) {
    assert.ok(!isAllowedOrigin(origin, ["localhost"]), origin);
  }
  assert.ok(isAllowedOrigin("null", ["*"]));
});
