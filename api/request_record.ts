import { AsyncLocalStorage } from "node:async_hooks";
import type { Context } from "hono";

/** What the log says of one request. It never has a prompt, an answer, or a key. */
export interface RequestRecord {
  /** From `x-request-id`, or made here. */
  readonly id: string;
  /** Who is connected: an address, or "unix". */
  readonly client: string;
  /** The beginning of the SHA-256 of the key that opened; null where none is asked for. */
  keyFingerprint: string | null;
  timeToFirstTokenMs: number | null;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  /** Why the completion ended; of several, the last. */
  reason: string | null;
  /** The request's own JSON, where prompts are logged. */
  body: string | null;
}

export function newRecord(id: string, client: string): RequestRecord {
  return {
    id,
    client,
    keyFingerprint: null,
    timeToFirstTokenMs: null,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
    reason: null,
    body: null,
  };
}

const current = new AsyncLocalStorage<RequestRecord>();

/** Runs a request's work: whatever it calls, and whatever that calls later, finds the record. */
export function withRecord<T>(record: RequestRecord, work: () => T): T {
  return current.run(record, work);
}

/** Of the request that the caller works for; null outside of requests. */
export function currentRecord(): RequestRecord | null {
  return current.getStore() ?? null;
}

/** Hono's own variables are untyped here, as routes are added by several folders. */
export function recordOf(c: Context): RequestRecord {
  return c.get("record") as RequestRecord;
}

export function setRecord(c: Context, record: RequestRecord): void {
  c.set("record", record);
}
