import fs from "node:fs";
import path from "node:path";
import { isGranted } from "../../kernels/permissions.ts";
import { HubError } from "./errors.ts";

/** Left free for what is written beside the files themselves. */
const SPARE_BYTES = 16 << 20;

/** Bytes that this user may still write below a folder, or null where that can't be known. */
export function freeBytesAt(folder: string): number | null {
  if (!isGranted({ name: "sys", kind: "statfs" })) return null;
  for (let at = folder;; at = path.dirname(at)) {
    try {
      const { bavail, bsize } = fs.statfsSync(at);
      return bavail * bsize;
    } catch (error) {
      const isAbsent = (error as { code?: string }).code === "ENOENT";
      if (!isAbsent || path.dirname(at) === at) return null;
    }
  }
}

/** @throws {HubError} If there is no room for so many bytes: better now than after an hour. */
export function checkRoom(
  what: string,
  folder: string,
  neededBytes: number,
  freeBytes: number | null,
): void {
  if (freeBytes === null || neededBytes === 0 || neededBytes + SPARE_BYTES <= freeBytes) return;
  throw new HubError(
    `Cannot fetch ${what}: ${megabytes(neededBytes)} are to come and ${folder} has room for ` +
      `${megabytes(freeBytes)}, make room there or set HF_HOME to another folder`,
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
