/**
 * The Zig compiler: found on this machine, or fetched once into Trilith's cache by the user's own
 * package tools. Sources are tried in a fixed order and every failure is kept for the final error.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import {
  cacheDirectory,
  CacheError,
  publishDirectory,
  removeDirectory,
  removeStaleTemporaries,
  throwCacheError,
  withLock,
} from "./cache.ts";
import { environmentVariable, isGranted } from "./permissions.ts";
import { findOnPath, runProgram } from "./process.ts";

/** The version that is fetched. Any 0.17.x is taken when it is there; other minors break sources. */
export const ZIG_VERSION = "0.17.1";
const SUPPORTED = /^0\.17\.\d+$/;

export type ZigSource = "TRILITH_ZIG" | "PATH" | "cache" | "uv" | "pip" | "archive";

export interface Zig {
  path: string;
  version: string;
  source: ZigSource;
}

/** Structurally one of `runtime/types.ts`'s Progress. */
export interface ToolchainProgress {
  phase: "toolchain";
  message: string;
  done?: number;
  total?: number;
  unit?: "bytes";
}

export interface EnsureZigOptions {
  onProgress?: (progress: ToolchainProgress) => void;
  signal?: AbortSignal;
  /** For one package tool or one download; default 20 minutes. */
  timeoutMs?: number;
}

/** One source that was tried and why it did not give a compiler. */
export interface Attempt {
  source: string;
  reason: string;
  /** The program that it needs and that is not on PATH. */
  absent?: string;
}

/** No usable Zig compiler. */
export class ToolchainError extends Error {
  override readonly name = "ToolchainError";
  constructor(message: string, readonly attempts: readonly Attempt[] = []) {
    super(message);
  }
}

const TOOLCHAIN = `zig-${ZIG_VERSION}`;
const WHEEL = `ziglang==${ZIG_VERSION}`;
/** Size of the wheel and of what it unpacks to, for progress only. */
const UNPACKED_BYTES = 413e6;
/** Archives are about 55 MB for Linux and 95 MB for Windows. */
const ARCHIVE_LIMIT_BYTES = 256e6;
const DEFAULT_TIMEOUT_MS = 20 * 60_000;

/**
 * SHA-256 of ziglang.org's archives by name. Empty, as no hash could be verified when this was
 * written: the archive is then used only with TRILITH_ZIG_SHA256, never unchecked. Whoever adds a
 * row takes it from https://ziglang.org/download/index.json and checks the minisign signature.
 */
const ARCHIVE_SHA256: Readonly<Record<string, string>> = {};

/** For people who have none. */
export const ZIG_REMEDY =
  `install Zig 0.17 (pip install ${WHEEL}, or https://ziglang.org/download) and ` +
  `put it on PATH or name its binary in TRILITH_ZIG`;

/**
 * A Zig compiler, from the first of: TRILITH_ZIG, a 0.17.x on PATH, Trilith's cache, the PyPI wheel
 * by uv or pip, ziglang.org's archive.
 *
 * @throws {ToolchainError} If TRILITH_ZIG is set and wrong, or if no source works.
 * @throws {CacheError} If the cache directory can't be written.
 */
export async function ensureZig(options: EnsureZigOptions = {}): Promise<Zig> {
  const attempts: Attempt[] = [];
  const found = await search(attempts, options.signal);
  if (found !== null) return found;
  const folder = cacheDirectory("toolchain");
  const onWait = (pid: number) =>
    report(options, `Waiting for process ${pid}, which is fetching the Zig compiler`);
  const locked = { onWait, signal: options.signal };
  return await withLock(folder, TOOLCHAIN, async () => {
    const cached = await cachedZig(attempts, options.signal);
    if (cached !== null) return cached;
    removeStaleTemporaries(folder);
    removeDirectory(folder, TOOLCHAIN);
    return await install(folder, attempts, options);
  }, locked);
}

/**
 * A Zig compiler that is already on this machine, or null. Fetches nothing.
 *
 * @throws {ToolchainError} If TRILITH_ZIG is set and wrong.
 */
export function findZig(signal?: AbortSignal): Promise<Zig | null> {
  return search([], signal);
}

async function search(attempts: Attempt[], signal?: AbortSignal): Promise<Zig | null> {
  return await chosenZig(signal) ?? await zigOnPath(attempts, signal) ??
    await cachedZig(attempts, signal);
}

// ---------------------------------------------------------------- on this machine

async function chosenZig(signal?: AbortSignal): Promise<Zig | null> {
  const chosen = environmentVariable("TRILITH_ZIG");
  if (chosen === null) return null;
  const probed = await probe(chosen, signal);
  if ("reason" in probed || !SUPPORTED.test(probed.version)) {
    const why = "reason" in probed ? probed.reason : `it is version ${probed.version}`;
    throw new ToolchainError(
      `Cannot use TRILITH_ZIG as it must be the path of a Zig 0.17.x binary: current value is ` +
        `${chosen} (${why}), correct it or unset it so that Trilith finds one`,
    );
  }
  return { path: chosen, version: probed.version, source: "TRILITH_ZIG" };
}

async function zigOnPath(attempts: Attempt[], signal?: AbortSignal): Promise<Zig | null> {
  const candidates = findOnPath("zig");
  if (candidates.length === 0) attempts.push(notOnPath("zig", "zig"));
  for (const candidate of candidates) {
    const probed = await probe(candidate, signal);
    if (!("reason" in probed) && SUPPORTED.test(probed.version)) {
      return { path: candidate, version: probed.version, source: "PATH" };
    }
    const reason = "reason" in probed
      ? probed.reason
      : `it is version ${probed.version}, 0.17.x is needed`;
    attempts.push({ source: candidate, reason });
  }
  return null;
}

/**
 * Damaged ones are left for the installer to replace, which has the lock.
 *
 * @throws {ToolchainError} If Deno may not run it: what can't be tried must not count as damaged.
 */
async function cachedZig(attempts: Attempt[], signal?: AbortSignal): Promise<Zig | null> {
  const folder = path.join(cacheDirectory("toolchain"), TOOLCHAIN);
  if (!fs.existsSync(folder)) return null;
  refuseUntried(folder);
  const checked = await checkToolchain(folder, signal);
  if (!("reason" in checked)) return { ...checked, source: "cache" };
  attempts.push({ source: folder, reason: `damaged: ${checked.reason}` });
  return null;
}

function refuseUntried(folder: string): void {
  const home = zigHome(folder);
  if (home === undefined) return;
  const binary = path.join(home, ZIG_BINARY);
  if (isGranted({ name: "run", command: binary })) return;
  throw new ToolchainError(
    `Cannot run the Zig compiler ${binary}: Deno does not allow it, add --allow-run=${binary}`,
  );
}

type Failure = { reason: string };

const ZIG_BINARY = process.platform === "win32" ? "zig.exe" : "zig";

/** The folder with the binary and its library: wheels have it one level down. */
function zigHome(folder: string): string | undefined {
  return [path.join(folder, "ziglang"), folder].find((home) =>
    fs.existsSync(path.join(home, ZIG_BINARY))
  );
}

/** Asks a binary for its version, which also shows that it runs here. */
async function probe(binary: string, signal?: AbortSignal): Promise<{ version: string } | Failure> {
  if (!isGranted({ name: "run", command: binary })) {
    return { reason: `Deno may not run it, add --allow-run=${binary}` };
  }
  try {
    const { code, stdout, stderr } = await runProgram(binary, ["version"], {
      signal,
      timeoutMs: 30_000,
    });
    if (code === 0) return { version: stdout.trim().slice(0, 40) };
    return { reason: `\`zig version\` failed with status ${code}${lastLine(stderr)}` };
  } catch (error) {
    signal?.throwIfAborted();
    return { reason: (error as Error).message };
  }
}

/** The folder must hold what compiling needs first. */
async function checkToolchain(
  folder: string,
  signal?: AbortSignal,
): Promise<{ path: string; version: string } | Failure> {
  const home = zigHome(folder);
  if (home === undefined) return { reason: "it holds no zig binary" };
  const lacking = ["lib/std/std.zig", "lib/compiler_rt.zig"]
    .find((file) => !fs.existsSync(path.join(home, file)));
  if (lacking !== undefined) return { reason: `it lacks ${lacking}` };
  const binary = path.join(home, ZIG_BINARY);
  const probed = await probe(binary, signal);
  if ("reason" in probed) return probed;
  if (probed.version === ZIG_VERSION) return { path: binary, version: probed.version };
  return { reason: `its version is ${probed.version}` };
}

// ---------------------------------------------------------------- fetching

interface PackageTool {
  source: "uv" | "pip";
  program: string;
  args: readonly string[];
}

const PIP = ["install", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"];
const PACKAGE_TOOLS: readonly PackageTool[] = [
  { source: "uv", program: "uv", args: ["pip", "install"] },
  { source: "pip", program: "python3", args: ["-m", "pip", ...PIP] },
  { source: "pip", program: "pip", args: PIP },
  { source: "pip", program: "python", args: ["-m", "pip", ...PIP] },
  { source: "pip", program: "py", args: ["-m", "pip", ...PIP] },
];

async function install(
  folder: string,
  attempts: Attempt[],
  options: EnsureZigOptions,
): Promise<Zig> {
  const sources = [
    ...PACKAGE_TOOLS.map(({ source, program, args }) => ({
      source,
      program,
      name: [program, ...args.slice(0, args.indexOf("install") + 1), WHEEL].join(" "),
      fill: (into: string) => installWheel(program, args, into, options),
    })),
    {
      source: "archive" as const,
      name: archiveUrl().href,
      fill: (into: string) => installArchive(into, options),
    },
  ];
  for (const { source, name, fill, ...needed } of sources) {
    if ("program" in needed && findOnPath(needed.program).length === 0) {
      attempts.push(notOnPath(name, needed.program));
      continue;
    }
    const result = await tryInstall(folder, fill, options.signal);
    if (!("reason" in result)) return { ...result, source };
    attempts.push({ source: name, reason: result.reason });
  }
  throw new ToolchainError(
    `Cannot get the Zig compiler, which builds the kernels: ${told(attempts)}: ${ZIG_REMEDY}`,
    attempts,
  );
}

/** Whether one of the tools is here that fetch a compiler at the first run. */
export function hasPackageTool(): boolean {
  return PACKAGE_TOOLS.some(({ program }) => findOnPath(program).length > 0);
}

function notOnPath(source: string, program: string): Attempt {
  return { source, reason: `there is no ${program} on PATH`, absent: program };
}

/** In one line, programs that are not there together. */
function told(attempts: readonly Attempt[]): string {
  const absent = attempts.flatMap(({ absent }) => absent ?? []);
  const others = attempts.filter((attempt) => attempt.absent === undefined)
    .map(({ source, reason }) => `${source}: ${reason}`);
  const all = absent.length === 0
    ? others
    : [`there is no ${absent.join(", ")} on PATH`, ...others];
  return all.join("; ").replace(/\s+/g, " ");
}

/** Only a compiler that has shown that it runs is published. */
async function tryInstall(
  folder: string,
  fill: (into: string) => Promise<void>,
  signal?: AbortSignal,
): Promise<{ path: string; version: string } | Failure> {
  try {
    const published = await publishDirectory(folder, TOOLCHAIN, async (temporary) => {
      await fill(temporary);
      const checked = await checkToolchain(temporary, signal);
      if ("reason" in checked) throw new Error(`what was installed is unusable: ${checked.reason}`);
    });
    return await checkToolchain(published, signal);
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof CacheError) throw error;
    return { reason: (error as Error).message };
  }
}

async function installWheel(
  program: string,
  args: readonly string[],
  into: string,
  options: EnsureZigOptions,
): Promise<void> {
  const [binary] = findOnPath(program);
  if (!isGranted({ name: "run", command: binary })) {
    throw new Error(`Deno may not run it, add --allow-run=${program}`);
  }
  // pip unpacks in TMPDIR and then moves: on the same file system that is a rename, and seen below.
  const scratch = path.join(into, "scratch");
  fs.mkdirSync(scratch);
  const message = `Fetching the Zig compiler ${ZIG_VERSION} with ${program}, once`;
  const stop = watchGrowth(into, message, options);
  try {
    const { code, stderr } = await runProgram(
      binary,
      [...args, "--no-deps", "--only-binary", ":all:", "--target", into, WHEEL],
      {
        signal: options.signal,
        timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        // A `user = true` in pip's configuration would contradict --target.
        env: { TMPDIR: scratch, TEMP: scratch, TMP: scratch, PIP_USER: "0" },
      },
    );
    if (code !== 0) throw new Error(`it failed with status ${code}${lastLine(stderr)}`);
  } finally {
    stop();
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

/** Reports how much has arrived, about once a second. */
function watchGrowth(folder: string, message: string, options: EnsureZigOptions): () => void {
  report(options, message, 0, UNPACKED_BYTES);
  if (options.onProgress === undefined) return () => {};
  const timer = setInterval(() => {
    report(options, message, Math.min(folderBytes(folder), UNPACKED_BYTES), UNPACKED_BYTES);
  }, 1000);
  return () => clearInterval(timer);
}

/** Files come and go while they are counted: what has vanished counts nothing. */
function folderBytes(folder: string): number {
  let bytes = 0;
  try {
    for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
      const name = path.join(folder, entry.name);
      if (entry.isDirectory()) bytes += folderBytes(name);
      else if (entry.isFile()) bytes += fs.statSync(name, { throwIfNoEntry: false })?.size ?? 0;
    }
  } catch {
    // The folder itself has vanished.
  }
  return bytes;
}

function report(options: EnsureZigOptions, message: string, done?: number, total?: number): void {
  const sizes = done === undefined ? {} : { done, total, unit: "bytes" as const };
  options.onProgress?.({ phase: "toolchain", message, ...sizes });
}

/** `: text` of the last line that says something, for the end of a message. */
function lastLine(text: string): string {
  const line = text.trim().split("\n").findLast((line) => /^\s*error|error:/i.test(line)) ??
    text.trim().split("\n").at(-1)!;
  return line === "" ? "" : `: ${line.trim().slice(0, 300)}`;
}

// ---------------------------------------------------------------- ziglang.org's archive

const ARCHIVE_ARCH: Record<string, string> = { x64: "x86_64", arm64: "aarch64" };
const ARCHIVE_OS: Record<string, string> = { linux: "linux", darwin: "macos", win32: "windows" };

function archiveName(): string {
  const arch = ARCHIVE_ARCH[process.arch] ?? process.arch;
  const os = ARCHIVE_OS[process.platform] ?? process.platform;
  return `zig-${arch}-${os}-${ZIG_VERSION}.${os === "windows" ? "zip" : "tar.xz"}`;
}

function archiveUrl(): URL {
  const mirror = environmentVariable("TRILITH_ZIG_MIRROR") ??
    `https://ziglang.org/download/${ZIG_VERSION}`;
  return new URL(archiveName(), mirror.endsWith("/") ? mirror : `${mirror}/`);
}

async function installArchive(into: string, options: EnsureZigOptions): Promise<void> {
  const expected = environmentVariable("TRILITH_ZIG_SHA256") ?? ARCHIVE_SHA256[archiveName()];
  if (expected === undefined) {
    throw new Error(
      "no verified SHA-256 of it is known here, set TRILITH_ZIG_SHA256 to the one that " +
        "ziglang.org/download shows",
    );
  }
  const url = archiveUrl();
  if (!isGranted({ name: "net", host: url.host })) {
    throw new Error(`Deno may not reach ${url.host}, add --allow-net=${url.host}`);
  }
  const archive = path.join(into, "archive");
  const actual = await download(url, archive, options);
  if (actual !== expected.toLowerCase()) {
    throw new Error(
      `its SHA-256 must be ${expected} but is ${actual}: it is damaged or not genuine`,
    );
  }
  await unpack(archive, into, options);
  fs.rmSync(archive);
}

/** Streams a file to disk. @returns Its SHA-256 in hex. */
async function download(url: URL, file: string, options: EnsureZigOptions): Promise<string> {
  const timeout = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const signal = AbortSignal.any([timeout, ...(options.signal ? [options.signal] : [])]);
  const response = await fetch(url, { signal });
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    throw new Error(`the server answered ${response.status} ${response.statusText}`);
  }
  const total = Number(response.headers.get("content-length")) || undefined;
  const message = `Downloading the Zig compiler ${ZIG_VERSION} from ${url.host}, once`;
  const hash = createHash("sha256");
  const handle = await open(file, "wx", 0o600);
  try {
    let done = 0, told = 0;
    for await (const chunk of response.body) {
      done += chunk.length;
      if (done > ARCHIVE_LIMIT_BYTES) {
        throw new Error(
          `it is larger than ${ARCHIVE_LIMIT_BYTES / 1e6} MB, which no Zig archive is`,
        );
      }
      hash.update(chunk);
      await writeAll(handle, chunk);
      if (done - told > 1e6) report(options, message, told = done, total);
    }
    if (total !== undefined && done < total && !response.headers.has("content-encoding")) {
      throw new Error(`it was cut off after ${done} of ${total} bytes`);
    }
  } catch (error) {
    throwCacheError(path.dirname(path.dirname(file)), error);
  } finally {
    await handle.close();
  }
  return hash.digest("hex");
}

type Writable = { write(bytes: Uint8Array): Promise<{ bytesWritten: number }> };

/** A write may take less than it is given. */
async function writeAll(handle: Writable, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += (await handle.write(bytes.subarray(at))).bytesWritten;
  }
}

/** By the system's tar, which on Windows reads zip files too. */
async function unpack(archive: string, into: string, options: EnsureZigOptions): Promise<void> {
  const tar = findOnPath("tar")[0];
  if (tar === undefined) throw new Error("there is no tar on PATH to unpack it");
  report(options, "Unpacking the Zig compiler");
  const { code, stderr } = await runProgram(
    tar,
    ["-xf", archive, "-C", into, "--strip-components=1"],
    { signal: options.signal, timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS },
  );
  if (code !== 0) throw new Error(`tar failed with status ${code}${lastLine(stderr)}`);
}
