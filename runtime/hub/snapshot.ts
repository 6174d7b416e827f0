/** Models that are in the hub's cache: which commit a name means, and what of it to open. */
import path from "node:path";
import { UsageError } from "../errors.ts";
import {
  COMMIT,
  filesBelow,
  pointerPath,
  readRef,
  repoFolder,
  sizeAt,
  snapshotCommits,
  snapshotFolder,
} from "./layout.ts";
import { DEFAULT_REVISION, type HubName, hubNameText } from "./names.ts";
import { bestGguf, filesMeant, ggufGroups, namedGguf, weightsOf } from "./select.ts";

/** The files of a snapshot that lead somewhere, as paths in the repository. */
export function snapshotFiles(folder: string, commit: string): string[] {
  const root = snapshotFolder(folder, commit);
  return filesBelow(root)
    .filter((name) => sizeAt(path.join(root, name)) !== null)
    .map((name) => name.split(path.sep).join("/"));
}

/** What to open of a snapshot with these files: its folder, or a GGUF file; null without weights. */
export function openedPath(
  folder: string,
  commit: string,
  files: readonly string[],
): string | null {
  const weights = weightsOf(files);
  if (weights === null) return null;
  return weights === "folder"
    ? snapshotFolder(folder, commit)
    : pointerPath(folder, commit, weights.file);
}

/**
 * Where the cache has a model, or null if it has not.
 *
 * @throws {UsageError} If several revisions or files could be meant.
 */
export function cachedPath(cacheFolder: string, name: HubName): string | null {
  const folder = repoFolder(cacheFolder, name.repo);
  const commit = cachedCommit(folder, name);
  if (commit === null) return null;
  const files = snapshotFiles(folder, commit);
  if (name.file === null) return openedPath(folder, commit, chosenOf(files, name.repo));
  if (filesMeant(files, name.file).length === 0) return null;
  return openedPath(folder, commit, namedGguf(files, name.file, name.repo));
}

/** Of several GGUF files the one that `pull` would fetch. */
function chosenOf(files: readonly string[], repo: string): readonly string[] {
  const groups = ggufGroups(files);
  return weightsOf(files) === "folder" || groups.length < 2 ? files : bestGguf(groups, repo);
}

/** The commit that a name means in the cache, or null. */
export function cachedCommit(folder: string, name: HubName): string | null {
  const commits = snapshotCommits(folder);
  const wanted = name.revision ?? DEFAULT_REVISION;
  const ref = readRef(folder, wanted);
  if (ref !== null) return commits.includes(ref) ? ref : null;
  if (COMMIT.test(wanted)) return commits.includes(wanted) ? wanted : null;
  // Without a branch, as after a pull of one commit, the only one there is must be meant.
  const fitting = name.revision === null
    ? commits
    : /^[0-9a-f]{7,}$/.test(wanted)
    ? commits.filter((commit) => commit.startsWith(wanted))
    : [];
  if (fitting.length <= 1) return fitting[0] ?? null;
  throw new UsageError(
    `Cannot tell which revision of ${name.repo} is meant: give ` +
      fitting.map((commit) => hubNameText({ ...name, revision: commit.slice(0, 8) })).join(" or "),
  );
}
