/**
 * Moves a finished output to its place. Each step can be the last before a kill: the journal goes
 * last, and says to the next run that nothing but these steps is left.
 */
import fs from "node:fs";
import { rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { JOURNAL } from "./journal.ts";
import type { Staging } from "./staging.ts";

/** What stood at the place of a folder, until the new one stands there. */
const REPLACED = "replaced";

/** Places of files that are taken, but not by what this conversion has moved there. */
export function takenPlaces({ folder, files, earlier }: Staging): string[] {
  return files
    .filter(({ name }) => earlier.whole === null || fs.existsSync(join(folder, name)))
    .map(({ name }) => join(dirname(folder), name))
    .filter((path) => fs.existsSync(path));
}

/** Whether all files are still where they were made. */
export function isUnmoved({ folder, files }: Staging): boolean {
  return files.every(({ name }) => fs.existsSync(join(folder, name)));
}

/** Moves files one after the other. @returns Where they are. */
export async function moveFiles({ folder, files }: Staging): Promise<string[]> {
  const paths = files.map(({ name }) => join(dirname(folder), name));
  for (const [i, { name }] of files.entries()) {
    const from = join(folder, name);
    if (fs.existsSync(from)) await rename(from, paths[i]);
  }
  return paths;
}

/** Moves files and removes what is left. @returns Where they are. */
export async function publishFiles(staging: Staging): Promise<string[]> {
  const paths = await moveFiles(staging);
  await rm(staging.folder, { recursive: true });
  syncFolder(dirname(staging.folder));
  return paths;
}

/** Moves the folder as a whole, where an older one may be. @returns Where its files are. */
export async function publishFolder(
  { folder, files, destination, isPublished }: Staging,
): Promise<string[]> {
  if (!isPublished) {
    if (fs.existsSync(destination)) await rename(destination, join(folder, REPLACED));
    await rename(folder, destination);
  }
  await rm(join(destination, REPLACED), { recursive: true, force: true });
  await rm(join(destination, JOURNAL));
  syncFolder(dirname(destination));
  return files.map(({ name }) => join(destination, name));
}

/** Puts back what a run that is not gone on with had taken away. */
export async function restoreReplaced({ folder, destination, earlier }: Staging): Promise<void> {
  const replaced = join(folder, REPLACED);
  if (earlier.whole !== null || fs.existsSync(destination) || !fs.existsSync(replaced)) return;
  await rename(replaced, destination);
}

/** Renames outlive a power cut only when the folder is synced too; not all systems can. */
function syncFolder(folder: string): void {
  try {
    const handle = fs.openSync(folder, "r");
    try {
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
  } catch {
    // Windows has no such call.
  }
}
