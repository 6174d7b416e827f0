import { OpenAPIHono } from "@hono/zod-openapi";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { openAiErrorBody, toApiError } from "./errors.ts";
import { addOpenAiRoutes } from "./openai/routes.ts";
import type { Services } from "./services.ts";
import { addWebRoutes } from "./web/routes.ts";

/** Adds the routes of one dialect. Each lives in a folder of its own and is listed here once. */
export type AddRoutes = (app: OpenAPIHono, services: Services) => void;

const ROUTES: readonly AddRoutes[] = [addOpenAiRoutes, addWebRoutes];

/** The whole HTTP application, without a socket. */
export function createApp(services: Services): OpenAPIHono {
  const app = new OpenAPIHono();
  app.onError((error, c) => {
    const failure = toApiError(error);
    if (failure.retryAfterSeconds !== null) {
      c.header("Retry-After", String(failure.retryAfterSeconds));
    }
    return c.json(openAiErrorBody(failure), failure.status as ContentfulStatusCode);
  });
  for (const add of ROUTES) add(app, services);
  return app;
}
