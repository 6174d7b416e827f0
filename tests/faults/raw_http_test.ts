/** What no client library sends. */
import assert from "node:assert/strict";
import net from "node:net";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { greedyText } from "./requests.ts";

/** Sends bytes as they are, and returns all that comes back until the connection ends or is silent. */
function exchange(url: string, request: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname, () => socket.write(request, "latin1"));
  let text = "";
  return new Promise((resolve) => {
    // What is answered without an end of the connection is answered at once.
    socket.setTimeout(300, () => socket.destroy());
    socket.setEncoding("utf8").on("data", (part: string) => text += part);
    socket.on("error", () => {});
    socket.once("close", () => resolve(text));
  });
}

const CHAT = "/v1/chat/completions";
const BODY = '{"messages":[{"role":"user","content":"A dog."}],"max_tokens":1}';
const JSON_HEAD = "Content-Type: application/json\r\n";

function post(headers: string, body: string): string {
  return `POST ${CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${JSON_HEAD}${headers}\r\n${body}`;
}

function ask(method: string, path: string, more = ""): string {
  return `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${more}\r\n`;
}

const whole = post(`Content-Length: ${BODY.length}\r\n`, BODY);
const chunks = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`;

/** A request and how its answer begins; empty: the connection may be cut without one. */
const CASES: [name: string, request: string, answer: RegExp][] = [
  ["a sound request", whole, /^HTTP\/1\.1 200 /],
  ["a sound one in chunks", post("Transfer-Encoding: chunked\r\n", chunks), /^HTTP\/1\.1 200 /],
  ["TRACE", ask("TRACE", CHAT, `Content-Length: 2\r\n${JSON_HEAD}`) + "{}", /^HTTP\/1\.1 405 /],
  ["TRACE of nothing", ask("TRACE", "/nothing"), /^HTTP\/1\.1 405 /],
  ["PROPFIND", ask("PROPFIND", CHAT), /^HTTP\/1\.1 405 /],
  ["CONNECT", ask("CONNECT", "example.org:443"), /^(HTTP\/1\.1 4|$)/],
  ["an invented method", ask("BREW", CHAT), /^HTTP\/1\.1 40[05] /],
  [
    "a foreign host",
    ask("GET", "/health").replace("localhost", "evil.example"),
    /^HTTP\/1\.1 403 /,
  ],
  ["no host", "GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["HTTP/1.0", "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", /^HTTP\/1\.[01] 200 /],
  ["no HTTP", "hello\r\n\r\n", /^(HTTP\/1\.1 400 |$)/],
  ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", /^(HTTP\/1\.1 400 |$)/],
  [
    "a broken chunk",
    post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
    /^(HTTP\/1\.1 4|$)/,
  ],
  ["a length that is none", post("Content-Length: -5\r\n", BODY), /^(HTTP\/1\.1 400 |$)/],
  [
    "two lengths",
    post(`Content-Length: 5\r\nContent-Length: ${BODY.length}\r\n`, BODY),
    /^(HTTP\/1\.1 400 |$)/,
  ],
  ["a body beyond the limit", post("Content-Length: 999999999999\r\n", "{"), /^HTTP\/1\.1 413 /],
  [
    "a head beyond all limits",
    ask("GET", "/health", `X: ${"a".repeat(2_000_000)}\r\n`),
    /^(HTTP\/1\.1 4|$)/,
  ],
  ["broken escapes", ask("GET", "/v1/models/%zz%ff"), /^HTTP\/1\.1 4\d\d /],
  ["dots", ask("GET", "/web/../../../etc/passwd"), /^HTTP\/1\.1 404 /],
  ["escaped dots", ask("GET", "/web/%2e%2e%2f%2e%2e%2fcli.ts"), /^HTTP\/1\.1 404 /],
];

Deno.test("raw HTTP: nonsense is refused, and never a failure of the server", async (t) => {
  await using server = await ServerProcess.start({ args: ["--threads", "1"] });
  for (const [name, request, answer] of CASES) {
    await t.step(name, async () => {
      const text = await exchange(server.url, request);
      assert.match(text, answer);
      assert.doesNotMatch(text, /^HTTP\/1\.1 5/);
    });
  }
  await t.step("and it serves on", async () => {
    assert.ok((await greedyText(server.url)).length > 10);
    assert.doesNotMatch(server.output, / error (failure|request) /);
  });
});
