/** `trilith serve` as a process of its own, on a port of its own. */
import assert from "node:assert/strict";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { type Ended, startCli } from "./cli_process.ts";

export interface ServeOptions {
  runtime?: readonly string[];
  env?: Record<string, string>;
  /** Don't wait until the model is loaded. */
  whileLoading?: boolean;
}

export interface ServeProcess {
  url: string;
  ended: Promise<Ended>;
  signal(name: "SIGTERM" | "SIGINT" | "SIGKILL"): void;
}

/** Starts it, and waits until it answers. */
export async function startServe(
  args: readonly string[] = [],
  { runtime, env, whileLoading = false }: ServeOptions = {},
): Promise<ServeProcess> {
  const all = ["serve", "--port", "0", "--json", "--threads", "1", ...args];
  const { child, ended } = startCli(all, { cache: cacheDirectory(), runtime, env });
  const line = await Promise.race([
    new Promise<string>((resolve) => child.stdout!.once("data", resolve)),
    ended.then(({ stderr }) => assert.fail(`the server did not start: ${stderr}`)),
  ]);
  const url = JSON.parse(line).url as string;
  if (!whileLoading) await untilReady(url);
  return {
    url,
    ended,
    // Not child.kill: in Deno that works only once.
    signal: (name) => process.kill(child.pid!, name),
  };
}

export async function untilReady(url: string, isReady = true): Promise<void> {
  for (;;) {
    const response = await fetch(`${url}/health`);
    await response.body?.cancel();
    if (response.ok === isReady) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
