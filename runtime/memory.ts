import os from "node:os";
import path from "node:path";
import process from "node:process";
import { isGranted, readTextIfAllowed } from "../kernels/permissions.ts";

/** Text of a file, or null where it can't be read. */
type ReadText = (path: string) => string | null;

/**
 * Bytes that can be allocated without swapping, by the system and by the limits of this process's
 * control groups, or null when neither they nor permissions say.
 */
export function availableMemoryBytes(read: ReadText = readTextIfAllowed): number | null {
  const kilobytes = /^MemAvailable:\s+(\d+) kB/m.exec(read("/proc/meminfo") ?? "")?.[1];
  const left = groupsLeft(read);
  if (kilobytes) return Math.min(Number(kilobytes) * 1024, left);
  if (isGranted({ name: "sys", kind: "systemMemoryInfo" })) return Math.min(os.freemem(), left);
  return left === Infinity ? null : left;
}

/** The files of both versions of control groups; cached pages that nobody uses can be had back. */
const VERSIONS = [
  {
    line: /^0::(\/.*)$/m,
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    idle: /^inactive_file (\d+)$/m,
  },
  {
    line: /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(\/.*)$/m,
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    idle: /^total_inactive_file (\d+)$/m,
  },
];

/** What the tightest of this process's groups, and of those that they are in, leaves. */
function groupsLeft(read: ReadText): number {
  const groups = read("/proc/self/cgroup") ?? "";
  return Math.min(...VERSIONS.flatMap(({ line, root, limit, usage, idle }) => {
    const own = line.exec(groups)?.[1];
    return own === undefined ? [] : ancestors(own).map((group) => {
      const text = (name: string) => read(path.posix.join(root, group, name));
      const most = Number(text(limit) ?? NaN);
      const used = Number(text(usage) ?? NaN);
      if (!Number.isFinite(most) || !Number.isFinite(used)) return Infinity;
      const unused = Number(idle.exec(text("memory.stat") ?? "")?.[1] ?? 0);
      return Math.max(0, most - used + unused);
    });
  }));
}

/** "/a/b", "/a" and "/" of "/a/b". */
function ancestors(group: string): string[] {
  return group === "/" ? ["/"] : [group, ...ancestors(path.posix.dirname(group))];
}

/** The most memory that this process has had resident, or what it has now where that is not known. */
export function peakRssBytes(): number {
  const text = readTextIfAllowed("/proc/self/status");
  const kilobytes = text === null ? null : /^VmHWM:\s+(\d+) kB/m.exec(text)?.[1];
  return kilobytes ? Number(kilobytes) * 1024 : process.memoryUsage().rss;
}

/** What must be memory. */
export interface MemoryUse {
  /** Of weights that are read into memory; those that are mapped from a file may be larger than it. */
  weightBytes: number;
  cacheBytes: number;
  cacheTokens: number;
  /** What steps work in. */
  bufferBytes: number;
}

/**
 * Refuses what can't fit before anything is compiled or packed.
 *
 * @throws {RangeError} With all numbers and what to do.
 */
export function checkMemory(
  { weightBytes, cacheBytes, cacheTokens, bufferBytes }: MemoryUse,
  available: number | null = availableMemoryBytes(),
): void {
  if (available === null || weightBytes + cacheBytes + bufferBytes <= available) return;
  const weights = weightBytes === 0 ? "" : `weights ${gigabytes(weightBytes)}, `;
  throw new RangeError(
    `Cannot load the model: ${weights}keys and values of ${cacheTokens} tokens ` +
      `${gigabytes(cacheBytes)} and steps ${gigabytes(bufferBytes)} must be in memory, and ` +
      `${
        gigabytes(available)
      } are free: use a smaller --ctx, --kv-type f16 or int8, or a smaller ` +
      "model",
  );
}

/** Bytes for people. */
export function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
