/** Shared by the tests of this folder. */
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";

/** Runs with a temporary folder that is deleted afterwards. */
export async function inFolder(run: (folder: string) => unknown): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-test-"));
  try {
    await run(folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

type Variables = Record<string, string | undefined>;

function setVariables(variables: Variables): void {
  for (const [name, value] of Object.entries(variables)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}

/** Runs with some environment variables set, or unset where undefined, and puts the old ones back. */
export async function withEnvironment(variables: Variables, run: () => unknown): Promise<void> {
  const before = Object.fromEntries(
    Object.keys(variables).map((name) => [name, process.env[name]]),
  );
  setVariables(variables);
  try {
    await run();
  } finally {
    setVariables(before);
  }
}

/** Writes an executable shell script. */
export function writeScript(file: string, body: string): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
}

/** Runs TypeScript in another process of this runtime, with a module of this folder as `module`. */
export function runChild(module: string, body: string): ChildProcess {
  const script = `import * as module from ${JSON.stringify(import.meta.resolve(module))};\n${body}`;
  const url = `data:text/typescript,${encodeURIComponent(script)}`;
  return spawn(Deno.execPath(), ["run", "-A", url], { stdio: ["ignore", "pipe", "inherit"] });
}

/** The child's first output. */
export function firstLine(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => child.stdout!.once("data", (data) => resolve(`${data}`.trim())));
}

export function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("close", resolve));
}

/** Waits for something that another process does. Fails after ten seconds. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`Waited ten seconds in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
