import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { environmentVariable, isGranted } from "./permissions.ts";

export interface RunOptions {
  signal?: AbortSignal;
  timeoutMs?: number;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  cwd?: string;
}

export interface RunResult {
  /** Exit status, or null when a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A program that could not be started, or ran too long. */
export class RunError extends Error {
  override readonly name = "RunError";
}

/** More of a program's output than this is not kept: only its end tells what went wrong. */
const OUTPUT_LIMIT = 1 << 20;

/**
 * Runs a program without a shell and with no input; its output is kept from our own stdout.
 * Deno wants --allow-run for the program and --allow-env=NODE_V8_COVERAGE, which its node:child_process
 * looks at.
 *
 * @throws {RunError} If it can't be started or `timeoutMs` passed; it has then been killed.
 * @throws The signal's reason, once the program is dead.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  { signal, timeoutMs, env, cwd }: RunOptions = {},
): Promise<RunResult> {
  signal?.throwIfAborted();
  const child = start(program, args, { env, cwd });
  let timedOut = false;
  const timers: ReturnType<typeof setTimeout>[] = [];
  const later = (ms: number, act: () => void) => timers.push(setTimeout(act, ms));
  const kill = () => child.kill("SIGKILL");
  if (timeoutMs !== undefined) later(timeoutMs, () => timedOut = kill());
  signal?.addEventListener("abort", kill, { once: true });
  const output = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8");
    child[stream].on("data", (text: string) => {
      output[stream] = (output[stream] + text).slice(-OUTPUT_LIMIT);
    });
  }
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once(
        "error",
        (error) => reject(new RunError(`it can't be started (${error.message})`)),
      );
      child.once("close", resolve);
      // `close` also waits for grandchildren that hold the pipes, and those may outlive a kill.
      child.once("exit", (status) => later(status === null ? 50 : 2000, () => resolve(status)));
    });
    signal?.throwIfAborted();
    if (timedOut) throw new RunError(`it took longer than ${timeoutMs! / 1000} s`);
    return { code, ...output };
  } finally {
    timers.forEach(clearTimeout);
    signal?.removeEventListener("abort", kill);
    child.stdout.destroy();
    child.stderr.destroy();
  }
}

function start(program: string, args: readonly string[], { env, cwd }: RunOptions) {
  try {
    return spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...inheritedEnvironment(), ...env },
      cwd,
    });
  } catch (error) {
    throw new RunError(`it can't be started (${(error as Error).message})`);
  }
}

/** Of an environment that may not be listed, what programs need to find their files. */
const ESSENTIAL = ["PATH", "HOME", "TMPDIR", "USERPROFILE", "LOCALAPPDATA", "SYSTEMROOT", "TEMP"];

function inheritedEnvironment(): Record<string, string | undefined> {
  if (isGranted({ name: "env" })) return process.env;
  const known = ESSENTIAL.map((name) => [name, environmentVariable(name)] as const);
  return Object.fromEntries(known.filter(([, value]) => value !== null)) as Record<string, string>;
}

/**
 * Paths at which a program of this name is on PATH, in PATH's order. Folders that may not be read
 * are passed over without asking.
 */
export function findOnPath(name: string): string[] {
  const file = process.platform === "win32" ? `${name}.exe` : name;
  return (environmentVariable("PATH") ?? "")
    .split(path.delimiter)
    .filter((folder) => path.isAbsolute(folder))
    .map((folder) => path.join(folder, file))
    .filter(isProgram);
}

function isProgram(file: string): boolean {
  if (!isGranted({ name: "read", path: file })) return false;
  try {
    // Not access(), for which Deno wants --allow-sys as well.
    const { mode } = fs.statSync(file);
    const isFile = (mode & fs.constants.S_IFMT) === fs.constants.S_IFREG;
    return isFile && (process.platform === "win32" || (mode & 0o111) !== 0);
  } catch {
    return false;
  }
}
