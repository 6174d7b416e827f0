import os from "node:os";
import process from "node:process";
import { isGranted, readTextIfAllowed } from "../kernels/permissions.ts";

/** Bytes that can be allocated without swapping, or null when the system or permissions do not say. */
export function availableMemoryBytes(): number | null {
  const text = readTextIfAllowed("/proc/meminfo");
  const kilobytes = text === null ? null : /^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1];
  if (kilobytes) return Number(kilobytes) * 1024;
  return isGranted({ name: "sys", kind: "systemMemoryInfo" }) ? os.freemem() : null;
}

/** The most memory that this process has had resident, or what it has now where that is not known. */
export function peakRssBytes(): number {
  const text = readTextIfAllowed("/proc/self/status");
  const kilobytes = text === null ? null : /^VmHWM:\s+(\d+) kB/m.exec(text)?.[1];
  return kilobytes ? Number(kilobytes) * 1024 : process.memoryUsage().rss;
}
