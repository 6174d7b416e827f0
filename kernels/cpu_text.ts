/**
 * What the kernel, sysctl and Zig say of a CPU, as text, parsed without any I/O. Features are spelled
 * as Linux spells them: `avx512_vnni`, `asimddp`.
 */

/** The part of /proc/cpuinfo that is used. */
export interface CpuInfo {
  modelName: string;
  features: Set<string>;
  /** Numbers of the CPUs that are online. */
  processors: number[];
}

/** Parses /proc/cpuinfo of any architecture; what is not there stays empty. */
export function parseCpuInfo(text: string): CpuInfo {
  const fields = text.split("\n").map((line) => /^([^\t:]+?)\s*:\s*(.*)$/.exec(line));
  const first = new Map<string, string>();
  const processors: number[] = [];
  for (const field of fields) {
    if (field === null) continue;
    const [, key, value] = field;
    if (key === "processor" && /^\d+$/.test(value)) processors.push(Number(value));
    if (!first.has(key)) first.set(key, value.trim());
  }
  const list = first.get("flags") ?? first.get("Features") ?? "";
  return {
    modelName: first.get("model name") ?? armName(first) ?? first.get("Hardware") ?? "",
    features: new Set(list.split(/\s+/).filter((name) => name !== "")),
    processors,
  };
}

/** Arm's part numbers, from the Main ID Register; Linux prints no name for them. */
const ARM_PARTS: Record<string, string> = {
  "0x41 0xd03": "Arm Cortex-A53",
  "0x41 0xd05": "Arm Cortex-A55",
  "0x41 0xd08": "Arm Cortex-A72",
  "0x41 0xd0b": "Arm Cortex-A76",
  "0x41 0xd0c": "Arm Neoverse-N1",
  "0x41 0xd40": "Arm Neoverse-V1",
  "0x41 0xd49": "Arm Neoverse-N2",
  "0x41 0xd4f": "Arm Neoverse-V2",
  "0xc0 0xac3": "Ampere-1",
  "0xc0 0xac4": "Ampere-1a",
};

function armName(fields: Map<string, string>): string | undefined {
  const implementer = fields.get("CPU implementer"), part = fields.get("CPU part");
  if (implementer === undefined || part === undefined) return undefined;
  const id = `${implementer} ${part}`;
  return ARM_PARTS[id] ?? `Arm implementer ${implementer} part ${part}`;
}

/** Parses "0-3,8,10-11" into CPU numbers; null when it is no such list. */
export function parseCpuList(text: string): number[] | null {
  const ranges = text.trim().split(",").map((range) => /^(\d+)(?:-(\d+))?$/.exec(range));
  const cpus: number[] = [];
  for (const range of ranges) {
    if (range === null) return null;
    const first = Number(range[1]), last = Number(range[2] ?? range[1]);
    // Linux is built for at most 8192 CPUs.
    if (last < first || last > 8192) return null;
    for (let cpu = first; cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}

/** CPUs that /proc/self/status allows this process, or null when it does not say. */
export function parseAllowedCpus(status: string): number[] | null {
  const line = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status);
  return line === null ? null : parseCpuList(line[1]);
}

/** Cores' worth of time that cgroup v2's cpu.max grants, "200000 100000" being 2; null: no limit. */
export function parseCpuMax(text: string): number | null {
  const [quota, period] = text.trim().split(/\s+/);
  return coresOf(Number(quota), Number(period ?? 100_000));
}

/** The same from cgroup v1's cpu.cfs_quota_us (-1: no limit) and cpu.cfs_period_us. */
export function parseCfsQuota(quota: string, period: string): number | null {
  return coresOf(Number(quota), Number(period));
}

function coresOf(quota: number, period: number): number | null {
  return quota > 0 && period > 0 ? quota / period : null;
}

/** The process's cgroup under v2 (`v2`) and under v1's cpu controller (`cpu`), from /proc/self/cgroup. */
export function parseCgroups(text: string): { v2?: string; cpu?: string } {
  const found: { v2?: string; cpu?: string } = {};
  for (const line of text.split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === "") found.v2 = path;
    if (controllers?.split(",").includes("cpu")) found.cpu = path;
  }
  return found;
}

/** Parses a size as in /sys/devices/system/cpu/cpu0/cache/index0/size: "32K", "16M"; else 0. */
export function parseSize(text: string): number {
  const size = /^(\d+)([KMG]?)$/.exec(text.trim());
  if (size === null) return 0;
  return Number(size[1]) * { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[size[2]]!;
}

/** `key: value` lines of sysctl. */
export function parseSysctl(text: string): Map<string, string> {
  const pairs = text.split("\n").map((line) => /^([\w.]+): (.*)$/.exec(line));
  return new Map(pairs.filter((pair) => pair !== null).map(([, key, value]) => [key, value]));
}

/** macOS's names, in lower case and without dots and underscores, where Linux has others. */
const MACOS_NAMES: Record<string, string> = {
  avx10: "avx",
  lzcnt: "abm",
  avx512vnni: "avx512_vnni",
  featdotprod: "asimddp",
  feati8mm: "i8mm",
  featbf16: "bf16",
  featfp16: "asimdhp",
  featlse: "atomics",
  advsimd: "asimd",
  neon: "asimd",
};

/** Features of a Mac from its sysctl: lists on Intel, a key a feature on Apple silicon. */
export function macosFeatures(sysctl: Map<string, string>): Set<string> {
  const names: string[] = [];
  for (const [key, value] of sysctl) {
    if (/^machdep\.cpu\.(\w+_)?(ext)?features$/.test(key)) names.push(...value.split(/\s+/));
    const optional = /^hw\.optional\.(?:arm\.)?(\w+)$/.exec(key);
    if (optional !== null && value.trim() === "1") names.push(optional[1]);
  }
  return new Set(names.map(linuxNameOfMacos));
}

function linuxNameOfMacos(name: string): string {
  const plain = name.toLowerCase().replaceAll(/[._]/g, "");
  return MACOS_NAMES[plain] ?? plain;
}

/** LLVM's names where Linux has others. */
const LLVM_NAMES: Record<string, string> = {
  avx512vnni: "avx512_vnni",
  avx512vbmi2: "avx512_vbmi2",
  avx512bf16: "avx512_bf16",
  avx512fp16: "avx512_fp16",
  avx512bitalg: "avx512_bitalg",
  avx512vpopcntdq: "avx512_vpopcntdq",
  avxvnni: "avx_vnni",
  bmi: "bmi1",
  lzcnt: "abm",
  pclmul: "pclmulqdq",
  rdrnd: "rdrand",
  sha: "sha_ni",
  sse3: "pni",
  "sse4.1": "sse4_1",
  "sse4.2": "sse4_2",
  neon: "asimd",
  dotprod: "asimddp",
  fullfp16: "asimdhp",
  lse: "atomics",
};

/** Model and features from `zig build-lib -mcpu=native --show-builtin`. */
export function parseZigBuiltin(text: string): { modelName: string; features: Set<string> } {
  const cpu = /\.model = &std\.Target\.\w+\.cpu\.(\S+),\s*\.features = [^{]*\{([^}]*)\}/.exec(text);
  if (cpu === null) return { modelName: "", features: new Set() };
  const names = [...cpu[2].matchAll(/\.(?:@"([^"]+)"|(\w+))/g)].map((name) => name[1] ?? name[2]);
  const features = new Set(names.map((name) => LLVM_NAMES[name] ?? name));
  return { modelName: cpu[1].replaceAll(/^@"|"$/g, ""), features };
}
