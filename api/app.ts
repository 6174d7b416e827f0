import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { addAnthropicRoutes } from "./anthropic/routes.ts";
import { addDocs } from "./docs/routes.ts";
import { errorBodyOf } from "./error_shapes.ts";
import { type ApiError, toApiError } from "./errors.ts";
import { type Log, stackOf } from "./log.ts";
import { addMiddleware } from "./middleware/all.ts";
import { notFoundError } from "./middleware/not_found.ts";
import { addNativeRoutes } from "./native/routes.ts";
import { addOllamaRoutes } from "./ollama/routes.ts";
import { addOpenAiRoutes } from "./openai/routes.ts";
import { addOperations } from "./operations/all.ts";
import { type AppOptions, appOptions } from "./options.ts";
import { recordOf } from "./request_record.ts";
import type { Services } from "./services.ts";
import { addWebRoutes } from "./web/routes.ts";

/** Adds the routes of one dialect. Each lives in a folder of its own and is listed here once. */
export type AddRoutes = (app: OpenAPIHono, services: Services) => void;

/** The chat page is listed below, as it can be left out. */
const ROUTES: readonly AddRoutes[] = [
  addOpenAiRoutes,
  addAnthropicRoutes,
  addOllamaRoutes,
  addNativeRoutes,
];

/** The whole HTTP application, without a socket. */
export function createApp(services: Services, given: Partial<AppOptions> = {}): OpenAPIHono {
  const options = appOptions(given);
  const app = new OpenAPIHono();
  app.onError((error, c) => {
    const failure = toApiError(error);
    logFailure(options.log, failure, c);
    return failureResponse(failure, c);
  });
  app.notFound((c) => failureResponse(notFoundError(app, c), c));
  addMiddleware(app, options);
  addOperations(app, services, options);
  for (const add of ROUTES) add(app, services);
  if (options.hasWeb) addWebRoutes(app, services);
  addDocs(app);
  return app;
}

function failureResponse(failure: ApiError, c: Context): Response {
  if (failure.retryAfterSeconds !== null) {
    c.header("Retry-After", String(failure.retryAfterSeconds));
  }
  return c.json(errorBodyOf(c.req.path, failure), failure.status as ContentfulStatusCode);
}

/** What is our fault is told to the log in full, and to the client not at all. */
function logFailure(log: Log, { type, cause }: ApiError, c: Context): void {
  if (type !== "server_error" || cause === undefined) return;
  // Whatever fails because its client is gone is nobody's fault.
  const level = c.req.raw.signal.aborted ? "debug" : "error";
  log(level, "failure", { requestId: recordOf(c).id, error: stackOf(cause) });
}
