/**
 * A page of any site can have its own name point to 127.0.0.1 and then read a local server as if it
 * were that site (DNS rebinding). Its requests still carry that name in `Host`.
 */
import { isIP } from "node:net";
import type { MiddlewareHandler } from "hono";
import { ApiError } from "../errors.ts";

export interface HostOptions {
  /** Names beside the local ones: "example.org", ".example.org" with all below it, "*" for any. */
  allowed: readonly string[];
  /** The address that we listen on; null: a Unix socket, which no page can reach. */
  bound: string | null;
}

export const WILDCARD_ADDRESSES = ["0.0.0.0", "::"];

/** @throws {ApiError} 403 for a name that is not ours. */
export function hostAllowList({ allowed, bound }: HostOptions): MiddlewareHandler {
  const isAllowed = hostPredicate({ allowed, bound });
  return async (c, next) => {
    const host = c.req.header("host") ?? new URL(c.req.url).host;
    if (!isAllowed(hostnameOf(host))) {
      throw new ApiError(
        403,
        "permission_error",
        "The Host header names a host that this server does not answer for" +
          ": allow it with --allowed-host",
        { code: "host_not_allowed" },
      );
    }
    await next();
  };
}

export function hostPredicate({ allowed, bound }: HostOptions): (hostname: string) => boolean {
  if (bound === null || allowed.includes("*")) return () => true;
  const names = allowed.map((name) => name.toLowerCase());
  const isOurs = (hostname: string) =>
    names.some((name) => name.startsWith(".") ? hostname.endsWith(name) : hostname === name);
  // An address typed as such was looked up by nobody: it can't have been rebound.
  const isBound = WILDCARD_ADDRESSES.includes(bound)
    ? (hostname: string) => isIP(hostname) > 0
    : (hostname: string) => hostname === bound.toLowerCase();
  return (hostname) => isLoopback(hostname) || isBound(hostname) || isOurs(hostname);
}

/** Names and addresses that never leave this machine. */
export function isLoopback(hostname: string): boolean {
  if (isIP(hostname) === 4) return hostname.startsWith("127.");
  return hostname === "::1" || hostname === "localhost" || hostname.endsWith(".localhost");
}

/** "[::1]:80" is ::1, "LocalHost.:80" is localhost. */
export function hostnameOf(host: string): string {
  const name = /^\[([^\]]*)\](:\d+)?$/.exec(host)?.[1] ?? host.replace(/:\d+$/, "");
  return name.toLowerCase().replace(/\.$/, "");
}
