/** What the hub's cache holds of models, for `list` and `rm`. */
import fs from "node:fs";
import path from "node:path";
import { reasonOf } from "../errors.ts";
import { blobPath, entriesOf, readRefs, repoOfFolder, sizeAt, snapshotCommits } from "./layout.ts";
import { DEFAULT_REVISION, hubNameText } from "./names.ts";
import { isPartialName } from "./partial.ts";
import { ggufGroups, weightsOf } from "./select.ts";
import { openedPath, snapshotFiles } from "./snapshot.ts";

export interface LocalModel {
  /** As it can be given to `--model`. */
  name: string;
  repo: string;
  commit: string;
  /** Branches and tags that are at this commit. */
  revisions: string[];
  /** What is opened: the snapshot's folder, or a GGUF file in it; null if no weights are here. */
  path: string | null;
  format: "safetensors" | "gguf" | null;
  /** Of its files. */
  bytes: number;
  /** Whether this version runs it, as far as its headers tell. */
  runs: boolean;
  /** What it is, or why it does not run. */
  note: string;
}

/** Says what a model is from its headers. @throws Why it can't be run. */
export type Probe = (path: string) => Promise<string>;

/** All models of the cache, by name. Files that are not of a model are no entries. */
export async function localModels(cacheFolder: string, probe: Probe): Promise<LocalModel[]> {
  const models: LocalModel[] = [];
  for (const entry of entriesOf(cacheFolder)) {
    const repo = entry.isDirectory() ? repoOfFolder(entry.name) : null;
    if (repo === null) continue;
    models.push(...await modelsOf(path.join(cacheFolder, entry.name), repo, probe));
  }
  return models.sort((a, b) => a.name < b.name ? -1 : 1);
}

async function modelsOf(folder: string, repo: string, probe: Probe): Promise<LocalModel[]> {
  const refs = [...readRefs(folder)];
  const models: LocalModel[] = [];
  for (const commit of snapshotCommits(folder)) {
    const revisions = refs.filter(([, at]) => at === commit).map(([name]) => name);
    const isDefault = revisions.includes(DEFAULT_REVISION);
    const revision = isDefault ? null : revisions[0] ?? commit.slice(0, 8);
    for (const { file, files } of openables(snapshotFiles(folder, commit))) {
      const name = hubNameText({ repo, revision, file });
      const found = { name, repo, commit, revisions, ...sized(folder, commit, files) };
      models.push({ ...found, ...await probed(found.path, probe) });
    }
  }
  return models.length > 0 ? models : unfinished(folder, repo);
}

/** A folder of safetensors is one model; each GGUF file, with its other parts, is one. */
function openables(files: readonly string[]): { file: string | null; files: readonly string[] }[] {
  if (weightsOf(files) === "folder") return [{ file: null, files }];
  const groups = ggufGroups(files);
  if (groups.length === 0) return files.length === 0 ? [] : [{ file: null, files }];
  return groups.map((group) => ({ file: groups.length === 1 ? null : group[0], files: group }));
}

function sized(folder: string, commit: string, files: readonly string[]) {
  const root = path.join(folder, "snapshots", commit);
  const opened = openedPath(folder, commit, files);
  const sizes = files.map((file) => sizeAt(path.join(root, ...file.split("/"))) ?? 0);
  const format = opened === null ? null : opened === root ? "safetensors" : "gguf";
  return {
    path: opened,
    format: format as LocalModel["format"],
    bytes: sizes.reduce((sum, size) => sum + size, 0),
  };
}

async function probed(
  opened: string | null,
  probe: Probe,
): Promise<{ runs: boolean; note: string }> {
  if (opened === null) return { runs: false, note: "its weights are not here: pull it" };
  try {
    return { runs: true, note: await probe(opened) };
  } catch (error) {
    return { runs: false, note: reasonOf(error) };
  }
}

/** A model of which a pull has only begun. */
function unfinished(folder: string, repo: string): LocalModel[] {
  const blobs = entriesOf(path.join(folder, "blobs")).map(({ name }) => name);
  if (blobs.length === 0) return [];
  const bytes = blobs.filter((name) => !isPartialName(name) || name.endsWith(".incomplete"))
    .reduce((sum, name) => sum + allocatedBytes(blobPath(folder, name)), 0);
  const model = { name: repo, repo, commit: "", revisions: [], path: null, format: null, bytes };
  return [{ ...model, runs: false, note: "its pull did not end: pull it again to go on" }];
}

/** A partial file has holes. */
function allocatedBytes(file: string): number {
  const info = fs.statSync(file, { throwIfNoEntry: false });
  if (info === undefined) return 0;
  return info.blocks ? Math.min(info.size, info.blocks * 512) : info.size;
}
