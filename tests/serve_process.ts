/** `trilith serve` as a process of its own, on a port of its own. */
import assert from "node:assert/strict";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { type Ended, type RunOptions, startCli } from "./cli_process.ts";
import { ROOT } from "./paths.ts";

/** A model whose tokens take 20 ms, and one named "stuck" that is never loaded. */
export const FAKE_CLI = path.join(ROOT, "cli", "fake_cli.ts");

export interface ServeOptions extends Partial<RunOptions> {
  /** Don't wait until the model is loaded. */
  whileLoading?: boolean;
}

export interface ServeProcess {
  /** What --json said. */
  place: { url: string; socket?: string; port: number };
  ended: Promise<Ended>;
  signal(name: "SIGTERM" | "SIGINT" | "SIGKILL"): void;
  post(path: string, body: unknown, signal?: AbortSignal): Promise<Response>;
  /** A number of /metrics. */
  metric(line: string): Promise<number>;
}

/** Starts it, and waits until it answers. */
export async function startServe(
  args: readonly string[] = [],
  { whileLoading = false, ...options }: ServeOptions = {},
): Promise<ServeProcess> {
  const place = args.includes("--socket") ? [] : ["--port", "0"];
  const all = ["serve", ...place, "--json", "--threads", "1", ...args];
  const { child, ended } = startCli(all, { cache: cacheDirectory(), ...options });
  const line = await Promise.race([
    new Promise<string>((resolve) => child.stdout!.once("data", resolve)),
    ended.then(({ stderr }) => assert.fail(`the server did not start: ${stderr}`)),
  ]);
  const said = JSON.parse(line);
  if (!whileLoading && said.url !== undefined) await untilReady(said.url);
  return {
    place: said,
    ended,
    // Not child.kill: in Deno that works only once.
    signal: (name) => process.kill(child.pid!, name),
    post: (route, body, signal) =>
      fetch(`${said.url}${route}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        signal,
      }),
    metric: async (name) => {
      const text = await (await fetch(`${said.url}/metrics`)).text();
      const found = text.split("\n").find((line) => line.startsWith(`${name} `));
      return Number(found?.slice(name.length) ?? 0);
    },
  };
}

async function untilReady(url: string): Promise<void> {
  await until(async () => {
    const response = await fetch(`${url}/health`);
    await response.body?.cancel();
    return response.ok;
  });
}

/** Asks again until it is so. */
export async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!await isSo()) await new Promise((resolve) => setTimeout(resolve, 20));
}
