import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { ApiError, openAiErrorBody } from "../errors.ts";
import type { HostState } from "../host.ts";
import { OpenAiError } from "../openai/dialect.ts";
import type { AppOptions } from "../options.ts";
import type { Services } from "../services.ts";
import { OPERATIONS } from "./dialect.ts";

const Healthy = z.object({ status: z.literal("ok") }).openapi("Healthy");

const Unhealthy = OpenAiError.extend({
  status: z.enum(["loading", "draining", "failed"]),
  progress: z.object({
    phase: z.string(),
    message: z.string(),
    done: z.number().optional(),
    total: z.number().optional(),
    unit: z.string().optional(),
  }).nullable().openapi({ description: "What loading is at" }),
}).openapi("Unhealthy");

function routeAt<Path extends string>(path: Path) {
  return createRoute({
    method: "get",
    path,
    tags: [OPERATIONS.tag],
    summary: "Whether requests can be answered",
    security: [],
    responses: {
      200: {
        description: "The model is ready",
        content: { "application/json": { schema: Healthy } },
      },
      503: {
        description: "It loads, or the server is about to end",
        content: { "application/json": { schema: Unhealthy } },
      },
    },
  });
}

export function addHealth(app: OpenAPIHono, { host }: Services, { lifecycle }: AppOptions): void {
  for (const path of ["/health", "/v1/health"] as const) {
    app.openapi(routeAt(path), (c) => {
      const trouble = troubleOf(host.state, lifecycle.isDraining);
      if (trouble === null) return c.json({ status: "ok" as const }, 200);
      c.header("Retry-After", "2");
      return c.json(trouble, 503);
    });
  }
}

const MESSAGES = {
  loading: "The model is not loaded yet",
  draining: "The server is shutting down",
  failed: "The model could not be loaded",
};

function troubleOf(state: HostState, isDraining: boolean): z.infer<typeof Unhealthy> | null {
  const status = isDraining ? "draining" : state.kind === "ready" ? null : state.kind;
  if (status === null) return null;
  const error = new ApiError(503, "unavailable_error", MESSAGES[status], { code: status });
  const progress = state.kind === "loading" ? state.progress : null;
  return { ...openAiErrorBody(error), status, progress };
}
