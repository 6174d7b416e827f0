/**
 * `node:http` for handlers of requests and responses. Deno.serve would be shorter, but until a
 * response begins it does not look at its connection any more once a request is longer than some 400
 * bytes: who waits for a whole answer and leaves would be computed for to the end.
 */
import http from "node:http";
import type { AddressInfo } from "node:net";
import { errorBodyOf } from "./error_shapes.ts";
import { ApiError } from "./errors.ts";
import { isStream } from "./middleware/running.ts";
import type { Place } from "./place.ts";
import type { Fetch, RunningServer } from "./server.ts";
import { OneATurn } from "./turns.ts";

/** A whole request head must be there after so long. */
const HEAD_TIMEOUT_MS = 30_000;
/** Longer than proxies and clients keep their idle connections, so that none is cut at its reuse. */
const IDLE_TIMEOUT_MS = 120_000;

export async function serveInNode(
  place: Place,
  fetch: Fetch,
  headTimeoutMs = HEAD_TIMEOUT_MS,
): Promise<RunningServer> {
  const turns = new OneATurn();
  const options = { connectionsCheckingInterval: headTimeoutMs / 6 };
  const server = http.createServer(options, (incoming, outgoing) => {
    answer(incoming, outgoing, { fetch, turns }).catch(() => outgoing.destroy());
  });
  server.headersTimeout = headTimeoutMs;
  server.keepAliveTimeout = IDLE_TIMEOUT_MS;
  // Bodies have their time from the middleware, which also says so.
  server.requestTimeout = 0;
  await listening(server, place);
  const closed = new Promise<void>((resolve) => server.once("close", () => resolve()));
  return {
    place: "socket" in place ? place : { ...place, port: (server.address() as AddressInfo).port },
    async stop() {
      server.close();
      server.closeIdleConnections();
      await closed;
    },
    async abort() {
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function listening(server: http.Server, place: Place): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen("socket" in place ? { path: place.socket } : place, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

async function answer(
  incoming: http.IncomingMessage,
  outgoing: http.ServerResponse,
  { fetch, turns }: { fetch: Fetch; turns: OneATurn },
): Promise<void> {
  const gone = new AbortController();
  outgoing.once("close", () => {
    if (!outgoing.writableFinished) gone.abort(new DOMException("The client left", "AbortError"));
  });
  await turns.take();
  const request = requestOf(incoming, gone.signal);
  if (request === null) return refuse(incoming, outgoing);
  const response = await fetch(request, { remoteAddress: addressOf(incoming) });
  await send(response, outgoing, incoming.method === "HEAD");
  dropRest(incoming);
}

/** Methods of which Fetch makes no request. */
const FORBIDDEN_METHODS = ["TRACE", "CONNECT"];

function refuse({ method = "", url = "" }: http.IncomingMessage, outgoing: http.ServerResponse) {
  const failure = FORBIDDEN_METHODS.includes(method)
    ? new ApiError(405, "invalid_request_error", `Nothing can be asked with ${method} here`, {
      code: "method_not_allowed",
    })
    : new ApiError(
      400,
      "invalid_request_error",
      "This is no HTTP request: send a path and headers",
    );
  const body = JSON.stringify(errorBodyOf(url, failure));
  const headers = { Connection: "close", "Content-Type": "application/json" };
  outgoing.writeHead(failure.status, headers).end(body);
}

/** IPv4 in its own form, also where the socket is for both. */
function addressOf({ socket: { remoteAddress } }: http.IncomingMessage): string {
  return remoteAddress?.replace(/^::ffff:(?=[\d.]+$)/, "") ?? "unix";
}

/** Null for a method, path, host or header of which none can be made. */
function requestOf(incoming: http.IncomingMessage, signal: AbortSignal): Request | null {
  const { method = "", url = "", rawHeaders, headers: { host = "localhost" } } = incoming;
  if (!url.startsWith("/")) return null;
  try {
    const headers = new Headers();
    for (let i = 0; i < rawHeaders.length; i += 2) headers.append(rawHeaders[i], rawHeaders[i + 1]);
    return new Request(`http://${host}${url}`, {
      method,
      headers,
      signal,
      ...bodyOf(incoming),
    });
  } catch {
    return null;
  }
}

function bodyOf(incoming: http.IncomingMessage): RequestInit {
  const { "content-length": length, "transfer-encoding": coding } = incoming.headers;
  const isThere = coding !== undefined || (length !== undefined && length !== "0");
  if (!isThere || incoming.method === "GET" || incoming.method === "HEAD") return {};
  // Bun and Node want to be told that the answer may begin before the body ends.
  return { body: streamOf(incoming), duplex: "half" } as RequestInit;
}

/** Cancelling it leaves the connection as it is: the answer is still to be sent on it. */
function streamOf(incoming: http.IncomingMessage): ReadableStream<Uint8Array> {
  let isOver = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const end = (how: () => void) => () => {
        if (!isOver) how();
        isOver = true;
      };
      incoming.on("data", (chunk: Uint8Array) => {
        if (isOver) return;
        controller.enqueue(new Uint8Array(chunk));
        incoming.pause();
      });
      incoming.once("end", end(() => controller.close()));
      const broken = end(() => controller.error(new TypeError("The body broke off")));
      incoming.once("error", broken).once("close", broken);
      incoming.pause();
    },
    pull() {
      incoming.resume();
    },
    cancel() {
      isOver = true;
    },
  }, { highWaterMark: 0 });
}

/** What is left of a body that was not wanted has so long to come. */
const REST_MS = 5_000;

/** The next request of this connection comes after all of the body: it is read and dropped. */
function dropRest(incoming: http.IncomingMessage): void {
  if (incoming.complete) return;
  const timer = setTimeout(() => incoming.destroy(), REST_MS);
  incoming.once("close", () => clearTimeout(timer)).once("end", () => clearTimeout(timer));
  incoming.removeAllListeners("data").on("data", () => {}).resume();
}

async function send(
  response: Response,
  outgoing: http.ServerResponse,
  isHead: boolean,
): Promise<void> {
  const { status, body } = response;
  const headers = Object.fromEntries(response.headers);
  if (body !== null && isStream(response) && !isHead) {
    outgoing.writeHead(status, headers).flushHeaders();
    return await pipe(body, outgoing);
  }
  const bytes = new Uint8Array(await response.arrayBuffer());
  const length = status === 204 || status === 304 ? {} : { "content-length": bytes.length };
  outgoing.writeHead(status, { ...headers, ...length }).end(isHead ? undefined : bytes);
}

/** As fast as the client reads, and no longer than it is there. */
async function pipe(
  body: ReadableStream<Uint8Array>,
  outgoing: http.ServerResponse,
): Promise<void> {
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => {});
  if (outgoing.destroyed) return cancel();
  outgoing.once("close", cancel);
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    if (!outgoing.write(read.value)) await drained(outgoing);
  }
  outgoing.off("close", cancel);
  outgoing.end();
}

function drained(outgoing: http.ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      outgoing.off("drain", go).off("close", go);
      resolve();
    };
    outgoing.once("drain", go).once("close", go);
    if (outgoing.destroyed) go();
  });
}
