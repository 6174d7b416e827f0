import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { ApiError } from "../errors.ts";

/** Methods that a route may have. */
export const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/** 405 with `Allow` where only the method is wrong, 404 elsewhere. */
export function notFoundError(app: OpenAPIHono, c: Context): ApiError {
  const { method, path } = c.req;
  const allowed = allowedMethods(app, path);
  if (allowed.length === 0) {
    return new ApiError(404, "not_found_error", `There is no ${path} here: /docs lists what is`, {
      code: "unknown_url",
    });
  }
  c.header("Allow", allowed.join(", "));
  return new ApiError(
    405,
    "invalid_request_error",
    `${path} can't be asked with ${method}: use ${allowed.join(" or ")}`,
    { code: "method_not_allowed" },
  );
}

function allowedMethods(app: OpenAPIHono, path: string): string[] {
  // HEAD is answered as GET without its body.
  return METHODS.filter((method) => hasRoute(app, method === "HEAD" ? "GET" : method, path));
}

/** Middleware is there for all methods; a route names its own. */
function hasRoute({ router }: OpenAPIHono, method: string, path: string): boolean {
  const [handlers] = router.match(method, path);
  return handlers.some(([[, route]]) => route.method === method);
}
