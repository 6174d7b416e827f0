import { type OpenAPIHono, z } from "@hono/zod-openapi";
import process from "node:process";
import { VERSION } from "../../runtime/version.ts";
import { addGet } from "../route.ts";
import { OPERATIONS } from "./dialect.ts";

const Version = z.object({ version: z.string(), runtime: z.string() }).openapi("Version");

export function addVersion(app: OpenAPIHono): void {
  const summary = "Trilith's version, and what runs it";
  addGet(app, OPERATIONS, { path: "/version", summary, answer: Version }, (c) => {
    return c.json<z.output<typeof Version>>({ version: VERSION, runtime: runtimeName() });
  });
}

/** "Deno 2.9.6" or "Bun 1.4.5". */
export function runtimeName(): string {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  return deno !== undefined ? `Deno ${deno}` : bun !== undefined ? `Bun ${bun}` : `Node ${node}`;
}
