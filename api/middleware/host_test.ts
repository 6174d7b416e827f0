import assert from "node:assert/strict";
import { hostnameOf, hostPredicate } from "./host.ts";
import { jsonOf, sceneOf } from "./test_helpers.ts";

Deno.test("host: a name that was made to point here is refused", async () => {
  const { ask } = sceneOf();
  for (
    const host of [
      "evil.example",
      "evil.example:8080",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "192.0.2.7",
      "",
    ]
  ) {
    const response = await ask("/version", { headers: { host } });
    assert.equal(response.status, 403, host);
    assert.equal((await jsonOf(response)).error.code, "host_not_allowed");
  }
});

Deno.test("host: this machine's names and addresses are answered", async () => {
  const { ask } = sceneOf();
  const hosts = [
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "a.localhost",
    "127.0.0.1:1",
    "[::1]:8080",
  ];
  for (const host of hosts) {
    assert.equal((await ask("/version", { headers: { host } })).status, 200, host);
  }
});

Deno.test("host: other names are answered when they are allowed", () => {
  const isAllowed = hostPredicate({
    allowed: ["Example.org", ".lan"],
    bound: "192.0.2.7",
  });
  for (const name of ["example.org", "printer.lan", "192.0.2.7", "localhost"]) {
    assert.ok(isAllowed(hostnameOf(name)), name);
  }
  for (const name of ["www.example.org", "lan", "evillan", "192.0.2.8"]) {
    assert.ok(!isAllowed(hostnameOf(name)), name);
  }
});

Deno.test("host: a server on all addresses answers for all addresses, but not for names", () => {
  for (const bound of ["0.0.0.0", "::"]) {
    const isAllowed = hostPredicate({ allowed: [], bound });
    assert.ok(isAllowed("192.0.2.7"));
    assert.ok(isAllowed("2001:db8::1"));
    assert.ok(!isAllowed("evil.example"));
  }
});

Deno.test("host: a Unix socket, and *, take every name", () => {
  assert.ok(hostPredicate({ allowed: [], bound: null })("any.example"));
  assert.ok(hostPredicate({ allowed: ["*"], bound: "127.0.0.1" })("any.example"));
});
