/** The command line as a process of its own, with the real engine. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { ZIG } from "./machine.ts";
import { CLI } from "./paths.ts";

/** Compiling from nothing takes ten seconds on a busy machine; this only ends what hangs. */
const TIMEOUT_MS = 180_000;

export interface Ended {
  /** Exit status, or null when a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** TRILITH_CACHE. */
  cache: string;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** What runs `cli.ts`; default: this Deno with all permissions. */
  runtime?: readonly string[];
  /** What it runs; default: `cli.ts`. */
  file?: string;
  /** Where it runs; default: this process's folder. */
  cwd?: string;
}

export interface Running {
  child: ChildProcess;
  ended: Promise<Ended>;
}

const DENO = [Deno.execPath(), "run", "-A"];

export function startCli(
  args: readonly string[],
  { cache, env = {}, runtime = DENO, file = CLI, cwd }: RunOptions,
): Running {
  const [program, ...rest] = [...runtime, file, ...args];
  const child = spawn(program, rest, {
    cwd,
    // Coverage of what is killed can't be written, and would be told on standard error.
    env: { ...process.env, TRILITH_CACHE: cache, TRILITH_ZIG: ZIG.path, NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const output = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8").on("data", (text: string) => output[stream] += text);
  }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, ...output }));
  });
  return { child, ended };
}

export function runCli(args: readonly string[], options: RunOptions): Promise<Ended> {
  return startCli(args, options).ended;
}

/** The error of a command that must fail: one line, and nothing on standard output. */
export function errorLine({ code, stdout, stderr }: Ended): string {
  assert.ok(code === 1 || code === 2, `ended with ${code}: ${stderr}`);
  assert.equal(stdout, "");
  assert.match(stderr, /^error: [^\n]+\n$/);
  return stderr.trim();
}

/** The document of a command that must succeed. */
// deno-lint-ignore no-explicit-any -- each command's own; tests look at single fields
export function documentOf({ code, stdout, stderr }: Ended): any {
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}
