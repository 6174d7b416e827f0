/** One file of the hub into the cache: in ranges, beside each other, checked before it counts. */
import fs from "node:fs";
import path from "node:path";
import { CacheError, withLock } from "../../kernels/cache.ts";
import { shown } from "../errors.ts";
import {
  type Answer,
  discard,
  getOnce,
  type HubClient,
  networkError,
  TransientError,
  withRetries,
} from "./client.ts";
import { asCacheError, HubError } from "./errors.ts";
import { blobPath, lockName, locksFolder, repoFolder, sizeAt } from "./layout.ts";
import type { RemoteFile, RemoteRepo } from "./listing.ts";
import { Partial, type Range } from "./partial.ts";
import { allOrNone, type Pool } from "./pool.ts";
import { linkedController, Watchdog } from "./watchdog.ts";

/** Of one request: large enough that its overhead does not count, small enough to share out. */
export const PIECE_BYTES = 32 << 20;

export interface DownloadOptions {
  readonly pool: Pool;
  readonly pieceBytes: number;
  /** Told of bytes that came, or, negative, that have to come again. */
  readonly onBytes: (bytes: number) => void;
  /** Told of bytes whose hash was computed. */
  readonly onHashed: (bytes: number) => void;
  /** Another process fetches the same file. */
  readonly onWait?: (file: RemoteFile) => void;
}

/** The server sends the whole file when asked for a part. */
class RangeIgnoredError extends Error {
  override readonly name = "RangeIgnoredError";
}

/**
 * Makes the file's blob, unless it is there. Another process that wants the same waits, and then
 * finds it.
 *
 * @returns Whether it had to be fetched.
 * @throws {HubError} If it can't be had, or is not what the hub's list promises.
 */
export async function downloadBlob(
  client: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  options: DownloadOptions,
): Promise<boolean> {
  const { cacheFolder } = client.settings;
  const folder = repoFolder(cacheFolder, remote.repo);
  const blob = blobPath(folder, file.etag);
  if (sizeAt(blob) === file.bytes) return false;
  try {
    fs.mkdirSync(path.dirname(blob), { recursive: true });
    const locks = locksFolder(cacheFolder, remote.repo);
    return await withLock(locks, lockName(file.etag), async () => {
      if (sizeAt(blob) === file.bytes) return false;
      // Of another size it was not written by us or by Python: cut off, or changed by hand.
      fs.rmSync(blob, { force: true });
      await fetchChecked(client, remote, file, options);
      return true;
    }, { signal: client.signal, onWait: () => options.onWait?.(file) });
  } catch (error) {
    throw asCacheError(cacheFolder, error instanceof CacheError ? error.cause ?? error : error);
  }
}

async function fetchChecked(
  client: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  options: DownloadOptions,
): Promise<void> {
  const folder = repoFolder(client.settings.cacheFolder, remote.repo);
  for (;;) {
    await using partial = await Partial.open(folder, file.etag, file.bytes);
    const hadBytes = partial.doneBytes;
    await fetchRanges(client, remote, file, partial, options);
    if (await partial.publish(file.etag, options.onHashed)) return;
    options.onBytes(-file.bytes);
    // What an earlier run left may be what is wrong, as after a power cut: once more from the start.
    if (hadBytes === 0) throw wrongHash(client, file);
  }
}

function wrongHash({ settings }: HubClient, { path, etag }: RemoteFile): HubError {
  const kind = etag.length === 64 ? "SHA-256" : "git's SHA-1";
  return new HubError(
    `Cannot use ${shown(path)} as what came has not the ${kind} ${etag} that ` +
      `${settings.endpoint} names: it was deleted, pull again or from another HF_ENDPOINT`,
  );
}

async function fetchRanges(
  client: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  partial: Partial,
  options: DownloadOptions,
): Promise<void> {
  try {
    await fetchPieces(client, remote, file, partial, options, options.pieceBytes);
  } catch (error) {
    if (!(error instanceof RangeIgnoredError)) throw error;
    options.onBytes(-partial.doneBytes);
    await partial.restart();
    await fetchPieces(client, remote, file, partial, options, Infinity);
  }
}

async function fetchPieces(
  outer: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  partial: Partial,
  options: DownloadOptions,
  mostBytes: number,
): Promise<void> {
  using controller = linkedController(outer.signal);
  const client = { ...outer, signal: controller.signal };
  const pieces = partial.missing(mostBytes).map((range) => () =>
    options.pool.run(() => fetchPiece(client, remote, file, partial, range, options))
  );
  await allOrNone(pieces, controller.abort);
}

/** After a drop it goes on where the last answer broke off. */
async function fetchPiece(
  client: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  partial: Partial,
  piece: Range,
  options: DownloadOptions,
): Promise<void> {
  const [start, end] = piece;
  let at = start;
  await withRetries(client, async () => {
    await using watchdog = new Watchdog(client.settings.stallMs, client.signal);
    const answer = await ask(client, remote, file, { piece, at }, watchdog);
    if (answer.response.status !== PARTIAL_CONTENT) {
      options.onBytes(start - at);
      at = start;
    }
    for await (const chunk of chunksOf(client, answer, watchdog)) {
      if (at + chunk.length > end) throw wrongLength(file, `more than ${end - start} bytes came`);
      await partial.write(chunk, at);
      at += chunk.length;
      options.onBytes(chunk.length);
    }
    if (at < end) throw new TransientError(`${hostOf(answer)} stopped ${end - at} bytes early`);
  }, () => at);
}

const PARTIAL_CONTENT = 206;

/** A piece of a file, and how far in the file it is here. */
interface Progress {
  readonly piece: Range;
  readonly at: number;
}

function isWholeFile([start, end]: Range, { bytes }: RemoteFile): boolean {
  return start === 0 && end === bytes;
}

async function ask(
  client: HubClient,
  remote: RemoteRepo,
  file: RemoteFile,
  { piece, at }: Progress,
  watchdog: Watchdog,
): Promise<Answer> {
  const isFromStart = isWholeFile(piece, file) && at === 0;
  const headers: Record<string, string> = isFromStart
    ? {}
    : { range: `bytes=${at}-${piece[1] - 1}` };
  const address = `${client.settings.endpoint}/${remote.repo}/resolve/${remote.commit}/` +
    file.path.split("/").map(encodeURIComponent).join("/");
  const what = `${remote.repo}:${shown(file.path).slice(1, -1)}`;
  const answer = await getOnce(client, address, what, watchdog, headers);
  try {
    checkAnswer(answer, file, { piece, at });
  } catch (error) {
    await discard(answer.response);
    throw error;
  }
  return answer;
}

/** What the headers say must agree with the hub's list before a byte is written. */
function checkAnswer(
  { response, linkedEtag, linkedSize }: Answer,
  file: RemoteFile,
  { piece, at }: Progress,
): void {
  if (linkedEtag !== null && file.etag.length === 64 && linkedEtag !== file.etag) {
    throw new HubError(
      `Cannot fetch ${shown(file.path)} as it was replaced on the hub in the meantime: pull again`,
    );
  }
  if (linkedSize !== null && linkedSize !== file.bytes) {
    throw wrongLength(file, `the file is said to have ${linkedSize} bytes`);
  }
  if (response.status === PARTIAL_CONTENT) return checkRange(response, file, [at, piece[1]]);
  if (!isWholeFile(piece, file)) throw new RangeIgnoredError();
  const length = response.headers.get("content-length");
  if (length !== null && Number(length) !== file.bytes) {
    throw wrongLength(file, `${length} bytes are announced`);
  }
}

function checkRange(response: Response, file: RemoteFile, [start, end]: Range): void {
  const range = response.headers.get("content-range") ?? "";
  const [, from, to, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range) ?? [];
  if (total !== undefined && total !== "*" && Number(total) !== file.bytes) {
    throw wrongLength(file, `the file is said to have ${total} bytes`);
  }
  if (Number(from) === start && Number(to) === end - 1) return;
  throw wrongLength(file, `bytes ${start} to ${end - 1} were asked for and ${shown(range)} comes`);
}

function wrongLength({ path, bytes }: RemoteFile, reason: string): HubError {
  return new HubError(
    `Cannot fetch ${shown(path)} as it must have ${bytes} bytes and ${reason}: pull again, or ` +
      `from another HF_ENDPOINT`,
  );
}

async function* chunksOf(
  client: HubClient,
  answer: Answer,
  watchdog: Watchdog,
): AsyncGenerator<Uint8Array> {
  const reader = answer.response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      watchdog.touch();
      yield value;
    }
  } catch (error) {
    throw networkError(client, error, hostOf(answer), watchdog);
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function hostOf({ response }: Answer): string {
  return URL.canParse(response.url) ? new URL(response.url).host : "the server";
}
