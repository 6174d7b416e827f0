import type { Buffer } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import { ApiError } from "../errors.ts";
import { recordOf } from "../request_record.ts";

export interface AuthOptions {
  /** Any of them opens; none: everything is open. */
  keys: readonly string[];
  /** Paths without secrets, which need no key: health, the pages and their files. */
  isPublic: (path: string) => boolean;
}

/** @throws {ApiError} 401 without a key, or with one that is not ours. */
export function auth({ keys, isPublic }: AuthOptions): MiddlewareHandler {
  const digests = keys.map(digestOf);
  return async (c, next) => {
    if (digests.length > 0 && !isPublic(c.req.path)) requireKey(c, digests);
    await next();
  };
}

function requireKey(c: Context, digests: readonly Buffer[]): void {
  const given = presentedKey(c);
  if (given !== null && isOneOf(given, digests)) {
    recordOf(c).keyFingerprint = digestOf(given).toString("hex", 0, 4);
    return;
  }
  c.header("WWW-Authenticate", given === null ? BEARER : `${BEARER}, error="invalid_token"`);
  const message = given === null
    ? "This server needs an API key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`"
    : "The API key is not one of this server's";
  throw new ApiError(401, "authentication_error", message, { code: "invalid_api_key" });
}

const BEARER = 'Bearer realm="trilith"';

/**
 * Compares digests of one length, all of them, each in constant time: how long it takes tells
 * nothing of the keys.
 */
export function isOneOf(given: string, digests: readonly Buffer[]): boolean {
  const digest = digestOf(given);
  let isFound = false;
  for (const known of digests) isFound = timingSafeEqual(digest, known) || isFound;
  return isFound;
}

export function digestOf(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

function presentedKey(c: Context): string | null {
  const [, bearer] = /^Bearer +(\S+)\s*$/i.exec(c.req.header("authorization") ?? "") ?? [];
  return bearer ?? c.req.header("x-api-key") ?? null;
}
