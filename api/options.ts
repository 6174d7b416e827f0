import { Lifecycle } from "./lifecycle.ts";
import { type Log, SILENT } from "./log.ts";
import { Metrics } from "./metrics.ts";

/** How the server is run: who may ask, how much, and what is written down. */
export interface AppOptions {
  /** Counts requests, and refuses new ones at the end. */
  lifecycle: Lifecycle;
  /** Counts and times for `/metrics`. */
  metrics: Metrics;
  /** One line a request. Default: none. */
  log: Log;
  /** Put requests' JSON, prompts and all, into the log. */
  logPrompts: boolean;
  /** Any of them opens; none: everything is open. */
  apiKeys: readonly string[];
  /** Names in `Host` headers that are answered beside this machine's own. */
  allowedHosts: readonly string[];
  /** The address that we listen on; null: a Unix socket. */
  boundAddress: string | null;
  /** Origins whose scripts may read answers. */
  corsOrigins: readonly string[];
  /** Longest body. Default: 1 MiB. */
  maxBodyBytes: number;
  /** Longest time that a body may take. Default: 30 s. */
  bodyTimeoutMs: number;
  /** Of one key or address; null: no limit. */
  requestsPerMinute: number | null;
  /** A request's longest time; null: no limit. */
  timeoutMs: number | null;
  /** Whether the chat page is there. */
  hasWeb: boolean;
}

/** More text than contexts hold; parsing it takes some 10 ms, in which nobody else is served. */
export const DEFAULT_MAX_BODY_BYTES = 2 ** 20;
/** Even a slow line brings that in that time, and nobody types a request. */
export const BODY_TIMEOUT_MS = 30_000;

export function appOptions(given: Partial<AppOptions> = {}): AppOptions {
  return {
    lifecycle: new Lifecycle(),
    metrics: new Metrics(),
    log: SILENT,
    logPrompts: false,
    apiKeys: [],
    allowedHosts: [],
    boundAddress: "127.0.0.1",
    corsOrigins: [],
    maxBodyBytes: DEFAULT_MAX_BODY_BYTES,
    bodyTimeoutMs: BODY_TIMEOUT_MS,
    requestsPerMinute: null,
    timeoutMs: null,
    hasWeb: true,
    ...given,
  };
}
