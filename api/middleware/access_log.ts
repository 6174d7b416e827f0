import type { Context, MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { Log, LogLevel } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { recordOf } from "../request_record.ts";
import { isStream } from "./running.ts";

export interface AccessLogOptions {
  log: Log;
  metrics: Metrics;
  nowMs?: () => number;
}

/** Probes ask all the time, and a page has many files: only those who look closely want to know. */
const QUIET_ROUTES = /^\/((v1\/)?health|metrics|web\/.*)$/;

/** Times every request to the end of its response, counts it, and logs it without its texts. */
export function accessLog(
  { log, metrics, nowMs = () => performance.now() }: AccessLogOptions,
): MiddlewareHandler {
  return async (c, next) => {
    const startMs = nowMs();
    await next();
    const write = (ending: Ending) => {
      const ms = nowMs() - startMs;
      const request = { method: methodOf(c), route: routeOf(c), status: c.res.status };
      metrics.requestEnded({ ...request, ms });
      log(levelOf(request), "request", { ...request, ms: rounded(ms), ...factsOf(c, ending) });
    };
    if (!isStream(c.res)) return write("whole");
    c.res = new Response(watched(c.res.body!, write), c.res);
  };
}

/** How a response ended: sent, given up by the client, or broken off by us. */
type Ending = "whole" | "cancelled" | "failed";

function factsOf(c: Context, ending: Ending) {
  const { timeToFirstTokenMs, id, ...record } = recordOf(c);
  return {
    requestId: id,
    client: record.client,
    key: record.keyFingerprint,
    ttftMs: timeToFirstTokenMs === null ? null : rounded(timeToFirstTokenMs),
    promptTokens: record.promptTokens || null,
    cachedTokens: record.cachedTokens || null,
    completionTokens: record.completionTokens || null,
    reason: record.reason,
    ending: ending === "whole" ? null : ending,
    body: record.body,
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** The pattern that answered: paths themselves are without number, and may say more than we want. */
function routeOf(c: Context): string {
  return matchedRoutes(c).findLast(({ method }) => method !== "ALL")?.path ?? "unmatched";
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** Clients may invent methods without end, and each would be a time series of its own. */
function methodOf({ req: { method } }: Context): string {
  return METHODS.includes(method) ? method : "other";
}

function levelOf({ route, status }: { route: string; status: number }): LogLevel {
  if (status >= 500 && status !== 503) return "error";
  if (QUIET_ROUTES.test(route)) return "debug";
  return status >= 400 ? "warn" : "info";
}

/** The same bytes, and word of how they ended. */
function watched(
  body: ReadableStream<Uint8Array>,
  ended: (ending: Ending) => void,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
        ended("whole");
        controller.close();
      } catch (error) {
        ended("failed");
        controller.error(error);
      }
    },
    async cancel(reason) {
      ended("cancelled");
      await reader.cancel(reason);
    },
  });
}
