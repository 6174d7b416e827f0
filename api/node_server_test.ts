import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { serveInNode } from "./node_server.ts";
import type { Fetch } from "./server.ts";

async function withServer(
  fetch: Fetch,
  use: (port: number) => Promise<void>,
  headTimeoutMs?: number,
): Promise<void> {
  const server = await serveInNode({ host: "127.0.0.1", port: 0 }, fetch, headTimeoutMs);
  assert.ok("port" in server.place);
  try {
    await use(server.place.port);
  } finally {
    await server.abort();
  }
}

/** All that comes back, until the connection ends. */
function raw(port: number, text: string): Promise<string> {
  const socket = net.connect(port, "127.0.0.1", () => socket.write(text));
  let answer = "";
  return new Promise((resolve) => {
    socket.setEncoding("utf8").on("data", (part: string) => answer += part);
    socket.on("error", () => {});
    socket.once("close", () => resolve(answer));
  });
}

for (const [name, size] of [["short", 3], ["longer", 5_000], ["long", 500_000]] as const) {
  Deno.test(`node server: who leaves before the answer to a ${name} request is noticed`, async () => {
    const arrived = Promise.withResolvers<void>();
    const left = Promise.withResolvers<void>();
    const fetch: Fetch = async (request) => {
      assert.equal((await request.text()).length, size);
      request.signal.addEventListener("abort", () => left.resolve());
      arrived.resolve();
      await left.promise;
      return new Response("nobody reads it");
    };
    await withServer(fetch, async (port) => {
      const request = http.request({ port, host: "127.0.0.1", method: "POST", agent: false });
      request.on("error", () => {});
      request.end("a".repeat(size));
      await arrived.promise;
      request.destroy();
      await left.promise;
    });
  });
}

Deno.test("node server: an answer that was read whole aborts nothing", async () => {
  let aborted = 0;
  const fetch: Fetch = (request) => {
    request.signal.addEventListener("abort", () => aborted++);
    return new Response("x", { headers: { "content-type": "text/event-stream" } });
  };
  await withServer(fetch, async (port) => {
    const close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert.match(await raw(port, close), /\r\n\r\n1\r\nx\r\n0\r\n\r\n$/);
  });
  assert.equal(aborted, 0);
});

Deno.test("node server: a body that nobody reads does not hold up the next request", async () => {
  const fetch: Fetch = async (request) => {
    if (request.method === "PUT") await request.body!.cancel();
    return new Response(request.method);
  };
  await withServer(fetch, async (port) => {
    for (const method of ["POST", "PUT"]) {
      const big = `${method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n`;
      const next = "DELETE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
      const text = await raw(port, big + "a".repeat(2_000_000) + next);
      assert.match(text, new RegExp(`\r\n\r\n${method}HTTP/1.1 200 [^]*DELETE$`));
    }
  });
});

Deno.test("node server: heads that do not end are given up", async () => {
  await withServer(() => new Response("x"), async (port) => {
    assert.match(await raw(port, "GET / HTTP/1.1\r\nX: "), /^HTTP\/1\.1 408 /);
  }, 120);
});

Deno.test("node server: lengths are told, and HEAD has one without a body", async () => {
  const fetch: Fetch = ({ method }) =>
    method === "DELETE" ? new Response(null, { status: 204 }) : new Response("four");
  await withServer(fetch, async (port) => {
    const ask = (method: string) =>
      raw(port, `${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    assert.match(await ask("GET"), /content-length: 4\r\n[^]*\r\n\r\nfour$/i);
    assert.match(await ask("HEAD"), /content-length: 4\r\n[^]*\r\n\r\n$/i);
    assert.doesNotMatch(await ask("DELETE"), /content-length/i);
  });
});

Deno.test("node server: a stream that breaks is cut off, so that nobody takes it for whole", async () => {
  const fetch: Fetch = () => {
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
      pull: (controller) => controller.error(new Error("broken")),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  await withServer(fetch, async (port) => {
    const text = await raw(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.doesNotMatch(text, /\r\n0\r\n\r\n$/);
  });
});
