/** Clients that send a byte now and then, or do not read what they asked for. */
import assert from "node:assert/strict";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { until, untilIdle } from "../server_state.ts";

const CLIENTS = 200;

interface Client {
  socket: net.Socket;
  /** What it was answered. */
  text: () => string;
  closed: Promise<void>;
}

function connect(url: string, first: string): Promise<Client> {
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname);
  let text = "";
  socket.setEncoding("utf8").on("data", (part: string) => text += part);
  // The server may cut the line while we write: that is an end like any other.
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.write(first);
      resolve({ socket, text: () => text, closed });
    });
  });
}

function head(url: string, length: number): string {
  return `POST /v1/chat/completions HTTP/1.1\r\nHost: ${new URL(url).host}\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;
}

async function isServed(url: string): Promise<void> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model: "story",
      messages: [{ role: "user", content: "A dog." }],
      max_tokens: 2,
    }),
  });
  assert.equal(response.status, 200, await response.text());
}

async function drip(clients: readonly Client[], byte: string): Promise<void> {
  for (let i = 0; i < 5; i++) {
    for (const { socket } of clients) if (!socket.destroyed) socket.write(byte);
    await sleep(20);
  }
}

async function leave(clients: readonly Client[]): Promise<void> {
  for (const { socket } of clients) socket.destroy();
  await Promise.all(clients.map(({ closed }) => closed));
}

Deno.test("slow clients: heads and bodies that never end keep nobody from being served", async (t) => {
  await using server = await ServerProcess.start({
    args: ["--threads", "1", "--body-seconds", "1"],
  });
  const { url } = server;
  const open = (first: string) =>
    Promise.all(Array.from({ length: CLIENTS }, () => connect(url, first)));
  await t.step("heads", async () => {
    const clients = await open("POST /v1/chat/completions HTTP/1.1\r\nX-Slow: ");
    await drip(clients, "a");
    await isServed(url);
    await leave(clients);
  });
  await t.step("bodies, which are refused after a time", async () => {
    const clients = await open(head(url, 1000));
    await drip(clients, " ");
    await isServed(url);
    for (let i = 0; i < 500 && clients.some(({ text }) => text() === ""); i++) await sleep(20);
    for (const { text } of clients) assert.match(text(), /^HTTP\/1\.1 408 /);
    await leave(clients);
  });
  await t.step("bodies whose clients leave", async () => {
    const clients = await open(head(url, 1000));
    await drip(clients.slice(0, 10), "{");
    await leave(clients);
    await isServed(url);
  });
  await untilIdle(url);
  assert.ok(server.isRunning, server.output);
});

Deno.test("slow clients: who does not read holds up nobody else, and leaves nothing", async () => {
  await using server = await ServerProcess.start({ args: ["--threads", "1", "--ctx", "65536"] });
  const { url } = server;
  const body = JSON.stringify({
    model: "story",
    messages: [{ role: "user", content: "A dog." }],
    max_tokens: 15_000,
    ignore_eos: true,
    stream: true,
  });
  const clients = await Promise.all(
    Array.from({ length: 4 }, () => connect(url, head(url, body.length) + body)),
  );
  for (const { socket } of clients) socket.pause();
  await until(url, ({ running }) => running === 4, "busy");
  for (let i = 0; i < 20; i++) await isServed(url);
  await leave(clients);
  await untilIdle(url);
});
