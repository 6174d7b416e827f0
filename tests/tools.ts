/**
 * Programs of others that some tests need. On a developer's machine a missing one skips its tests,
 * with the reason in their names; where CI is set it fails them, so that nothing passes unseen.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The Bun that results are compared with. */
export const BUN_VERSION = "1.4.5";

/** The Schemathesis that asks the server all that its OpenAPI document allows. */
export const SCHEMATHESIS_VERSION = "4.32.5";

/** True on build machines. */
export const IS_CI = !["", "0", "false"].includes(process.env.CI ?? "");

/** A command line to put before a program's own arguments, or why there is none. */
export type Tool = { command: string[] } | { missing: string };

/** Runs Linux programs for 64-bit ARM: nothing but the CPU itself, or qemu-user. */
export function aarch64Runner(): Tool {
  if (process.platform !== "linux") return { missing: "programs for Linux run on Linux only" };
  if (process.arch === "arm64") return { command: [] };
  for (const name of ["qemu-aarch64", "qemu-aarch64-static"]) {
    if (spawnSync(name, ["--version"]).status === 0) return { command: [name] };
  }
  return { missing: "there is no qemu-aarch64 on PATH (Debian: apt-get install qemu-user)" };
}

/** Bun, from TRILITH_BUN or PATH. */
export function bun(): Tool {
  const program = process.env.TRILITH_BUN || "bun";
  const version = versionOf(program);
  if (version === BUN_VERSION) return { command: [program] };
  return { missing: `Bun ${BUN_VERSION} is needed, ${program} is ${version ?? "not there"}` };
}

/** Chromium or Chrome, from TRILITH_CHROMIUM or PATH. */
export function chromium(): Tool {
  const names = [process.env.TRILITH_CHROMIUM || "chromium", "chromium-browser", "google-chrome"];
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const program = names
    .flatMap((name) => path.isAbsolute(name) ? [name] : folders.map((at) => path.join(at, name)))
    .find((file) => fs.existsSync(file));
  if (program !== undefined) return { command: [program] };
  return { missing: "there is no chromium on PATH (Debian: apt-get install chromium)" };
}

/** What `program --version` prints, or null if it can't be run. */
export function versionOf(program: string): string | null {
  const { status, stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout.trim() : null;
}

/** llama.cpp by the npm package node-llama-cpp, from the folder TRILITH_LLAMA_CPP that has it. */
export function llamaCpp(): Tool {
  const folder = process.env.TRILITH_LLAMA_CPP;
  if (!folder) return { missing: "TRILITH_LLAMA_CPP names no folder with node-llama-cpp" };
  const script = fileURLToPath(new URL("llama_cpp.ts", import.meta.url));
  const flags = ["run", "-A", "--no-check", "--node-modules-dir=manual"];
  return { command: [process.execPath, ...flags, script, folder] };
}

/** Bun's binary in a folder that npm has installed it into; null if it is not there or won't run. */
export function installedBun(folder: string): string | null {
  const modules = path.join(folder, "node_modules");
  const platform = path.join(modules, "@oven");
  const candidates = [
    path.join(modules, "bun/bin/bun.exe"),
    // Where npm was told to run no install scripts, the binary is still in its platform's package.
    ...(fs.existsSync(platform) ? fs.readdirSync(platform) : [])
      .map((name) => path.join(platform, name, "bin", "bun")),
  ];
  return candidates.find((file) => versionOf(file) === BUN_VERSION) ?? null;
}

/** Schemathesis, from the folder TRILITH_SCHEMATHESIS that pip has installed it into, or as it is. */
export function schemathesis(): Tool {
  const folder = process.env.TRILITH_SCHEMATHESIS;
  if (process.platform === "win32") return { missing: "its command line is a POSIX one" };
  const paths = folder ? ["env", `PYTHONPATH=${folder}`] : [];
  const command = [...paths, "python3", "-m", "schemathesis.cli"];
  const [program, ...args] = [...command, "--version"];
  const { status, stdout } = spawnSync(program, args, { encoding: "utf8" });
  const found = status === 0 ? /version ([\d.]+)/.exec(stdout)?.[1] : undefined;
  if (found === SCHEMATHESIS_VERSION) return { command };
  return {
    missing: `Schemathesis ${SCHEMATHESIS_VERSION} is needed, it is ${found ?? "not there"}`,
  };
}

/** A test that is skipped for a reason, which its name then tells, or runs if there is none. */
export function testUnless(
  reason: string | null,
  name: string,
  fn: (t: Deno.TestContext) => void | Promise<void>,
): void {
  if (reason === null) Deno.test(name, fn);
  else Deno.test({ name: `${name} (skipped: ${reason})`, ignore: true, fn });
}

/** A test that needs a tool: skipped where it is missing, but failing on build machines. */
export function testWith(
  tool: Tool,
  name: string,
  fn: (command: readonly string[], t: Deno.TestContext) => void | Promise<void>,
): void {
  if ("command" in tool) return Deno.test(name, (t) => fn(tool.command, t));
  testUnless(IS_CI ? null : tool.missing, name, () => {
    throw new Error(`A build machine must have all tools: ${tool.missing}`);
  });
}
