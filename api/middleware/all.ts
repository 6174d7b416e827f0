import type { OpenAPIHono } from "@hono/zod-openapi";
import type { AppOptions } from "../options.ts";
import { isPublicPath } from "../paths.ts";
import { accessLog } from "./access_log.ts";
import { auth } from "./auth.ts";
import { bodyLimit, bodyReader } from "./body.ts";
import { crossOrigin } from "./cors.ts";
import { hostAllowList } from "./host.ts";
import { knownMethod } from "./method.ts";
import { rateLimit } from "./rate_limit.ts";
import { requestId } from "./request_id.ts";
import { running } from "./running.ts";
import { secureHeaders } from "./secure_headers.ts";

/** What a request passes on its way to a route: first what names and counts it, then what refuses it. */
export function addMiddleware(app: OpenAPIHono, options: AppOptions): void {
  const isPublic = isPublicPath;
  const { requestsPerMinute } = options;
  app.use(requestId);
  app.use(accessLog(options));
  app.use(secureHeaders);
  app.use(hostAllowList({ allowed: options.allowedHosts, bound: options.boundAddress }));
  app.use(knownMethod(app));
  app.use(crossOrigin(options.corsOrigins));
  app.use(bodyLimit({ maxBytes: options.maxBodyBytes }));
  app.use(auth({ keys: options.apiKeys, isPublic }));
  if (requestsPerMinute !== null) app.use(rateLimit({ requestsPerMinute, isPublic }));
  app.use(running({ ...options, isPublic }));
  app.use(bodyReader({
    maxBytes: options.maxBodyBytes,
    timeoutMs: options.bodyTimeoutMs,
    logPrompts: options.logPrompts,
  }));
}
