/** `trilith serve` from the outside: sockets, signals, exit codes. */
import assert from "node:assert/strict";
import { startServe } from "./serve_process.ts";

Deno.test("serve: listens, answers, and ends with 0 on SIGTERM", async () => {
  const server = await startServe();
  const response = await fetch(`${server.url}/health`);
  assert.deepEqual(await response.json(), { status: "ok" });
  server.signal("SIGTERM");
  const { code, stdout } = await server.ended;
  assert.equal(code, 0);
  assert.deepEqual(Object.keys(JSON.parse(stdout)), ["url", "host", "port", "model"]);
});
