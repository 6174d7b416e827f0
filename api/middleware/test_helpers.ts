/** The application around routes of a test's own. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { createApp } from "../app.ts";
import { ModelHost } from "../host.ts";
import { createLog } from "../log.ts";
import { type AppOptions, appOptions } from "../options.ts";
import { DEFAULT_API_CONFIG } from "../services.ts";

export interface Scene {
  app: OpenAPIHono;
  options: AppOptions;
  /** What was logged, one object a line. */
  logged: Record<string, unknown>[];
  ask(path: string, init?: RequestInit & { client?: string }): Promise<Response>;
}

/** A server whose model never comes, with `/echo`, `/stream` and `/fail` beside its own routes. */
export function sceneOf(given: Partial<AppOptions> = {}): Scene {
  const logged: Record<string, unknown>[] = [];
  const write = (line: string) => void logged.push(JSON.parse(line));
  const log = createLog({ format: "json", level: "debug", write });
  const options = appOptions({ log, ...given });
  const host = new ModelHost("story", () => new Promise(() => {}));
  const { observer } = options.metrics;
  const app = createApp({ host, config: DEFAULT_API_CONFIG, observer }, options);
  app.post("/echo", async (c) => c.text(await c.req.text()));
  app.get("/fail", () => {
    throw new TypeError("a secret of ours");
  });
  return {
    app,
    options,
    logged,
    ask: async (path, { client = "192.0.2.1", ...init } = {}) =>
      await app.request(path, init, { remoteAddress: client }),
  };
}

export async function jsonOf(response: Response) {
  // deno-lint-ignore no-explicit-any -- what clients see has no types of ours
  return await response.json() as any;
}
