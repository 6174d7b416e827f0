import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { AppOptions } from "../options.ts";
import type { Services } from "../services.ts";
import { OPERATIONS_TAG } from "./schemas.ts";
import { runtimeName, VERSION } from "./version.ts";

const ROUTE = createRoute({
  method: "get",
  path: "/metrics",
  tags: [OPERATIONS_TAG],
  summary: "Numbers for Prometheus",
  responses: {
    200: {
      content: { "text/plain": { schema: z.string() } },
      description: "Prometheus's text format",
    },
  },
});

export function addMetrics(app: OpenAPIHono, { host }: Services, { metrics }: AppOptions): void {
  metrics.watchModel(host);
  metrics.buildInfo(VERSION, runtimeName());
  app.openapi(ROUTE, async (c) => {
    const text = await metrics.registry.metrics();
    return c.body(text, 200, { "content-type": metrics.registry.contentType }) as never;
  });
}
