/** A TCP port, where 0 is any that is free, or a Unix socket. */
export type Place = { host: string; port: number } | { socket: string };

/** As it stands in a URL: IPv6 in brackets. */
export function urlHost(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** The place can't be listened on. */
export class ListenError extends Error {
  override readonly name = "ListenError";
}
