import type { Context, MiddlewareHandler } from "hono";
import { ApiError } from "../errors.ts";
import { recordOf } from "../request_record.ts";

export interface BodyOptions {
  maxBytes: number;
  /** A body that is not there after so long is not waited for. */
  timeoutMs: number;
  /** Put JSON bodies into the log. */
  logPrompts: boolean;
}

/** @throws {ApiError} 413 for a body that says that it is too long, before anything of it is read. */
export function bodyLimit({ maxBytes }: Pick<BodyOptions, "maxBytes">): MiddlewareHandler {
  return async (c, next) => {
    const length = c.req.header("content-length");
    if (length !== undefined && Number(length) > maxBytes) throw tooLarge(maxBytes);
    await next();
  };
}

/**
 * Reads the whole body before a route sees the request, as long as it keeps its size and its time:
 * a client that sends a byte a minute must not keep anything but its own connection.
 */
export function bodyReader({ maxBytes, timeoutMs, logPrompts }: BodyOptions): MiddlewareHandler {
  return async (c, next) => {
    const { raw } = c.req;
    if (raw.body === null) return await next();
    const body = await readWithin(raw.body, maxBytes, timeoutMs);
    if (logPrompts) recordOf(c).body = textOf(c, body);
    const { url, method, headers, signal } = raw;
    c.req.raw = new Request(url, { method, headers, body, signal });
    await next();
  };
}

async function readWithin(
  body: ReadableStream<Uint8Array>,
  maxBytes: number,
  timeoutMs: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = body.getReader();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooSlow(timeoutMs)), timeoutMs);
  try {
    return await Promise.race([readAll(reader, maxBytes), late.promise]);
  } catch (error) {
    reader.cancel(error).catch(() => {});
    throw error instanceof ApiError ? error : brokenOff(error);
  } finally {
    clearTimeout(timer);
  }
}

async function readAll(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    size += read.value.length;
    if (size > maxBytes) throw tooLarge(maxBytes);
    chunks.push(read.value);
  }
  const bytes = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}

function textOf(c: Context, body: Uint8Array): string | null {
  const isJson = c.req.header("content-type")?.includes("json") ?? false;
  return isJson ? new TextDecoder().decode(body) : null;
}

function tooLarge(maxBytes: number): ApiError {
  return new ApiError(
    413,
    "invalid_request_error",
    `The body is too large as it must be at most ${maxBytes} bytes: send less, or start the` +
      " server with a larger --max-body",
    { code: "body_too_large" },
  );
}

/** Reading fails when the client's connection does. */
function brokenOff(cause: unknown): ApiError {
  return new ApiError(400, "invalid_request_error", "The body broke off: send it again", {
    code: "body_broken_off",
    cause,
  });
}

function tooSlow(timeoutMs: number): ApiError {
  return new ApiError(
    408,
    "invalid_request_error",
    `The body did not arrive within ${timeoutMs / 1000} s: send it at once`,
    { code: "body_too_slow" },
  );
}
