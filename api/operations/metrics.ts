import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { AppOptions } from "../options.ts";
import type { Services } from "../services.ts";
import { OPERATIONS } from "./dialect.ts";
import { VERSION } from "../../runtime/version.ts";
import { runtimeName } from "./version.ts";

export function addMetrics(app: OpenAPIHono, { host }: Services, { metrics }: AppOptions): void {
  metrics.watchModel(host);
  metrics.watchBuild(VERSION, runtimeName());
  app.openAPIRegistry.registerPath({
    method: "get",
    path: "/metrics",
    tags: [OPERATIONS.tag],
    summary: "Numbers for Prometheus",
    responses: {
      200: {
        content: { "text/plain": { schema: z.string() } },
        description: "Prometheus's text format",
      },
    },
  });
  app.get("/metrics", async (c) => {
    const { registry } = metrics;
    return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
}
