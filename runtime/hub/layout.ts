/**
 * The hub's cache, as Python's huggingface_hub keeps it, so that neither fetches what the other has:
 *
 *     models--org--name/
 *       blobs/ETAG                     a file's bytes; ETAG is its SHA-256 (LFS) or its git SHA-1
 *       snapshots/COMMIT/path          symbolic links into blobs/
 *       refs/main                      COMMIT, in text
 *
 * Source: huggingface_hub's guide "Understand caching".
 */
import fs from "node:fs";
import path from "node:path";
import { isSafePath } from "./names.ts";

export const COMMIT = /^[0-9a-f]{40}$/;
const REPO_FOLDER = /^models--(.+)$/;

export function repoFolder(cacheFolder: string, repo: string): string {
  return path.join(cacheFolder, `models--${repo.replace("/", "--")}`);
}

/** The name of the repository that a folder of the cache is of, or null. */
export function repoOfFolder(name: string): string | null {
  return REPO_FOLDER.exec(name)?.[1].replace("--", "/") ?? null;
}

export function blobPath(folder: string, etag: string): string {
  return path.join(folder, "blobs", etag);
}

export function snapshotFolder(folder: string, commit: string): string {
  return path.join(folder, "snapshots", commit);
}

/** Where a file is shown in a snapshot. */
export function pointerPath(folder: string, commit: string, name: string): string {
  if (!isSafePath(name)) throw new RangeError(`Cannot show ${JSON.stringify(name)}: unsafe path`);
  return path.join(snapshotFolder(folder, commit), ...name.split("/"));
}

/** Where our locks of a repository are; Python's, of other names, lie beside them. */
export function locksFolder(cacheFolder: string, repo: string): string {
  return path.join(cacheFolder, ".locks", path.basename(repoFolder(cacheFolder, repo)));
}

/** Name of our lock of a file that is fetched. */
export function lockName(etag: string): string {
  return `${etag}.trilith`;
}

/** The commit that a branch or tag was at when it was last asked for, or null. */
export function readRef(folder: string, revision: string): string | null {
  const text = readText(path.join(folder, "refs", ...revision.split("/")))?.trim() ?? "";
  return COMMIT.test(text) ? text : null;
}

function readText(file: string): string | null {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

/** All branches and tags that the cache knows, with their commits. */
export function readRefs(folder: string): Map<string, string> {
  const root = path.join(folder, "refs");
  const names = filesBelow(root).map((name) => name.split(path.sep).join("/"));
  const refs = names.map((name) => [name, readRef(folder, name)] as const);
  return new Map(refs.filter((ref): ref is [string, string] => ref[1] !== null));
}

export function writeRef(folder: string, revision: string, commit: string): void {
  if (revision === commit || readRef(folder, revision) === commit) return;
  const file = path.join(folder, "refs", ...revision.split("/"));
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const temporary = `${file}.${crypto.randomUUID().slice(0, 8)}`;
  fs.writeFileSync(temporary, commit);
  fs.renameSync(temporary, file);
}

/** Commits of which something is here. */
export function snapshotCommits(folder: string): string[] {
  return entriesOf(path.join(folder, "snapshots"))
    .filter((entry) => entry.isDirectory() && COMMIT.test(entry.name))
    .map(({ name }) => name);
}

/** Paths of all files below a folder, relative to it, in order. */
export function filesBelow(folder: string): string[] {
  const found = entriesOf(folder).flatMap((entry) =>
    entry.isDirectory()
      ? filesBelow(path.join(folder, entry.name)).map((name) => path.join(entry.name, name))
      : [entry.name]
  );
  return found.sort();
}

/** None where there is no such folder. */
export function entriesOf(folder: string): fs.Dirent[] {
  try {
    return fs.readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw error;
  }
}

/** Size of what a path leads to, or null if it leads nowhere. */
export function sizeAt(file: string): number | null {
  try {
    return fs.statSync(file).size;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP") return null;
    throw error;
  }
}

/** Backup programs leave out folders with this file. Source: the Cache Directory Tagging standard. */
export function tagCache(cacheFolder: string): void {
  const file = path.join(cacheFolder, "CACHEDIR.TAG");
  fs.mkdirSync(cacheFolder, { recursive: true });
  if (fs.existsSync(file)) return;
  fs.writeFileSync(file, "Signature: 8a477f597d28d172789f06886806bc55\n");
}

/**
 * Shows a blob under its name in a snapshot: by a link that also holds when the cache is moved.
 * Where links can't be made a copy takes that place, or the blob itself, as Python has it.
 *
 * @param name Path in the repository.
 * @param isOnlyHere Whether nothing else leads to the blob or will, so that it may be moved.
 */
export function linkSnapshot(
  folder: string,
  commit: string,
  name: string,
  etag: string,
  isOnlyHere: boolean,
): void {
  const blob = blobPath(folder, etag);
  const pointer = pointerPath(folder, commit, name);
  if (leadsTo(pointer, blob)) return;
  fs.mkdirSync(path.dirname(pointer), { recursive: true });
  fs.rmSync(pointer, { force: true });
  try {
    fs.symlinkSync(path.relative(path.dirname(pointer), blob), pointer);
  } catch (error) {
    if (leadsTo(pointer, blob)) return;
    if ((error as { code?: string }).code === "ENOSPC") throw error;
    if (isOnlyHere) fs.renameSync(blob, pointer);
    else fs.copyFileSync(blob, pointer);
  }
}

function leadsTo(pointer: string, blob: string): boolean {
  try {
    return fs.realpathSync(pointer) === fs.realpathSync(blob);
  } catch {
    return false;
  }
}
