import type { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { METHODS, notFoundError } from "./not_found.ts";

/**
 * Refuses methods that no route has before anything else looks at the request: of TRACE and its like
 * none can be made, as the bodies of those that are read are.
 *
 * @throws {ApiError} 404 or 405.
 */
export function knownMethod(app: OpenAPIHono): MiddlewareHandler {
  return async (c, next) => {
    const { method } = c.req;
    if (method !== "OPTIONS" && !METHODS.includes(method)) throw notFoundError(app, c);
    await next();
  };
}
