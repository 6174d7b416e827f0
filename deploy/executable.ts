/**
 * `deno task executable [FILE]`: Trilith, its npm packages, the story model and Bun itself as one
 * executable for this kind of machine. Bun resolves packages from a node_modules folder, which Deno
 * does without: they are installed into a temporary copy of the sources.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** What the command line imports, and what `runtime/embedded.ts` unpacks. */
const SOURCES = [
  ...["cli.ts", "cli", "api", "runtime", "kernels", "codegen", "models"],
  ...["deno.json", "package.json"],
];

/** As Bun names it. */
const NAME = process.platform === "win32" ? "trilith.exe" : "trilith";

/** Settings of whatever folder it is started in are not the executable's. */
const NO_SETTINGS = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];

/**
 * Builds it.
 *
 * @param file Where it goes; what was there is replaced once the build is through.
 * @param bun The Bun that builds it and becomes a part of it.
 * @throws {Error} If Bun is missing, can't get the packages, or can't build.
 */
export function buildExecutable(file: string, bun: string): void {
  const copy = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-executable-"));
  try {
    for (const name of SOURCES) {
      fs.cpSync(path.join(ROOT, name), path.join(copy, name), { recursive: true });
    }
    runBun(bun, copy, [
      "install",
      "--production",
      "--ignore-scripts",
      "--no-save",
      "--no-progress",
    ]);
    // Bun names an asset by its folder's own name, whatever lies above it.
    const made = ["--asset=models/story", "--outfile=trilith", "cli.ts"];
    runBun(bun, copy, ["build", "--compile", ...NO_SETTINGS, ...made]);
    replaceFile(path.join(copy, NAME), file);
  } finally {
    fs.rmSync(copy, { recursive: true, force: true });
  }
}

function runBun(bun: string, folder: string, args: readonly string[]): void {
  const { status, stdout, stderr, error } = spawnSync(bun, args, {
    cwd: folder,
    encoding: "utf8",
  });
  if (status === 0) return;
  const reason = error?.message ?? (stderr.trim() || stdout.trim());
  throw new Error(
    `Cannot build the executable: ${bun} ${args[0]} failed, set TRILITH_BUN to a Bun: ${reason}`,
  );
}

/** Beside it first: temporary folders are often on another file system, and it may be running. */
function replaceFile(from: string, to: string): void {
  fs.mkdirSync(path.dirname(to), { recursive: true });
  const beside = `${to}.tmp`;
  fs.copyFileSync(from, beside);
  fs.renameSync(beside, to);
}

function main(): number {
  const file = path.resolve(process.argv[2] ?? path.join(ROOT, "build", NAME));
  try {
    buildExecutable(file, process.env.TRILITH_BUN || "bun");
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    return 1;
  }
  console.log(`${file}: ${(fs.statSync(file).size / 1e6).toFixed(0)} MB`);
  return 0;
}

if (import.meta.main) process.exit(main());
