/** What a repository of the hub holds at one commit. */
import { shown } from "../errors.ts";
import { isJsonObject, type Json } from "../json.ts";
import { getJson, type HubClient } from "./client.ts";
import { HubError } from "./errors.ts";
import { COMMIT } from "./layout.ts";
import { DEFAULT_REVISION, type HubName } from "./names.ts";

export interface RemoteFile {
  /** In the repository, parts separated by `/`. Not yet looked at for `..` and the like. */
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of a large file, git's SHA-1 of a small one: the name of its blob in the cache. */
  readonly etag: string;
}

export interface RemoteRepo {
  readonly repo: string;
  /** As asked for. */
  readonly revision: string;
  readonly commit: string;
  readonly files: readonly RemoteFile[];
}

/** More than any model has; a server that never ends its list must not fill the memory. */
const MOST_FILES = 100_000;
const ETAG = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** @throws {HubError} If there is no such model or revision, or the answer makes no sense. */
export async function readRepo(client: HubClient, name: HubName): Promise<RemoteRepo> {
  const { repo } = name;
  const revision = name.revision ?? DEFAULT_REVISION;
  const what = name.revision === null ? repo : `${repo}@${revision}`;
  const api = `${client.settings.endpoint}/api/models/${repo}`;
  const { json } = await getJson(client, `${api}/revision/${encodeURIComponent(revision)}`, what);
  const commit = isJsonObject(json) ? json.sha : undefined;
  if (typeof commit !== "string" || !COMMIT.test(commit)) {
    throw senseless(client, what, "sha", commit);
  }
  return { repo, revision, commit, files: await readTree(client, `${api}/tree/${commit}`, what) };
}

async function readTree(client: HubClient, url: string, what: string): Promise<RemoteFile[]> {
  const files: RemoteFile[] = [];
  for (let page: string | null = `${url}?recursive=true&expand=false`; page !== null;) {
    const { json, next } = await getJson(client, page, what);
    if (!Array.isArray(json)) throw senseless(client, what, "tree", json);
    files.push(...json.filter(isFile).map((entry) => fileOf(client, what, entry)));
    if (files.length > MOST_FILES) throw senseless(client, what, "number of files", files.length);
    // A page that is the same again would never end.
    page = next === page || json.length === 0 ? null : next;
  }
  return files;
}

function isFile(entry: Json): boolean {
  return !isJsonObject(entry) || entry.type === "file" || entry.type === undefined;
}

function fileOf(client: HubClient, what: string, entry: Json): RemoteFile {
  if (!isJsonObject(entry)) throw senseless(client, what, "file", entry);
  const { path, lfs } = entry;
  const stored = isJsonObject(lfs) ? lfs : entry;
  const { oid: etag, size: bytes } = stored;
  if (typeof path !== "string") throw senseless(client, what, "path", path);
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0) {
    throw senseless(client, what, `size of ${shown(path)}`, bytes);
  }
  if (typeof etag !== "string" || !ETAG.test(etag)) {
    throw senseless(client, what, `hash of ${shown(path)}`, etag);
  }
  return { path, bytes: bytes as number, etag };
}

function senseless({ settings }: HubClient, what: string, field: string, value: unknown): HubError {
  return new HubError(
    `Cannot fetch ${what}: ${settings.endpoint} gives a ${field} of ${shown(value ?? null)}, ` +
      `check HF_ENDPOINT`,
  );
}
