import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { isLoopback } from "./host.ts";

/** What browsers' scripts may read of our answers. */
const EXPOSED = ["x-request-id", "retry-after"];

/**
 * Lets scripts of some origins in: exact ones, "localhost" for any port of this machine, "*" for
 * all. Without any, no header is sent, and browsers keep scripts of other sites out.
 */
export function crossOrigin(origins: readonly string[]): MiddlewareHandler {
  if (origins.length === 0) return (_, next) => next();
  return cors({
    origin: (origin) => isAllowedOrigin(origin, origins) ? origin : null,
    allowMethods: ["GET", "HEAD", "POST", "OPTIONS"],
    exposeHeaders: EXPOSED,
    maxAge: 600,
  });
}

export function isAllowedOrigin(origin: string, origins: readonly string[]): boolean {
  if (origins.includes("*") || origins.includes(origin)) return true;
  if (!origins.includes("localhost") || !URL.canParse(origin)) return false;
  return isLoopback(new URL(origin).hostname.replace(/^\[|\]$/g, ""));
}
