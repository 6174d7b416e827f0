import type { MiddlewareHandler } from "hono";
import { ApiError } from "../errors.ts";
import { recordOf } from "../request_record.ts";

export interface RateLimitOptions {
  /** Of one key, or of one address without a key; as many may come at once after a pause. */
  requestsPerMinute: number;
  isPublic: (path: string) => boolean;
  nowMs?: () => number;
}

/** @throws {ApiError} 429 with the seconds after which one more is allowed. */
export function rateLimit(
  { requestsPerMinute, isPublic, nowMs = () => performance.now() }: RateLimitOptions,
): MiddlewareHandler {
  const buckets = new TokenBuckets(requestsPerMinute, nowMs);
  return async (c, next) => {
    const { keyFingerprint, client } = recordOf(c);
    const waitMs = isPublic(c.req.path) ? 0 : buckets.take(keyFingerprint ?? client);
    if (waitMs > 0) throw tooMany(requestsPerMinute, Math.ceil(waitMs / 1000));
    await next();
  };
}

function tooMany(requestsPerMinute: number, seconds: number): ApiError {
  return new ApiError(
    429,
    "rate_limit_error",
    `Too many requests: this server allows ${requestsPerMinute} a minute, wait ${seconds} s`,
    { code: "rate_limit_exceeded", retryAfterSeconds: seconds },
  );
}

/** Clients whose buckets are remembered before the full ones are looked for. */
const SWEEP_SIZE = 1_000;

interface Bucket {
  tokens: number;
  atMs: number;
}

/** One bucket a client: it holds `perMinute` tokens, and fills evenly. */
export class TokenBuckets {
  readonly #buckets = new Map<string, Bucket>();

  constructor(private readonly perMinute: number, private readonly nowMs: () => number) {}

  get size(): number {
    return this.#buckets.size;
  }

  /** Takes a token; else milliseconds until there is one. */
  take(client: string): number {
    const bucket = this.#filled(client);
    if (bucket.tokens < 1) return (1 - bucket.tokens) * this.#msPerToken;
    bucket.tokens--;
    return 0;
  }

  get #msPerToken(): number {
    return 60_000 / this.perMinute;
  }

  #filled(client: string): Bucket {
    const now = this.nowMs();
    const bucket = this.#buckets.get(client) ?? this.#added(client, now);
    bucket.tokens = this.#tokensAt(bucket, now);
    bucket.atMs = now;
    return bucket;
  }

  #added(client: string, now: number): Bucket {
    if (this.#buckets.size >= SWEEP_SIZE) this.#sweep(now);
    const bucket = { tokens: this.perMinute, atMs: now };
    this.#buckets.set(client, bucket);
    return bucket;
  }

  #tokensAt({ tokens, atMs }: Bucket, now: number): number {
    return Math.min(this.perMinute, tokens + (now - atMs) / this.#msPerToken);
  }

  /** A full bucket is as good as none. All are full after a minute, so the map can't grow for long. */
  #sweep(now: number): void {
    for (const [client, bucket] of this.#buckets) {
      if (this.#tokensAt(bucket, now) >= this.perMinute) this.#buckets.delete(client);
    }
  }
}
