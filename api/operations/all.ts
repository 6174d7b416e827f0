import type { OpenAPIHono } from "@hono/zod-openapi";
import type { AppOptions } from "../options.ts";
import type { Services } from "../services.ts";
import { addHealth } from "./health.ts";
import { addMetrics } from "./metrics.ts";
import { addProps } from "./props.ts";
import { addSlots } from "./slots.ts";
import { addVersion } from "./version.ts";

/** What tells people and their tools how the server is. */
export function addOperations(app: OpenAPIHono, services: Services, options: AppOptions): void {
  addHealth(app, services, options);
  addMetrics(app, services, options);
  addProps(app, services);
  addSlots(app, services);
  addVersion(app);
}
