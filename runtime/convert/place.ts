/** Where an output goes: what may be there, and that one process at a time writes it. */
import fs from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import { CacheError, withLock } from "../../kernels/cache.ts";
import { shown, UsageError } from "../errors.ts";
import { outputError } from "./errors.ts";
import type { ConvertFormat } from "./formats.ts";
import { JOURNAL } from "./journal.ts";
import { takenPlaces } from "./publish.ts";
import { type Staging, stagingFolder } from "./staging.ts";

/**
 * What can be known of the place before the source is opened.
 *
 * @throws {UsageError} If the output can't be meant to go there.
 */
export function checkPlace(path: string, target: string, force?: boolean): void {
  const from = resolve(path);
  if (target === from || from.startsWith(`${target}${sep}`)) {
    throw new UsageError(`Cannot convert ${shown(path)} into itself: give another destination`);
  }
  const folder = fs.statSync(dirname(target), { throwIfNoEntry: false });
  if (folder === undefined) {
    throw new UsageError(`Cannot write ${shown(target)}: its folder is not there: make it first`);
  }
  if (!folder.isDirectory()) {
    throw new UsageError(
      `Cannot write ${shown(target)}: ${shown(dirname(target))} is no folder: give another place`,
    );
  }
  if (isTaken(target) && !force && !mayBeUnfinished(target)) throw thereError(target);
}

/** An empty folder was made for what is to come. */
function isTaken(path: string): boolean {
  return fs.existsSync(path) && !isEmptyFolder(path);
}

function isEmptyFolder(path: string): boolean {
  try {
    return fs.readdirSync(path).length === 0;
  } catch {
    // A file, or a folder that this user may not look into.
    return false;
  }
}

/** An output that was being moved when a run ended is looked at once all is known of it. */
function mayBeUnfinished(target: string): boolean {
  return [stagingFolder(target), join(target, JOURNAL)].some((path) => fs.existsSync(path));
}

function thereError(target: string): UsageError {
  return new UsageError(`Cannot write ${shown(target)}: it is there already: add --force`);
}

/**
 * What is there is replaced only if that is wanted, and only by what is of its kind.
 *
 * @throws {UsageError} If it is not to be replaced.
 */
export function checkTaken(staging: Staging, format: ConvertFormat, force?: boolean): void {
  const { destination, isPublished } = staging;
  if (isPublished) return;
  const taken = format !== "safetensors"
    ? takenPlaces(staging)
    : isTaken(destination)
    ? [destination]
    : [];
  for (const path of taken) {
    if (!force) throw thereError(path);
    const { isFile, isFolder } = kindOf(path);
    if (isFile) continue;
    if (!isFolder) {
      throw new UsageError(
        `Cannot replace ${shown(path)}: it is neither file nor folder: give another name`,
      );
    }
    if (format !== "safetensors") {
      throw new UsageError(`Cannot replace ${shown(path)}: it is a folder: give another name`);
    }
    if (!fs.existsSync(join(path, "config.json"))) {
      throw new UsageError(
        `Cannot replace ${shown(path)}: it is a folder without config.json: give another name`,
      );
    }
  }
}

/** A device, a pipe or a link to nothing is neither. */
function kindOf(path: string): { isFile: boolean; isFolder: boolean } {
  const info = fs.statSync(path, { throwIfNoEntry: false });
  return { isFile: info?.isFile() ?? false, isFolder: info?.isDirectory() ?? false };
}

/** Runs while no other process makes an output at the same place. */
export async function withPlace<T>(
  target: string,
  { onNotice, signal }: { onNotice?: (text: string) => void; signal?: AbortSignal },
  run: () => Promise<T>,
): Promise<T> {
  const folder = dirname(target);
  const onWait = (pid: number) =>
    onNotice?.(`Process ${pid} is writing ${basename(target)}: waiting for it`);
  try {
    return await withLock(folder, basename(stagingFolder(target)), run, { onWait, signal });
  } catch (error) {
    const isOfPlace = error instanceof CacheError && error.directory === folder;
    throw isOfPlace ? outputError(target, error.cause) : error;
  }
}
