import type { MiddlewareHandler } from "hono";

const HEADERS = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), microphone=(), geolocation=()",
};

/** Answers are data; pages that need more than this say so with a policy of their own. */
const NOTHING_POLICY = "default-src 'none'; frame-ancestors 'none'";

export const secureHeaders: MiddlewareHandler = async (c, next) => {
  await next();
  const { headers } = c.res;
  for (const [name, value] of Object.entries(HEADERS)) {
    if (!headers.has(name)) headers.set(name, value);
  }
  if (!headers.has("content-security-policy")) {
    headers.set("content-security-policy", NOTHING_POLICY);
  }
  if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
};
