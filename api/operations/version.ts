import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import process from "node:process";
import project from "../../deno.json" with { type: "json" };
import { jsonOf, OPERATIONS_TAG } from "./schemas.ts";

export const VERSION: string = project.version;

const Version = z.object({ version: z.string(), runtime: z.string() }).openapi("Version");

const ROUTE = createRoute({
  method: "get",
  path: "/version",
  tags: [OPERATIONS_TAG],
  summary: "Trilith's version, and what runs it",
  responses: { 200: jsonOf(Version, "The versions") },
});

export function addVersion(app: OpenAPIHono): void {
  app.openapi(ROUTE, (c) => c.json({ version: VERSION, runtime: runtimeName() }, 200));
}

/** "Deno 2.9.6" or "Bun 1.4.5". */
export function runtimeName(): string {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  return deno !== undefined ? `Deno ${deno}` : bun !== undefined ? `Bun ${bun}` : `Node ${node}`;
}
