/** A socket, and what answers on it: Deno and Bun behind one small seam. */
import { ListenError, type Place } from "./place.ts";
import { claimSocket, keepToOwner, removeSocket } from "./unix_socket.ts";

/** What the application is told of a connection: Hono's `c.env`. */
export interface ConnectionInfo {
  /** An address, or "unix". */
  remoteAddress: string;
}

export type Fetch = (request: Request, info: ConnectionInfo) => Response | Promise<Response>;

export interface RunningServer {
  /** Where it listens; a port that was 0 is the one that was found. */
  readonly place: Place;
  /** Takes no more connections, and waits for the requests that run. */
  stop(): Promise<void>;
  /** Cuts all connections. */
  abort(): Promise<void>;
}

/** @throws {ListenError} If the place is taken, or not ours. */
export async function startServer(place: Place, fetch: Fetch): Promise<RunningServer> {
  if ("socket" in place) await claimSocket(place.socket);
  try {
    const server = "Bun" in globalThis ? serveInBun(place, fetch) : serveInDeno(place, fetch);
    if ("socket" in place) keepToOwner(place.socket);
    return server;
  } catch (error) {
    throw asListenError(error, place);
  }
}

function serveInDeno(place: Place, fetch: Fetch): RunningServer {
  const aborter = new AbortController();
  const { signal } = aborter;
  const handler = (request: Request, info: Deno.ServeHandlerInfo) => {
    // Whoever needs to know of a client's leaving has the request's signal.
    info.completed.catch(() => {});
    const { remoteAddr } = info;
    const remoteAddress = "hostname" in remoteAddr ? remoteAddr.hostname : "unix";
    return fetch(request, { remoteAddress });
  };
  const onListen = () => {};
  const server = "socket" in place
    ? Deno.serve({ path: place.socket, signal, onListen }, handler)
    : Deno.serve({ hostname: place.host, port: place.port, signal, onListen }, handler);
  return {
    place: "socket" in place ? place : { ...place, port: (server.addr as Deno.NetAddr).port },
    async stop() {
      await server.shutdown();
      leave(place);
    },
    async abort() {
      aborter.abort();
      await server.finished;
      leave(place);
    },
  };
}

/** The little of Bun's API that is used. */
interface BunServer {
  readonly port: number;
  stop(closeActiveConnections?: boolean): Promise<void>;
  requestIP(request: Request): { address: string } | null;
  timeout(request: Request, seconds: number): void;
}

interface BunServeOptions {
  unix?: string;
  hostname?: string;
  port?: number;
  idleTimeout: number;
  fetch(request: Request, server: BunServer): Response | Promise<Response>;
}

/** Seconds of silence between requests. A head has 12 s in Bun (measured), and any time in Deno. */
const BUN_IDLE_SECONDS = 30;

function serveInBun(place: Place, fetch: Fetch): RunningServer {
  const { Bun } = globalThis as unknown as { Bun: { serve(options: BunServeOptions): BunServer } };
  const server = Bun.serve({
    ...("socket" in place ? { unix: place.socket } : { hostname: place.host, port: place.port }),
    idleTimeout: BUN_IDLE_SECONDS,
    fetch(request, server) {
      // A long prompt is silent for long; the middleware has limits of its own.
      server.timeout(request, 0);
      const address = "socket" in place ? null : server.requestIP(request)?.address;
      return fetch(request, { remoteAddress: address ?? "unix" });
    },
  });
  return {
    place: "socket" in place ? place : { ...place, port: server.port },
    async stop() {
      await server.stop();
      leave(place);
    },
    async abort() {
      await server.stop(true);
      leave(place);
    },
  };
}

function leave(place: Place): void {
  if ("socket" in place) removeSocket(place.socket);
}

function asListenError(error: unknown, place: Place): unknown {
  const { name, code, message } = error as { name?: string; code?: string; message?: string };
  if (name === "NotCapable") return error;
  const where = "socket" in place ? place.socket : `${place.host}:${place.port}`;
  const isTaken = name === "AddrInUse" || code === "EADDRINUSE";
  const why = isTaken
    ? "somebody listens there already: give another --port, or 0 for any"
    : `${message}: give another ${"socket" in place ? "--socket" : "--host or --port"}`;
  return new ListenError(`Cannot listen on ${where}: ${why}`, { cause: error });
}
