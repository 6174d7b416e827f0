/** Deletes models from the hub's cache, and only what no other revision of them uses. */
import fs from "node:fs";
import path from "node:path";
import { lockHolder } from "../../kernels/cache.ts";
import { UsageError } from "../errors.ts";
import { asCacheError } from "./errors.ts";
import {
  blobPath,
  entriesOf,
  lockName,
  locksFolder,
  pointerPath,
  readRefs,
  repoFolder,
  sizeAt,
  snapshotCommits,
  snapshotFolder,
} from "./layout.ts";
import { type HubName, hubNameText, requireHubName } from "./names.ts";
import { isPartialName } from "./partial.ts";
import { namedGguf } from "./select.ts";
import { cachedCommit, snapshotFiles } from "./snapshot.ts";

/** What `rm` of a name will delete. */
export interface Removal {
  name: string;
  repo: string;
  commits: string[];
  /** Files as they are called in the repository; the same one of two revisions is there twice. */
  files: string[];
  /** That will be free. */
  bytes: number;
  /** Whether nothing of the repository stays. */
  isWholeRepo: boolean;
  /** Where the deleted models lay: packed files say these of themselves. */
  origins: string[];
}

interface Pointer {
  commit: string;
  file: string;
}

/**
 * What deleting a model means. Without a revision all of its revisions go; with a file only that.
 *
 * @throws {UsageError} If it is not in the cache, or just being fetched.
 */
export function planRemoval(text: string, cacheFolder: string): Removal {
  const name = requireHubName(text);
  const folder = repoFolder(cacheFolder, name.repo);
  const all = snapshotCommits(folder).flatMap((commit) => pointersOf(folder, commit));
  const going = goingPointers(folder, name, all);
  const isWholeRepo = name.revision === null && name.file === null;
  if (going.length === 0 && !(isWholeRepo && fs.existsSync(folder))) {
    throw unknown(text, cacheFolder);
  }
  if (isWholeRepo) refuseFetched(text, folder, cacheFolder, name.repo);
  const blobs = freedBlobs(folder, all, going, isWholeRepo);
  const commits = [...new Set(going.map(({ commit }) => commit))];
  return {
    name: hubNameText(name),
    repo: name.repo,
    commits,
    files: going.map(({ file }) => file),
    bytes: blobs.reduce((sum, blob) => sum + ownBytes(blob), 0),
    isWholeRepo: isWholeRepo || going.length === all.length,
    origins: [
      ...going.map(({ commit, file }) => pointerPath(folder, commit, file)),
      // A model in several files says only its folder.
      ...commits.filter((commit) => isAllOf(commit, all, going))
        .map((commit) => snapshotFolder(folder, commit)),
    ],
  };
}

/** Deletes it. @throws {HubError} If the cache can't be written. */
export function removeModel(removal: Removal, cacheFolder: string): void {
  const name = requireHubName(removal.name);
  const folder = repoFolder(cacheFolder, name.repo);
  try {
    if (removal.isWholeRepo) {
      fs.rmSync(folder, { recursive: true, force: true });
      fs.rmSync(locksFolder(cacheFolder, name.repo), { recursive: true, force: true });
    } else removePart(folder, name);
  } catch (error) {
    throw asCacheError(cacheFolder, error);
  }
}

/** Pointers go first: a reader then finds no file, rather than one that leads nowhere. */
function removePart(folder: string, name: HubName): void {
  const all = snapshotCommits(folder).flatMap((commit) => pointersOf(folder, commit));
  const going = goingPointers(folder, name, all);
  const blobs = freedBlobs(folder, all, going, false);
  for (const { commit, file } of going) fs.rmSync(pointerPath(folder, commit, file));
  for (const commit of new Set(going.map((pointer) => pointer.commit))) {
    if (snapshotFiles(folder, commit).length > 0) continue;
    fs.rmSync(snapshotFolder(folder, commit), { recursive: true, force: true });
    fs.rmSync(path.join(folder, ".no_exist", commit), { recursive: true, force: true });
    fs.rmSync(path.join(folder, "trees", `${commit}.json`), { force: true });
    for (const [ref, at] of readRefs(folder)) {
      if (at === commit) fs.rmSync(path.join(folder, "refs", ...ref.split("/")));
    }
  }
  for (const blob of blobs) fs.rmSync(blob, { force: true });
}

function unknown(text: string, cacheFolder: string): UsageError {
  return new UsageError(
    `Cannot remove ${JSON.stringify(text)}: it is not in the hub's cache ${cacheFolder}, ` +
      `\`list\` shows what is`,
  );
}

/** What a process fetches at this moment would be for nothing. */
function refuseFetched(text: string, folder: string, cacheFolder: string, repo: string): void {
  const partials = entriesOf(path.join(folder, "blobs")).map(({ name }) => name)
    .filter(isPartialName);
  for (const etag of new Set(partials.map((name) => name.split(".", 1)[0]))) {
    const pid = lockHolder(locksFolder(cacheFolder, repo), lockName(etag));
    if (pid === null) continue;
    throw new UsageError(
      `Cannot remove ${JSON.stringify(text)} while process ${pid} fetches it: stop that first; ` +
        "if it was killed, wait a minute",
    );
  }
}

/** Whether nothing of a commit stays. */
function isAllOf(commit: string, all: readonly Pointer[], going: readonly Pointer[]): boolean {
  const isOf = (pointer: Pointer) => pointer.commit === commit;
  return all.filter(isOf).length === going.filter(isOf).length;
}

function pointersOf(folder: string, commit: string): Pointer[] {
  return snapshotFiles(folder, commit).map((file) => ({ commit, file }));
}

function goingPointers(folder: string, name: HubName, all: readonly Pointer[]): Pointer[] {
  const commit = name.revision === null ? null : cachedCommit(folder, name);
  if (name.revision !== null && commit === null) return [];
  const ofRevision = all.filter((pointer) => commit === null || pointer.commit === commit);
  if (name.file === null || ofRevision.length === 0) return ofRevision;
  const files = namedGguf([...new Set(ofRevision.map(({ file }) => file))], name.file, name.repo);
  return ofRevision.filter(({ file }) => files.includes(file));
}

/** Blobs that no pointer leads to any more, once those that go are gone. */
function freedBlobs(
  folder: string,
  all: readonly Pointer[],
  going: readonly Pointer[],
  isWholeRepo: boolean,
): string[] {
  const blobOf = ({ commit, file }: Pointer) => {
    const pointer = pointerPath(folder, commit, file);
    // Where the system has no links, the pointer is the blob.
    if (!fs.lstatSync(pointer).isSymbolicLink()) return pointer;
    return path.resolve(path.dirname(pointer), fs.readlinkSync(pointer));
  };
  if (isWholeRepo) {
    const blobs = entriesOf(path.join(folder, "blobs")).map(({ name }) => blobPath(folder, name));
    return [...new Set([...blobs, ...going.map(blobOf)])];
  }
  const kept = new Set(all.filter((pointer) => !going.includes(pointer)).map(blobOf));
  return [...new Set(going.map(blobOf))].filter((blob) => !kept.has(blob));
}

/** Python may keep a blob in a store that repositories share: its link alone is the repository's. */
function ownBytes(blob: string): number {
  const info = fs.lstatSync(blob, { throwIfNoEntry: false });
  if (info === undefined || info.isSymbolicLink()) return 0;
  return isPartialName(blob) && info.blocks ? info.blocks * 512 : sizeAt(blob) ?? 0;
}
