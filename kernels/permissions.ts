import fs from "node:fs";
import process from "node:process";

/** The parts of Deno's permission API that are used here; the other runtimes have none. */
export type PermissionQuery =
  | { name: "read" | "write" | "ffi"; path?: string }
  | { name: "env"; variable?: string }
  | { name: "run"; command?: string }
  | { name: "net"; host?: string }
  | { name: "sys"; kind?: "hostname" | "homedir" | "cpus" | "uid" | "statfs" | "systemMemoryInfo" };

/**
 * Whether an operation may be done without asking the person at the terminal.
 * True in runtimes without permissions. Used before optional facts are read: a prompt for something
 * that we can do without would be a nuisance, and an exception a failure.
 */
export function isGranted(query: PermissionQuery): boolean {
  if (typeof Deno === "undefined") return true;
  return Deno.permissions.querySync(query as Deno.PermissionDescriptor).state === "granted";
}

/** Whether this process may do everything, as is needed for the kernel's own files in /proc and /sys. */
export function isAllGranted(): boolean {
  if (typeof Deno === "undefined") return true;
  const names = ["read", "write", "net", "env", "run", "sys", "ffi"] as const;
  return names.every((name) => isGranted({ name }));
}

/**
 * Text of a small file such as /proc/cpuinfo, or null when it can't be read for any reason.
 * Deno gives the kernel's files only to a process that may do everything (-A).
 */
export function readTextIfAllowed(path: string): string | null {
  const allowed = /^\/(proc|sys)\//.test(path) ? isAllGranted() : isGranted({ name: "read", path });
  if (!allowed) return null;
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** Value of an environment variable, or null when it is unset, empty or not ours to read. */
export function environmentVariable(name: string): string | null {
  if (!isGranted({ name: "env", variable: name })) return null;
  return process.env[name] || null;
}
