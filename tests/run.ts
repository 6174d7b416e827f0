/**
 * `deno task test`: gets the tools that tests need, runs every check there is, and ends with one
 * line, "N passed, N failed[, N skipped]". The numbers are those of the tests, and one for each of
 * the other checks.
 */
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { installPeer, PACKAGE_VERSION } from "../bench/peers/process.ts";
import { cacheDirectory } from "../kernels/cache.ts";
import { ensureZig } from "../kernels/toolchain.ts";
import { ROOT } from "./paths.ts";
import { fixturePath } from "./fixtures.ts";
import {
  aarch64Runner,
  bun,
  BUN_VERSION,
  chromium,
  installedBun,
  IS_CI,
  schemathesis,
  SCHEMATHESIS_VERSION,
} from "./tools.ts";

/** All tests together take about ten minutes on two cores; this only ends what hangs. */
const TIMEOUT_MS = 25 * 60_000;

const MOST_ERROR_CHARACTERS = 6000;

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const NO_COUNTS: Counts = { passed: 0, failed: 0, skipped: 0 };

interface Outcome {
  name: string;
  counts: Counts;
  seconds: number;
  failures: string;
}

/** A check runs programs that exit with 0; `countsOf` reads more from their output where there is more. */
interface Check {
  name: string;
  /** Several are shared out among as many processes as there are CPUs. */
  commands: readonly (readonly string[])[];
  countsOf?: (output: string, status: number | null) => Counts;
  /** What is left out from the start. */
  skipped?: number;
  /** What to say again at the very end, where a run failed: logs are mostly read from there. */
  failuresOf?: (output: string) => string;
}

type Variables = Record<string, string>;

// ---------------------------------------------------------------- tools

function heading(text: string): void {
  console.log(`\n== ${text}`);
}

/** The compiler is fetched into the user's own cache, once; tests then share it. */
async function prepareZig(): Promise<Variables> {
  let told = "";
  const zig = await ensureZig({
    onProgress: ({ message }) => {
      if (message !== told) console.log(`  ${message}`);
      told = message;
    },
  });
  console.log(`  Zig ${zig.version} (${zig.source})`);
  return { TRILITH_ZIG: zig.path };
}

function prepareBun(): Variables {
  const present = bun();
  if ("command" in present) return { TRILITH_BUN: present.command[0] };
  const folder = cacheDirectory("tools");
  const binary = installedBun(folder) ?? installBun(folder);
  console.log(binary === null ? "  Bun: not installed" : `  Bun ${BUN_VERSION}`);
  return binary === null ? {} : { TRILITH_BUN: binary };
}

function installBun(folder: string): string | null {
  console.log(`  Installing Bun ${BUN_VERSION} with npm, once`);
  const args = ["install", "--no-audit", "--no-fund", "--prefix", folder, `bun@${BUN_VERSION}`];
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status, stderr, error } = spawnSync(npm, args, { encoding: "utf8" });
  if (status !== 0) console.log(`  npm failed: ${error?.message ?? stderr.trim()}`);
  return installedBun(folder);
}

/** In a folder of its own, for this test run only: not a dependency of this project. */
function prepareSchemathesis(): Variables {
  if ("command" in schemathesis()) return {};
  const folder = path.join(cacheDirectory("tools"), `schemathesis-${SCHEMATHESIS_VERSION}`);
  if (!fs.existsSync(folder)) installSchemathesis(folder);
  process.env.TRILITH_SCHEMATHESIS = folder;
  const tool = schemathesis();
  console.log(`  Schemathesis: ${"missing" in tool ? tool.missing : SCHEMATHESIS_VERSION}`);
  return { TRILITH_SCHEMATHESIS: folder };
}

function installSchemathesis(folder: string): void {
  console.log(`  Installing Schemathesis ${SCHEMATHESIS_VERSION} with pip, once`);
  const quiet = ["--quiet", "--disable-pip-version-check", "--no-input"];
  const target = `${folder}.temporary`;
  const what = `schemathesis==${SCHEMATHESIS_VERSION}`;
  const args = ["-m", "pip", "install", ...quiet, "--target", target, what];
  const { status, stderr, error } = spawnSync("python3", args, { encoding: "utf8" });
  if (status === 0) fs.renameSync(target, folder);
  else console.log(`  pip failed: ${error?.message ?? stderr.trim()}`);
}

/** The package that the benchmark of peers installs too; tests of converted files run it. */
function prepareLlamaCpp(): Variables {
  try {
    const folder = installPeer((message) => console.log(`  ${message}`));
    console.log(`  node-llama-cpp ${PACKAGE_VERSION}`);
    return { TRILITH_LLAMA_CPP: folder };
  } catch (error) {
    console.log(`  node-llama-cpp: ${(error as Error).message}`);
    return {};
  }
}

/** Runs programs for 64-bit ARM. */
function prepareQemu(): void {
  if ("missing" in aarch64Runner()) installPackage("qemu-user");
  const runner = aarch64Runner();
  console.log(
    "missing" in runner
      ? `  NEON: ${runner.missing}`
      : `  NEON: ${runner.command[0] ?? "this CPU has it"}`,
  );
}

/** Opens the web chat. */
function prepareChromium(): void {
  if ("missing" in chromium()) installPackage("chromium");
  const browser = chromium();
  console.log(`  Browser: ${"missing" in browser ? browser.missing : browser.command[0]}`);
}

/** Only where it needs nobody's consent: a build machine's own root, or sudo without a password. */
function installPackage(name: string): void {
  if (process.platform !== "linux") return;
  const sudo = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
  console.log(`  Installing ${name} with apt-get, once`);
  for (const args of [["update", "-q"], ["install", "-qy", "--no-install-recommends", name]]) {
    const [program, ...rest] = [...sudo, "apt-get", ...args];
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const { status, stderr, error } = spawnSync(program, rest, { encoding: "utf8", env });
    if (status !== 0) console.log(`  apt-get failed: ${error?.message ?? stderr.trim()}`);
  }
}

// ---------------------------------------------------------------- checks

const SUMMARY =
  /^(?:ok|FAILED) \| (\d+) passed(?: \(.*?\))? \| (\d+) failed(?: \(.*?\))?(?: \| (\d+) ignored)?/m;

/** From Deno's last line. A run that ended badly without one, or without a failure, is a failure. */
function testCounts(output: string, status: number | null): Counts {
  const found = SUMMARY.exec(stripVTControlCharacters(output));
  const [passed, failed, skipped] = (found ?? []).slice(1).map((text) => Number(text ?? 0));
  const counts = { passed: passed ?? 0, failed: failed ?? 0, skipped: skipped ?? 0 };
  return status !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

/** Deno's report of what failed: from its heading on, all of it. */
function errorsOf(output: string): string {
  const text = stripVTControlCharacters(output);
  return text.slice(Math.max(text.search(/^ ERRORS $/m), 0)).slice(-MOST_ERROR_CHARACTERS);
}

/** Imports of tests/ that lead to the conformance data. */
const NEEDS_DATA = /from "[^"]*\/(fixtures|tokenizer_fixtures|golden_models)\.ts"/;

/** Folders whose tests are many and short: each is one process's. */
const SHORT_FOLDERS = ["kernels", "runtime", "api", "cli", "bench", "codegen", "models", "docs"];

/** Tests that take longest, which begin first. */
const LONG_FILES = [
  "tests/bit_exact_test.ts",
  "tests/neon_test.ts",
  "tests/tune_test.ts",
  "tests/schemathesis_test.ts",
];

/**
 * Files that one process tests after the other, several processes at a time: tests change their
 * process's variables and current folder, so that files can't share one at the same time.
 */
function testGroups(left: readonly string[]): string[][] {
  const files = testFiles().filter((file) => !left.includes(file));
  const inFolder = (folder: string) => files.filter((file) => file.startsWith(`${folder}/`));
  const shared = SHORT_FOLDERS.map(inFolder).filter((group) => group.length > 0);
  const long = LONG_FILES.filter((file) => files.includes(file));
  const others = files.filter((file) => !long.includes(file) && !shared.flat().includes(file));
  return [...long.map((file) => [file]), ...shared, ...others.map((file) => [file])];
}

function testFiles(): string[] {
  return fs.readdirSync(ROOT, { recursive: true, encoding: "utf8" })
    .map((file) => file.replaceAll(path.sep, "/"))
    .filter((file) => file.endsWith("_test.ts") && !file.startsWith("coverage/"))
    .sort();
}

/**
 * Test files that can't run as the conformance data is not beside the project. It is not part of the
 * repository; build machines have it, and there its absence is a failure.
 */
function testsWithoutData(): string[] {
  if (IS_CI || fs.existsSync(fixturePath("README.md"))) return [];
  return testFiles().filter((file) =>
    NEEDS_DATA.test(fs.readFileSync(path.join(ROOT, file), "utf8"))
  );
}

function checksOf(zig: string): Check[] {
  const deno = Deno.execPath();
  const left = testsWithoutData();
  if (left.length > 0) {
    console.log(`  Skipped, as ../shared/fixtures is not there: ${left.join(", ")}`);
  }
  return [
    { name: "deno fmt", commands: [[deno, "fmt", "--check"]] },
    { name: "deno lint", commands: [[deno, "lint"]] },
    { name: "deno check", commands: [[deno, "check", "--quiet"]] },
    { name: "zig fmt", commands: [[zig, "fmt", "--check", "."]] },
    {
      name: "deno test",
      // Types are checked above: a mistake in one file must not hide the tests of all others.
      commands: testGroups(left).map((files) => [deno, "test", "-A", "--no-check", ...files]),
      countsOf: testCounts,
      skipped: left.length,
      failuresOf: errorsOf,
    },
  ];
}

/** Runs a check's commands, the first ones first, on all CPUs. */
async function run(check: Check, variables: Variables): Promise<Outcome> {
  heading(check.name);
  const startedMs = performance.now();
  const waiting = [...check.commands];
  const outcome: Outcome = {
    name: check.name,
    counts: { ...NO_COUNTS, skipped: check.skipped ?? 0 },
    seconds: 0,
    failures: "",
  };
  const work = async () => {
    for (let command = waiting.shift(); command !== undefined; command = waiting.shift()) {
      const { status, output } = await runShowing(command, variables, check.commands.length > 1);
      const counts = check.countsOf?.(output, status) ??
        { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: 0 };
      outcome.counts = sumOf(outcome.counts, counts);
      if (counts.failed > 0) outcome.failures += check.failuresOf?.(output) ?? "";
    }
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, work));
  outcome.seconds = (performance.now() - startedMs) / 1000;
  return outcome;
}

function sumOf(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

/** Shows the output, as it comes or whole at the end, and keeps it. */
function runShowing(
  [program, ...args]: readonly string[],
  variables: Variables,
  whole: boolean,
): Promise<{ status: number | null; output: string }> {
  const child = spawn(program, args, {
    cwd: ROOT,
    env: { ...process.env, ...variables },
    stdio: ["ignore", "pipe", "inherit"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (!whole) process.stdout.write(text);
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => {
      if (whole) process.stdout.write(output);
      resolve({ status, output });
    });
  });
}

function report(outcomes: readonly Outcome[]): Counts {
  heading("summary");
  for (const { name, counts, seconds } of outcomes) {
    console.log(`  ${name.padEnd(12)} ${textOf(counts)} (${seconds.toFixed(1)} s)`);
  }
  return outcomes.reduce((total, { counts }) => sumOf(total, counts), NO_COUNTS);
}

function textOf({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

async function main(): Promise<number> {
  heading(`tools${IS_CI ? " (CI: all are needed)" : ""}`);
  prepareQemu();
  prepareChromium();
  const variables = {
    ...await prepareZig(),
    ...prepareBun(),
    ...prepareSchemathesis(),
    ...prepareLlamaCpp(),
  };
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-tests-"));
  try {
    // Nothing that a run leaves behind can help or harm the next one.
    const environment = { ...variables, TRILITH_CACHE: path.join(scratch, "cache") };
    const outcomes: Outcome[] = [];
    for (const check of checksOf(variables.TRILITH_ZIG)) {
      outcomes.push(await run(check, environment));
    }
    const total = report(outcomes);
    for (const { failures } of outcomes) if (failures !== "") console.log(`\n${failures}`);
    console.log(`\n${textOf(total)}`);
    return total.failed === 0 ? 0 : 1;
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

if (import.meta.main) process.exit(await main());
