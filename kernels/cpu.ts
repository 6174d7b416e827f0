/** This machine's CPU: what kernels it can run, and how many threads are worth starting. */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import process from "node:process";
import type { Isa } from "../codegen/isa.ts";
import {
  macosFeatures,
  parseAllowedCpus,
  parseCfsQuota,
  parseCgroups,
  parseCpuInfo,
  parseCpuMax,
  parseSize,
  parseSysctl,
  parseZigBuiltin,
} from "./cpu_text.ts";
import { cacheDirectory } from "./cache.ts";
import { isGranted, readTextIfAllowed } from "./permissions.ts";
import { runProgram } from "./process.ts";

export interface Cpu {
  /** "x86_64", "aarch64", or what the runtime calls another one. */
  arch: string;
  /** "linux", "macos", "windows", or what the runtime calls another one. */
  os: string;
  /** Empty when unknown. */
  modelName: string;
  /** As Linux spells them. Empty when unknown: `detectCpuWithZig` then knows more. */
  features: ReadonlySet<string>;
  /** Hardware threads that are online. */
  logicalCores: number;
  /** Hardware threads that the process's affinity allows. */
  allowedCores: number;
  /** Cores that those hardware threads are on. */
  physicalCores: number;
  /** Cores' worth of time that the cgroup grants, or null when it sets no limit. */
  quotaCores: number | null;
  /** Bytes of core 0's caches; 0 is unknown or absent. */
  cacheBytes: { l1d: number; l2: number; l3: number };
}

/** Text of a file, or null when there is none that may be read. */
export type ReadText = (path: string) => string | null;

/**
 * What can be found out at once. Without permission to read /proc (Deno gives it with -A only) or on
 * Windows the features stay empty.
 */
export function detectCpu(): Cpu {
  if (process.platform === "linux") return { ...basics(), ...linuxFacts(readTextIfAllowed) };
  if (process.platform === "darwin") return { ...basics(), ...macosFacts(readSysctl()) };
  return basics();
}

/** `detectCpu`, and if that knew no features, those that Zig sees on this machine. */
export async function detectCpuWithZig(zigPath: string, signal?: AbortSignal): Promise<Cpu> {
  const cpu = detectCpu();
  if (cpu.features.size > 0) return cpu;
  // Zig wants to know its cache even here, and without HOME it would not.
  const caches = [
    "--cache-dir",
    cacheDirectory("zig"),
    "--global-cache-dir",
    cacheDirectory("zig"),
  ];
  const args = ["build-lib", "-mcpu=native", "--show-builtin", ...caches, "unread.zig"];
  const run = runProgram(zigPath, args, { signal, timeoutMs: 60_000 });
  const { modelName, features } = parseZigBuiltin((await run.catch(emptyOutput)).stdout);
  signal?.throwIfAborted();
  return { ...cpu, features, modelName: cpu.modelName || modelName };
}

/** A compiler that does not run leaves the features unknown: compiling will say why. */
const emptyOutput = () => ({ stdout: "" });

const ARCHES: Record<string, string> = { x64: "x86_64", arm64: "aarch64" };
const SYSTEMS: Record<string, string> = { darwin: "macos", win32: "windows" };

/** What every runtime tells without permission. */
function basics(): Cpu {
  const cores = Math.max(1, globalThis.navigator?.hardwareConcurrency ?? os.availableParallelism());
  return {
    arch: ARCHES[process.arch] ?? process.arch,
    os: SYSTEMS[process.platform] ?? process.platform,
    modelName: "",
    features: new Set(),
    logicalCores: cores,
    allowedCores: cores,
    physicalCores: cores,
    quotaCores: null,
    cacheBytes: { l1d: 0, l2: 0, l3: 0 },
  };
}

// ---------------------------------------------------------------- Linux

/** Facts from /proc and /sys, as far as `read` finds them. */
export function linuxFacts(read: ReadText): Partial<Cpu> {
  const text = read("/proc/cpuinfo");
  const cacheBytes = linuxCaches(read);
  const quotaCores = cgroupQuota(read);
  if (text === null) return { quotaCores, cacheBytes };
  const { modelName, features, processors } = parseCpuInfo(text);
  const allowed = parseAllowedCpus(read("/proc/self/status") ?? "") ?? processors;
  if (processors.length === 0) return { modelName, features, quotaCores, cacheBytes };
  // Offline CPUs stay in the mask.
  const usable = allowed.filter((cpu) => processors.includes(cpu));
  return {
    modelName,
    features,
    quotaCores,
    cacheBytes,
    logicalCores: processors.length,
    allowedCores: Math.max(1, usable.length),
    physicalCores: Math.max(1, countCores(usable, read)),
  };
}

/** Hardware threads of one core name the same siblings; a CPU that names none is its own core. */
function countCores(cpus: readonly number[], read: ReadText): number {
  const siblings = cpus.map((cpu) =>
    read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`)?.trim() ?? `${cpu}`
  );
  return new Set(siblings).size;
}

function linuxCaches(read: ReadText): Cpu["cacheBytes"] {
  const bytes = { l1d: 0, l2: 0, l3: 0 };
  for (let index = 0; index < 8; index++) {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${index}`;
    const level = read(`${folder}/level`)?.trim(), type = read(`${folder}/type`)?.trim();
    if (level === undefined) break;
    const size = parseSize(read(`${folder}/size`) ?? "");
    if (level === "1" && type !== "Instruction") bytes.l1d = size;
    if (level === "2") bytes.l2 = size;
    if (level === "3") bytes.l3 = size;
  }
  return bytes;
}

/** The least of the limits of the process's cgroup and of those that it is in. */
function cgroupQuota(read: ReadText): number | null {
  const { v2, cpu } = parseCgroups(read("/proc/self/cgroup") ?? "");
  const limits: (number | null)[] = [];
  for (const folder of upwards(v2)) {
    limits.push(parseCpuMax(read(`/sys/fs/cgroup${folder}/cpu.max`) ?? ""));
  }
  for (const folder of upwards(cpu)) {
    for (const mount of ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]) {
      const quota = read(`${mount}${folder}/cpu.cfs_quota_us`) ?? "";
      limits.push(parseCfsQuota(quota, read(`${mount}${folder}/cpu.cfs_period_us`) ?? ""));
    }
  }
  const set = limits.filter((limit) => limit !== null);
  return set.length === 0 ? null : Math.min(...set);
}

/** "/a/b" gives "/a/b", "/a" and "". In a container the first ones may not be there. */
function upwards(folder: string | undefined): string[] {
  if (folder === undefined) return [];
  const parts = folder.split("/").filter((part) => part !== "");
  return parts.map((_, i) => "/" + parts.slice(0, parts.length - i).join("/")).concat("");
}

// ---------------------------------------------------------------- macOS

function readSysctl(): string {
  const program = "/usr/sbin/sysctl";
  if (!isGranted({ name: "run", command: program }) || !fs.existsSync(program)) return "";
  try {
    return execFileSync(program, ["hw", "machdep.cpu"], { encoding: "utf8", timeout: 10_000 });
  } catch {
    return "";
  }
}

/** Facts from the output of `sysctl hw machdep.cpu`. macOS has neither affinity nor quotas. */
export function macosFacts(text: string): Partial<Cpu> {
  const sysctl = parseSysctl(text);
  const number = (key: string) => Number(sysctl.get(key)) || 0;
  const logicalCores = number("hw.logicalcpu");
  if (logicalCores === 0) return {};
  // Performance cores only: a static split of rows would wait for the slow ones.
  const physicalCores = number("hw.perflevel0.physicalcpu") || number("hw.physicalcpu");
  return {
    modelName: sysctl.get("machdep.cpu.brand_string") ?? "",
    features: macosFeatures(sysctl),
    logicalCores,
    allowedCores: logicalCores,
    physicalCores: physicalCores || logicalCores,
    cacheBytes: {
      l1d: number("hw.perflevel0.l1dcachesize") || number("hw.l1dcachesize"),
      l2: number("hw.perflevel0.l2cachesize") || number("hw.l2cachesize"),
      l3: number("hw.l3cachesize"),
    },
  };
}

// ---------------------------------------------------------------- decisions

/** Native threads by default: a second one on the same core only contends for its vector units. */
export function defaultThreads(cpu: Cpu): number {
  const quota = cpu.quotaCores === null ? Infinity : Math.ceil(cpu.quotaCores);
  return Math.max(1, Math.min(cpu.physicalCores, quota));
}

const X86_64_V3 = ["avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"];
const AVX512 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/**
 * What each ISA's code may use: the levels that `compile.ts` gives the compiler, which may use all of
 * a level, so that a CPU needs all of it too.
 */
const REQUIREMENTS: Record<Isa, { arch?: string; features: readonly string[] }> = {
  avx512: { arch: "x86_64", features: [...X86_64_V3, ...AVX512, "avx512_vnni", "avx512vbmi"] },
  avxvnni: { arch: "x86_64", features: [...X86_64_V3, "avx_vnni"] },
  avx2: { arch: "x86_64", features: X86_64_V3 },
  "neon-i8mm": { arch: "aarch64", features: ["asimd", "asimddp", "i8mm"] },
  "neon-dotprod": { arch: "aarch64", features: ["asimd", "asimddp"] },
  neon: { arch: "aarch64", features: ["asimd"] },
  portable: { features: [] },
};

/** Features that `isa` needs and this CPU lacks, in words; empty when it can run. */
export function missingFeatures(cpu: Cpu, isa: Isa): string[] {
  const { arch, features } = REQUIREMENTS[isa];
  if (arch !== undefined && arch !== cpu.arch) return [`an ${arch} CPU`];
  return features.filter((feature) => !cpu.features.has(feature));
}

/** ISAs that this CPU runs, best first. `portable` is always the last. */
export function supportedIsas(cpu: Cpu): Isa[] {
  const isas = Object.keys(REQUIREMENTS) as Isa[];
  return isas.filter((isa) => missingFeatures(cpu, isa).length === 0);
}
