import os from "node:os";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import {
  type Cpu,
  defaultThreads,
  detectCpu,
  detectCpuWithZig,
  supportedIsas,
} from "../kernels/cpu.ts";
import {
  findZig,
  hasPackageTool,
  type Zig,
  ZIG_REMEDY,
  ZIG_VERSION,
} from "../kernels/toolchain.ts";
import { listLibraries } from "../kernels/compile.ts";
import { isGranted, type PermissionQuery } from "../kernels/permissions.ts";
import { folderBytes } from "./kernel_reports.ts";
import { availableMemoryBytes } from "./memory.ts";
import { knownTunings } from "./tune.ts";
import { reasonOf } from "./errors.ts";
import type { DoctorCheck, DoctorReport } from "./reports.ts";

/** Looks at everything that running a model depends on. Changes nothing but an absent cache folder. */
export async function doctorReport(): Promise<DoctorReport> {
  const compiler = await compilerOf();
  const cpu = compiler.zig === null ? detectCpu() : await detectCpuWithZig(compiler.zig.path);
  const isas = supportedIsas(cpu);
  const threads = defaultThreads(cpu);
  const memoryBytes = availableMemoryBytes();
  const cache = cacheOf();
  const checks = [
    runtimeCheck(),
    cpuCheck(cpu),
    { subject: "kernels", status: "ok" as const, found: `${isas[0]}; also ${list(isas.slice(1))}` },
    coresCheck(cpu, threads),
    cachesCheck(cpu),
    memoryCheck(memoryBytes),
    compiler.check,
    cache.check,
    ...tuningCheck(),
    ...permissionChecks(),
  ];
  return {
    checks,
    facts: {
      runtime: runtimeName(),
      cpu: { ...cpu, features: [...cpu.features] },
      isas,
      threads,
      availableMemoryBytes: memoryBytes,
      zig: compiler.zig,
      ...cache.facts,
    },
  };
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.join(", ");
}

function runtimeName(): string {
  const { deno, bun } = process.versions as Record<string, string | undefined>;
  if (deno !== undefined) return `Deno ${deno}`;
  return bun !== undefined ? `Bun ${bun}` : `Node ${process.version}`;
}

function runtimeCheck(): DoctorCheck {
  const found = `${runtimeName()} on ${os.type()} ${os.arch()}`;
  return { subject: "runtime", status: "ok", found };
}

function cpuCheck(cpu: Cpu): DoctorCheck {
  const subject = "cpu";
  if (cpu.features.size > 0) return { subject, status: "ok", found: cpu.modelName || cpu.arch };
  return {
    subject,
    status: "warning",
    found: `${cpu.arch}, features unknown`,
    advice: "Run with -A, or install the compiler: Trilith can then ask it for the CPU's features",
  };
}

function coresCheck(cpu: Cpu, threads: number): DoctorCheck {
  const { physicalCores, logicalCores, allowedCores, quotaCores } = cpu;
  const quota = quotaCores === null ? "" : `, ${quotaCores} by the container's quota`;
  const found =
    `${physicalCores} physical, ${logicalCores} logical, ${allowedCores} allowed${quota}` +
    `: ${threads} threads by default`;
  return { subject: "cores", status: "ok", found };
}

function cachesCheck({ cacheBytes: { l1d, l2, l3 } }: Cpu): DoctorCheck {
  const size = (bytes: number) => bytes === 0 ? "?" : `${Math.round(bytes / 1024)} KiB`;
  return {
    subject: "caches",
    status: "ok",
    found: `L1 ${size(l1d)}, L2 ${size(l2)}, L3 ${size(l3)}`,
  };
}

const LITTLE_MEMORY = 2e9;

function memoryCheck(bytes: number | null): DoctorCheck {
  const subject = "memory";
  if (bytes === null) return { subject, status: "ok", found: "unknown" };
  const found = `${(bytes / 1e9).toFixed(1)} GB free`;
  if (bytes >= LITTLE_MEMORY) return { subject, status: "ok", found };
  return {
    subject,
    status: "warning",
    found,
    advice: "BitNet 2B4T needs about 2 GB: close other programs, or use a smaller --ctx",
  };
}

async function compilerOf(): Promise<{ zig: Zig | null; check: DoctorCheck }> {
  const subject = "compiler";
  try {
    const zig = await findZig();
    if (zig !== null) {
      const found = `Zig ${zig.version} from ${zig.source}: ${zig.path}`;
      return { zig, check: { subject, status: "ok", found } };
    }
  } catch (error) {
    const advice = "Correct TRILITH_ZIG or unset it";
    return { zig: null, check: { subject, status: "problem", found: reasonOf(error), advice } };
  }
  const found = "Zig is not here yet";
  const advice = hasPackageTool()
    ? `The first run fetches Zig ${ZIG_VERSION} by pip or uv; to have it before: pip ` +
      `install ziglang==${ZIG_VERSION}`
    : `There is no uv, Python or pip on PATH to fetch it: ${ZIG_REMEDY}`;
  return { zig: null, check: { subject, status: "warning", found, advice } };
}

function cacheOf(): { check: DoctorCheck; facts: Record<string, unknown> } {
  const subject = "cache";
  try {
    const directory = cacheDirectory();
    const facts = {
      cacheDirectory: directory,
      compiledKernels: listLibraries().length,
      packedModelBytes: folderBytes(cacheDirectory("models")),
    };
    const found = `${directory}: ${facts.compiledKernels} compiled kernels, ` +
      `${(facts.packedModelBytes / 1e6).toFixed(1)} MB of packed models`;
    return { check: { subject, status: "ok", found }, facts };
  } catch (error) {
    const found = reasonOf(error);
    const advice = "Set TRILITH_CACHE to a folder that can be written";
    return { check: { subject, status: "problem", found, advice }, facts: {} };
  }
}

/** Absent where the cache can't be used, of which its own check tells. */
function tuningCheck(): DoctorCheck[] {
  const subject = "tuning";
  try {
    const tunings = knownTunings();
    const used = tunings.filter(({ state }) => state === "in use").length;
    const models = `${used} of ${tunings.length} tunings fit this CPU and these kernels`;
    if (used > 0) return [{ subject, status: "ok", found: models }];
    const found = tunings.length === 0 ? "nothing is tuned: defaults by CPU are used" : models;
    const advice = "`trilith tune --model M` measures which kernels are best here";
    return [{ subject, status: "ok", found, advice }];
  } catch {
    return [];
  }
}

const PERMISSIONS: readonly { query: PermissionQuery; use: string }[] = [
  { query: { name: "ffi" }, use: "native kernels" },
  { query: { name: "run" }, use: "the compiler" },
  { query: { name: "read" }, use: "models" },
  { query: { name: "write" }, use: "the cache" },
];

/** Only Deno has permissions; one may be granted for some paths only, which is fine. */
function permissionChecks(): DoctorCheck[] {
  if (typeof Deno === "undefined") return [];
  const missing = PERMISSIONS.filter(({ query }) => !isGranted(query));
  if (missing.length === 0) {
    return [{ subject: "permissions", status: "ok", found: "all that Trilith needs" }];
  }
  const names = missing.map(({ query, use }) => `--allow-${query.name} (${use})`);
  return [{
    subject: "permissions",
    status: "warning",
    found: `not everywhere: ${names.join(", ")}`,
    advice: "Fine if the paths in use are granted; -A grants all",
  }];
}
