/** A socket, and what answers on it: Deno and Bun behind one small seam. */
import { serveInNode } from "./node_server.ts";
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
    const server = "Bun" in globalThis ? serveInBun(place, fetch) : await serveInNode(place, fetch);
    return "socket" in place ? withSocket(server, place.socket) : server;
  } catch (error) {
    throw asListenError(error, place);
  }
}

/** Only its owner may connect, and it is gone when the server is. */
function withSocket(server: RunningServer, socket: string): RunningServer {
  keepToOwner(socket);
  const stop = async (how: "stop" | "abort") => {
    await server[how]();
    removeSocket(socket);
  };
  return { place: server.place, stop: () => stop("stop"), abort: () => stop("abort") };
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

/** Seconds of silence between requests. A head has 12 s (measured). */
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
    stop: () => server.stop(),
    abort: () => server.stop(true),
  };
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
