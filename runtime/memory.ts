import fs from "node:fs";
import os from "node:os";
import process from "node:process";

/** Bytes that can be allocated without swapping, or null when the system or permissions do not say. */
export function availableMemoryBytes(): number | null {
  const text = readText("/proc/meminfo");
  const kilobytes = text === null ? null : /^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1];
  if (kilobytes) return Number(kilobytes) * 1024;
  try {
    return os.freemem();
  } catch {
    return null;
  }
}

/** The most memory that this process has had resident, or what it has now where that is not known. */
export function peakRssBytes(): number {
  const text = readText("/proc/self/status");
  const kilobytes = text === null ? null : /^VmHWM:\s+(\d+) kB/m.exec(text)?.[1];
  return kilobytes ? Number(kilobytes) * 1024 : process.memoryUsage().rss;
}

function readText(path: string): string | null {
  // Deno asks for --allow-all here; asking a person would be worse than not knowing.
  if (typeof Deno !== "undefined") {
    const { state } = Deno.permissions.querySync({ name: "read", path });
    if (state !== "granted") return null;
  }
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
