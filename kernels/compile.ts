/**
 * From Zig source text to a shared library in the cache. A library is found again by what went into
 * it, and trusted only after its own hash has been checked.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import type { Isa } from "../codegen/isa.ts";
import {
  cacheDirectory,
  publishDirectory,
  removeDirectory,
  removeStaleTemporaries,
  withLock,
} from "./cache.ts";
import { readTextIfAllowed } from "./permissions.ts";
import { RunError, runProgram, type RunResult } from "./process.ts";
import type { Zig } from "./toolchain.ts";

/** What code is compiled for; the default is this machine. */
export interface Target {
  arch: "x86_64" | "aarch64";
  os: "linux" | "macos" | "windows";
  /** C library that shared libraries on Linux are loaded beside. Default gnu. */
  abi?: "gnu" | "musl";
}

export interface CompileRequest {
  /** File name to text. File names have no folders. */
  sources: ReadonlyMap<string, string>;
  /** The source that is compiled; it imports the others. Default "kernels.zig". */
  root?: string;
  isa: Isa;
  target?: Target;
  /** The compiler's name of a CPU in place of the instruction set's: other encodings, for tests. */
  cpu?: string;
  /** Of a library: keep its assembly beside it, as `kernels.s`, if it is not in the cache already. */
  withAssembly?: boolean;
}

/** Structurally one of `runtime/types.ts`'s Progress. */
export interface CompileProgress {
  phase: "compile";
  message: string;
}

export interface CompileOptions {
  onProgress?: (progress: CompileProgress) => void;
  signal?: AbortSignal;
}

export interface Compiled {
  path: string;
  /** SHA-256 of sources, compiler version and flags, in hex. */
  key: string;
  /** False when it was in the cache. */
  compiled: boolean;
  compileMs: number;
}

/** Zig refused the sources, or could not be run. The sources are kept at `sourcePath`. */
export class CompileError extends Error {
  override readonly name = "CompileError";
  constructor(message: string, readonly sourcePath: string) {
    super(message);
  }
}

/** Compilation takes about a second; this only ends one that hangs. */
const TIMEOUT_MS = 10 * 60_000;
const MANIFEST = "manifest.json";
export const ASSEMBLY = "kernels.s";

/**
 * Compiles a shared library, or finds it in the cache.
 *
 * @throws {CompileError} If Zig reports errors.
 * @throws {CacheError} If the cache directory can't be written.
 * @throws {RangeError} If the target's architecture lacks the ISA.
 */
export function compileLibrary(
  zig: Zig,
  request: CompileRequest,
  options: CompileOptions = {},
): Promise<Compiled> {
  const { os } = request.target ?? hostTarget();
  const extension = { linux: "so", macos: "dylib", windows: "dll" }[os];
  return build(zig, request, options, {
    output: `libtrilith.${extension}`,
    command: ["build-lib", "-dynamic", "-fPIC", "-fstrip"],
    emit: (file) => [
      `-femit-bin=${file}`,
      ...(request.withAssembly ? [`-femit-asm=${path.join(path.dirname(file), ASSEMBLY)}`] : []),
    ],
  });
}

/** The assembly text (Intel syntax) of what `compileLibrary` would build. Throws as that does. */
export async function assemble(
  zig: Zig,
  request: CompileRequest,
  options: CompileOptions = {},
): Promise<string> {
  const compiled = await build(zig, request, options, {
    output: ASSEMBLY,
    command: ["build-lib", "-dynamic", "-fPIC", "-fstrip"],
    emit: (file) => [`-femit-asm=${file}`, "-fno-emit-bin"],
  });
  return fs.readFileSync(compiled.path, "utf8");
}

/**
 * A program whose root has a `main`, such as a test that an emulator runs: on Linux it is static and
 * without libc, so that it needs no files of the target's system. Throws as `compileLibrary` does.
 */
export function compileExecutable(
  zig: Zig,
  request: CompileRequest,
  options: CompileOptions = {},
): Promise<Compiled> {
  const { os } = request.target ?? hostTarget();
  return build(zig, request, options, {
    output: os === "windows" ? "trilith.exe" : "trilith",
    command: ["build-exe", "-fstrip"],
    noLibc: os === "linux",
    emit: (file) => [`-femit-bin=${file}`],
  });
}

// ---------------------------------------------------------------- what to compile for

/**
 * This machine, as a target.
 *
 * @throws {RangeError} If no kernels can be generated for it.
 */
export function hostTarget(): Target {
  const arch = ({ x64: "x86_64", arm64: "aarch64" } as const)[process.arch as "x64"];
  const os =
    ({ linux: "linux", darwin: "macos", win32: "windows" } as const)[process.platform as "linux"];
  if (arch === undefined || os === undefined) {
    throw new RangeError(
      `Cannot compile kernels for this machine as it must be x86_64 or aarch64 with Linux, macOS or ` +
        `Windows: it is ${process.arch} with ${process.platform}, use --kernels reference`,
    );
  }
  return os === "linux" ? { arch, os, abi: linuxAbi() } : { arch, os };
}

/** A process that has musl's loader mapped can't load a library that asks for glibc. */
function linuxAbi(): "gnu" | "musl" {
  return /\/ld-musl-/.test(readTextIfAllowed("/proc/self/maps") ?? "") ? "musl" : "gnu";
}

/** Levels that the compiler may use all of; `cpu.ts` asks a CPU for the same features. */
const LEVELS: Record<Isa, { arch?: Target["arch"]; cpu: string }> = {
  // LLVM shies from 512-bit registers on CPUs that once clocked down for them.
  avx512: { arch: "x86_64", cpu: "x86_64_v4-prefer_256_bit+avx512vnni+avx512vbmi" },
  avxvnni: { arch: "x86_64", cpu: "x86_64_v3+avxvnni" },
  avx2: { arch: "x86_64", cpu: "x86_64_v3" },
  "neon-i8mm": { arch: "aarch64", cpu: "generic+dotprod+i8mm" },
  "neon-dotprod": { arch: "aarch64", cpu: "generic+dotprod" },
  neon: { arch: "aarch64", cpu: "generic" },
  portable: { cpu: "baseline" },
};

/**
 * The triple is always explicit: for a bare native one Zig would link against the system's gcc, if
 * there is one. glibc 2.17 is the oldest that Deno itself runs on.
 */
function tripleOf({ arch, os, abi = "gnu" }: Target): string {
  if (os === "linux") return `${arch}-linux-${abi === "gnu" ? "gnu.2.17" : abi}`;
  return os === "windows" ? `${arch}-windows-gnu` : `${arch}-macos`;
}

/** Flags that decide what the result is, without paths. */
function flagsFor({ isa, cpu = LEVELS[isa].cpu }: CompileRequest, target: Target): string[] {
  const { arch } = LEVELS[isa];
  if (arch !== undefined && arch !== target.arch) {
    throw new RangeError(
      `Cannot compile ${isa} kernels as they need an ${arch} target: current value is ${target.arch}`,
    );
  }
  return ["-O", "fast", "-fllvm", "-target", tripleOf(target), `-mcpu=${cpu}`];
}

// ---------------------------------------------------------------- building

/** What is made of the sources. */
interface Product {
  /** Name of the result's file. */
  output: string;
  command: readonly string[];
  noLibc?: boolean;
  /** Flags that put the result into a file. */
  emit: (file: string) => string[];
}

/** All that a build needs, its flags put together. */
interface Job extends Product {
  sources: ReadonlyMap<string, string>;
  root: string;
  isa: Isa;
  flags: string[];
  key: string;
}

async function build(
  zig: Zig,
  request: CompileRequest,
  options: CompileOptions,
  product: Product,
): Promise<Compiled> {
  const job = describe(zig, request, product);
  const folder = cacheDirectory("kernels");
  const cached = findVerified(folder, job);
  if (cached !== null) return cached;
  const onWait = (pid: number) =>
    report(options, `Waiting for process ${pid}, which compiles the same kernels`);
  return await withLock(folder, job.key, async () => {
    const meanwhile = findVerified(folder, job);
    if (meanwhile !== null) return meanwhile;
    removeStaleTemporaries(folder);
    removeDirectory(folder, job.key);
    report(options, `Compiling kernels for ${job.isa} with Zig ${zig.version}`);
    const started = performance.now();
    await publishDirectory(folder, job.key, (into) => compileInto(into, folder, zig, job, options));
    const compileMs = performance.now() - started;
    return { path: outputPath(folder, job), key: job.key, compiled: true, compileMs };
  }, { onWait, signal: options.signal });
}

function report(options: CompileOptions, message: string): void {
  options.onProgress?.({ phase: "compile", message });
}

function outputPath(folder: string, job: Job): string {
  return path.join(folder, job.key, job.output);
}

function describe(zig: Zig, request: CompileRequest, product: Product): Job {
  const { sources, root = "kernels.zig", isa } = request;
  if (!sources.has(root)) {
    throw new TypeError(
      `Cannot compile kernels as the sources must hold ${root}: there are ${[...sources.keys()]}`,
    );
  }
  const target = request.target ?? hostTarget();
  // Threads in a shared library need libc on Linux; on Windows it would compile all of mingw's.
  const libc = product.noLibc || target.os === "windows" ? [] : ["-lc"];
  const flags = [...product.command, ...flagsFor(request, target), ...libc];
  const files = [...sources].sort(([a], [b]) => a < b ? -1 : 1);
  const identity = JSON.stringify([zig.version, product.output, root, flags, files]);
  const key = createHash("sha256").update(identity).digest("hex");
  return { ...product, sources, root, isa, flags, key };
}

/** What is kept beside a result: how it was made, and the hash by which it is trusted. */
interface Manifest {
  zigVersion: string;
  isa: Isa;
  flags: string[];
  sha256: string;
}

async function compileInto(
  into: string,
  folder: string,
  zig: Zig,
  job: Job,
  options: CompileOptions,
): Promise<void> {
  const sourceFolder = path.join(into, "source");
  writeSources(sourceFolder, job);
  const file = path.join(into, job.output);
  const { code, stderr } = await runZig(zig, job, sourceFolder, file, options).catch(startFailure);
  if (code !== 0 || !fs.existsSync(file)) {
    const kept = keepSources(folder, job);
    const ending = `${zig.path} ended with status ${code}`;
    throw new CompileError(failureMessage(job, kept, sourceFolder, ending, stderr), kept);
  }
  fs.rmSync(path.join(into, "zig-cache"), { recursive: true, force: true });
  const manifest: Manifest = {
    zigVersion: zig.version,
    isa: job.isa,
    flags: job.flags,
    sha256: sha256Of(fs.readFileSync(file)),
  };
  fs.writeFileSync(path.join(into, MANIFEST), JSON.stringify(manifest, null, 2) + "\n");
}

function writeSources(folder: string, job: Job): void {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  for (const [name, text] of job.sources) fs.writeFileSync(path.join(folder, name), text);
}

/** Where a failed build's sources can be looked at: the temporary folder goes. */
function keepSources(folder: string, job: Job): string {
  const kept = path.join(folder, `failed-${job.key.slice(0, 16)}`);
  writeSources(kept, job);
  return path.join(kept, job.root);
}

/**
 * Zig's global cache is shared, as it holds the C library's stubs (3-5 s for each new target); the
 * local one is of no further use. A failure without a place in a source may come from a shared cache
 * that was damaged, so that it is tried again with an empty one.
 */
async function runZig(
  zig: Zig,
  job: Job,
  sourceFolder: string,
  file: string,
  options: CompileOptions,
): Promise<RunResult> {
  const scratch = path.join(path.dirname(file), "zig-cache");
  const compile = (globalCache: string) => {
    const caches = ["--cache-dir", path.join(scratch, "local"), "--global-cache-dir", globalCache];
    const paths = [...job.emit(file), ...caches, path.join(sourceFolder, job.root)];
    return runProgram(zig.path, [...job.flags, "--color", "off", ...paths], {
      signal: options.signal,
      timeoutMs: TIMEOUT_MS,
    });
  };
  const result = await compile(cacheDirectory("zig"));
  if (result.code === 0 || /\.zig:\d+:\d+: error:/.test(result.stderr)) return result;
  return await compile(path.join(scratch, "global"));
}

/** Enough for the first error and its notes. */
const ERROR_LINES = 12;

function failureMessage(
  job: Job,
  kept: string,
  sourceFolder: string,
  ending: string,
  stderr: string,
): string {
  const lines = stderr.replaceAll(sourceFolder + path.sep, "").trim().split("\n");
  const shown = lines.slice(0, ERROR_LINES).map((line) => `  ${line}`);
  return `Cannot compile the ${job.isa} kernels: ${ending}, the source is kept at ${kept}` +
    `, the first errors are\n${shown.join("\n")}`;
}

/** A compiler that can't be started is told as one that failed. */
function startFailure(error: unknown): Omit<RunResult, "stdout"> {
  if (error instanceof RunError) return { code: null, stderr: error.message };
  throw error;
}

// ---------------------------------------------------------------- finding again

/** A result that is whole, or null. What is damaged is left for the builder, which has the lock. */
function findVerified(folder: string, job: Job): Compiled | null {
  const file = outputPath(folder, job);
  const manifest = readManifest(path.join(folder, job.key));
  if (manifest === null || sha256OfFile(file) !== manifest.sha256) return null;
  return { path: file, key: job.key, compiled: false, compileMs: 0 };
}

function readManifest(folder: string): Manifest | null {
  try {
    const manifest = JSON.parse(fs.readFileSync(path.join(folder, MANIFEST), "utf8"));
    return typeof manifest?.sha256 === "string" ? manifest : null;
  } catch (error) {
    // Absent or damaged; what may not be read is the person's to hear of.
    if ((error as Error).name === "NotCapable") throw error;
    return null;
  }
}

function sha256OfFile(file: string): string | null {
  try {
    return sha256Of(fs.readFileSync(file));
  } catch {
    return null;
  }
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** One result in the cache, for `kernels list`. */
export interface CachedKernels {
  key: string;
  path: string;
  isa: Isa;
  zigVersion: string;
  bytes: number;
  compiledAt: Date;
}

/** Shared libraries in the cache, newest first. Unfinished and damaged ones are left out. */
export function listLibraries(): CachedKernels[] {
  const folder = cacheDirectory("kernels");
  const keys = fs.readdirSync(folder).filter((name) => /^[0-9a-f]{64}$/.test(name));
  const found = keys.flatMap((key) => {
    const manifest = readManifest(path.join(folder, key));
    const name = fs.readdirSync(path.join(folder, key)).find((name) => /^libtrilith\./.test(name));
    if (manifest === null || name === undefined) return [];
    const file = path.join(folder, key, name);
    const { size: bytes, mtime: compiledAt } = fs.statSync(file);
    const { isa, zigVersion } = manifest;
    return [{ key, path: file, isa, zigVersion, bytes, compiledAt }];
  });
  return found.sort((a, b) => b.compiledAt.getTime() - a.compiledAt.getTime());
}

/** Deletes all compiled kernels; processes that have loaded one keep it. @returns How many. */
export function clearLibraries(): number {
  const folder = cacheDirectory("kernels");
  removeStaleTemporaries(folder);
  const names = fs.readdirSync(folder).filter((name) => /^(failed-)?[0-9a-f]{16,64}$/.test(name));
  for (const name of names) removeDirectory(folder, name);
  return names.filter((name) => !name.startsWith("failed-")).length;
}
