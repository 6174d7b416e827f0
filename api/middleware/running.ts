import type { MiddlewareHandler } from "hono";
import { errorFrameOf } from "../error_shapes.ts";
import { ApiError, toApiError } from "../errors.ts";
import type { Lifecycle } from "../lifecycle.ts";

export interface RunningOptions {
  lifecycle: Lifecycle;
  /** A request's longest time, its stream included; null: no limit. */
  timeoutMs: number | null;
  /** Paths that are answered at once, and also while the server stops. */
  isPublic: (path: string) => boolean;
}

/** Bodies that are made while they are sent. */
const STREAM = /^(text\/event-stream|application\/x-ndjson)\b/;

/**
 * Runs a request to the end of its response. `c.req.raw.signal` tells the route when nobody waits
 * any more: the client is gone, the time is over, or the server stops. In the latter two the client
 * is told by an error, in a stream as its last event.
 */
export function running({ lifecycle, timeoutMs, isPublic }: RunningOptions): MiddlewareHandler {
  return async (c, next) => {
    if (isPublic(c.req.path)) return await next();
    refuseWhileDraining(lifecycle);
    const controller = new AbortController();
    const finish = begin(lifecycle, controller, timeoutMs);
    try {
      const signal = AbortSignal.any([c.req.raw.signal, controller.signal]);
      c.req.raw = new Request(c.req.raw, { signal });
      await unlessAborted(next(), controller.signal);
      if (c.error !== undefined || !isStream(c.res)) return finish();
      const lastWords = () => errorFrameOf(c.req.path, toApiError(controller.signal.reason));
      c.res = new Response(
        endable(c.res.body!, { signal: controller.signal, lastWords, finish }),
        c.res,
      );
    } catch (error) {
      finish();
      throw error;
    }
  };
}

export function isStream({ body, headers }: Response): boolean {
  return body !== null && STREAM.test(headers.get("content-type") ?? "");
}

function refuseWhileDraining({ isDraining }: Lifecycle): void {
  if (!isDraining) return;
  throw new ApiError(503, "unavailable_error", "The server is shutting down: send it again soon", {
    code: "shutting_down",
    retryAfterSeconds: 5,
  });
}

/** Returns what ends the request's time; safe to call twice. */
function begin(
  lifecycle: Lifecycle,
  controller: AbortController,
  timeoutMs: number | null,
): () => void {
  lifecycle.begin(controller);
  const timer = timeoutMs === null
    ? undefined
    : setTimeout(() => controller.abort(timeoutError(timeoutMs)), timeoutMs);
  return () => {
    clearTimeout(timer);
    lifecycle.end(controller);
  };
}

function timeoutError(ms: number): ApiError {
  return new ApiError(
    504,
    "server_error",
    `The request took longer than this server's ${ms / 1000} s: ask for fewer tokens`,
    { code: "timeout" },
  );
}

/** @throws The signal's reason, as soon as it is aborted. */
async function unlessAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

interface Ending {
  signal: AbortSignal;
  /** What a stream that is cut says at its end. */
  lastWords: () => string;
  finish: () => void;
}

/** The same bytes; when the signal is aborted, an error in place of what would have come. */
function endable(
  body: ReadableStream<Uint8Array>,
  { signal, lastWords, finish }: Ending,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let isOver = false;
  const over = () => {
    isOver = true;
    signal.removeEventListener("abort", cut);
    finish();
  };
  let cut = () => {};
  return new ReadableStream({
    start(controller) {
      cut = () => {
        if (isOver) return;
        controller.enqueue(new TextEncoder().encode(lastWords()));
        controller.close();
        over();
        reader.cancel(signal.reason).catch(() => {});
      };
      signal.addEventListener("abort", cut);
    },
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (isOver) return;
        if (!done) return controller.enqueue(value);
        over();
        controller.close();
      } catch (error) {
        if (isOver) return;
        over();
        controller.error(error);
      }
    },
    async cancel(reason) {
      over();
      await reader.cancel(reason);
    },
  });
}
