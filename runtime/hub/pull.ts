/** A model from the hub into the cache: ask what there is, choose, look for room, fetch, link. */
import { UsageError } from "../errors.ts";
import type { OnProgress } from "../types.ts";
import { type HubClient, RETRY_MS } from "./client.ts";
import { checkRoom, freeBytesAt } from "./disk.ts";
import { downloadBlob, PIECE_BYTES } from "./download.ts";
import { asCacheError, HubError } from "./errors.ts";
import {
  blobPath,
  linkSnapshot,
  pointerPath,
  repoFolder,
  sizeAt,
  tagCache,
  writeRef,
} from "./layout.ts";
import { readRepo, type RemoteFile, type RemoteRepo } from "./listing.ts";
import { hubNameText, requireHubName } from "./names.ts";
import { partialBytes } from "./partial.ts";
import { allOrNone, Pool } from "./pool.ts";
import { selectFiles } from "./select.ts";
import { type HubSettings, hubSettings } from "./settings.ts";
import { openedPath } from "./snapshot.ts";
import { linkedController } from "./watchdog.ts";
import { TransferMeter } from "./transfer_meter.ts";

export const DEFAULT_CONNECTIONS = 4;

export interface PullOptions {
  /** Patterns of files, in place of our own choice. */
  include?: readonly string[];
  exclude?: readonly string[];
  /** Requests at once. */
  connections?: number;
  /** Say what would be fetched, and fetch nothing. */
  dryRun?: boolean;
  onProgress?: OnProgress;
  /** What is to be fetched, before it is. */
  onPlan?: (plan: PullReport) => void;
  /** What a person may want to know as it happens. */
  onNotice?: (text: string) => void;
  signal?: AbortSignal;
  settings?: HubSettings;
  retryMs?: number;
  pieceBytes?: number;
  freeBytes?: (folder: string) => number | null;
}

export interface PulledFile {
  path: string;
  bytes: number;
  /** SHA-256 of a large file, git's SHA-1 of a small one. */
  hash: string;
  /** `missing`: it was not fetched, as in a dry run. */
  state: "present" | "fetched" | "missing";
}

export interface PullReport {
  /** As it can be given to `--model`. */
  model: string;
  repo: string;
  revision: string;
  commit: string;
  /** What to open: the snapshot's folder, or a GGUF file in it; null without weights. */
  path: string | null;
  files: PulledFile[];
  /** Of all files. */
  bytes: number;
  /** Of these, what had to come over the network. */
  neededBytes: number;
  seconds: number;
}

/** What is to be done. */
interface Plan {
  readonly text: string;
  readonly folder: string;
  readonly remote: RemoteRepo;
  readonly files: readonly RemoteFile[];
  readonly missing: readonly RemoteFile[];
  readonly neededBytes: number;
  readonly startedMs: number;
}

/**
 * Fetches what a model needs and is not in the cache yet.
 *
 * @param text `org/name`, `hf:org/name@revision:file.gguf`, or a name of the catalogue.
 * @throws {UsageError} If the name or the patterns make no sense.
 * @throws {HubError} If the hub does not have it, does not give it, or there is no room.
 */
export async function pullModel(text: string, options: PullOptions = {}): Promise<PullReport> {
  const settings = options.settings ?? hubSettings();
  using controller = linkedController(options.signal);
  const client: HubClient = {
    settings,
    signal: controller.signal,
    retryMs: options.retryMs ?? RETRY_MS,
    onRetry: (reason, pauseMs) =>
      options.onNotice?.(`${reason}: trying again in ${(pauseMs / 1000).toFixed(1)} s`),
  };
  const plan = await planPull(client, text, options);
  options.onPlan?.(reportOf(plan, []));
  if (options.dryRun) return reportOf(plan, []);
  const freeBytes = (options.freeBytes ?? freeBytesAt)(settings.cacheFolder);
  checkRoom(text, settings.cacheFolder, plan.neededBytes, freeBytes);
  try {
    const fetched = await fetchMissing(client, plan, options, controller.abort);
    publish(settings.cacheFolder, plan, fetched);
    return reportOf(plan, fetched);
  } catch (error) {
    throw asCacheError(settings.cacheFolder, error);
  }
}

async function planPull(client: HubClient, text: string, options: PullOptions): Promise<Plan> {
  const startedMs = performance.now();
  const name = requireHubName(text);
  const { isOffline, cacheFolder } = client.settings;
  if (isOffline) {
    throw new HubError(
      `Cannot fetch ${text} as HF_HUB_OFFLINE forbids requests: unset it, or take what \`list\` shows`,
    );
  }
  const { connections = DEFAULT_CONNECTIONS } = options;
  if (!Number.isInteger(connections) || connections < 1) {
    throw new UsageError(`Cannot pull with ${connections} connections: give 1 or more`);
  }
  const remote = await readRepo(client, name);
  const chosen = new Set(selectFiles(remote.files.map(({ path }) => path), name.repo, {
    ...options,
    file: name.file,
  }));
  const files = remote.files.filter(({ path }) => chosen.has(path));
  const folder = repoFolder(cacheFolder, remote.repo);
  const missing = files.filter((file) => !isPresent(folder, remote.commit, file));
  const neededBytes = sum(missing.map((file) => bytesToCome(folder, file)));
  return { text: hubNameText(name), folder, remote, files, missing, neededBytes, startedMs };
}

function isPresent(folder: string, commit: string, { path, etag, bytes }: RemoteFile): boolean {
  return sizeAt(blobPath(folder, etag)) === bytes ||
    sizeAt(pointerPath(folder, commit, path)) === bytes;
}

function bytesToCome(folder: string, { etag, bytes }: RemoteFile): number {
  return bytes - partialBytes(folder, etag, bytes);
}

/** @returns The files that had to be fetched; others may have come by another process. */
async function fetchMissing(
  client: HubClient,
  { text, folder, remote, missing, neededBytes }: Plan,
  options: PullOptions,
  stop: (reason: unknown) => void,
): Promise<RemoteFile[]> {
  const pool = new Pool(options.connections ?? DEFAULT_CONNECTIONS);
  const meter = new TransferMeter(text, neededBytes, options.onProgress);
  const tasks = missing.map((file) => async () => {
    const toCome = bytesToCome(folder, file);
    const isFetched = await downloadBlob(client, remote, file, {
      pool,
      pieceBytes: options.pieceBytes ?? PIECE_BYTES,
      onBytes: (bytes) => meter.add(bytes),
      onHashed: (bytes) => meter.hashed(bytes),
      onWait: ({ path }) => options.onNotice?.(`Another process fetches ${path}: waiting for it`),
    });
    if (!isFetched) meter.skip(toCome);
    return isFetched ? [file] : [];
  });
  return (await allOrNone(tasks, stop)).flat();
}

/** Only now is the branch said to be at this commit: a pull that fails leaves the last one in use. */
function publish(
  cacheFolder: string,
  { folder, remote, files }: Plan,
  fetched: readonly RemoteFile[],
): void {
  tagCache(cacheFolder);
  const { commit, revision } = remote;
  const isNew = new Set(fetched.map(({ etag }) => etag));
  for (const [i, { path, etag, bytes }] of files.entries()) {
    if (sizeAt(blobPath(folder, etag)) !== bytes) continue;
    const isLast = !files.slice(i + 1).some((other) => other.etag === etag);
    linkSnapshot(folder, commit, path, etag, isLast && isNew.has(etag));
  }
  writeRef(folder, revision, commit);
}

function reportOf(plan: Plan, fetched: readonly RemoteFile[]): PullReport {
  const { text, folder, remote, files, neededBytes, startedMs } = plan;
  const { repo, revision, commit } = remote;
  const stateOf = (file: RemoteFile) =>
    fetched.includes(file) ? "fetched" : isPresent(folder, commit, file) ? "present" : "missing";
  return {
    model: text,
    repo,
    revision,
    commit,
    path: openedPath(folder, commit, files.map(({ path }) => path)),
    files: files.map((file) => ({
      path: file.path,
      bytes: file.bytes,
      hash: file.etag,
      state: stateOf(file),
    })),
    bytes: sum(files.map(({ bytes }) => bytes)),
    neededBytes,
    seconds: Number(((performance.now() - startedMs) / 1000).toFixed(3)),
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
