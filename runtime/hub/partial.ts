/**
 * A file of which some ranges are here: `ETAG.trilith.incomplete`, with `ETAG.trilith.json` beside
 * it, which says which. Python's `ETAG.incomplete` files are without holes, and it goes on at their
 * end: these must not have that name.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { isJsonObject, type Json } from "../json.ts";
import { HubError } from "./errors.ts";
import { blobPath } from "./layout.ts";

/** From `start` up to, not including, `end`. */
export type Range = readonly [start: number, end: number];

/** A kill loses what came since: the bytes are there, but nobody knows it. */
const NOTED_EVERY_MS = 1000;
const HASHED_AT_ONCE_BYTES = 4 << 20;

export class Partial implements AsyncDisposable {
  #done: Range[];
  /** Set while something came that is not noted yet. */
  #noteTimer: ReturnType<typeof setTimeout> | undefined;

  private constructor(
    private readonly blob: string,
    readonly bytes: number,
    private readonly handle: FileHandle,
    done: Range[],
  ) {
    this.#done = done;
  }

  /** Opens what an earlier run has left of a blob, or begins. */
  static async open(folder: string, etag: string, bytes: number): Promise<Partial> {
    const blob = blobPath(folder, etag);
    const done = readNote(blob, bytes);
    if (done.length === 0) fs.rmSync(dataPath(blob), { force: true });
    const handle = await open(dataPath(blob), done.length === 0 ? "w+" : "r+");
    return new Partial(blob, bytes, handle, done);
  }

  /** Bytes that are here. */
  get doneBytes(): number {
    return this.#done.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  /** Ranges that are not here, none longer than `mostBytes`. */
  missing(mostBytes: number): Range[] {
    const gaps: Range[] = [];
    let at = 0;
    for (const [start, end] of [...this.#done, [this.bytes, this.bytes] as const]) {
      for (; at < start; at = Math.min(start, at + mostBytes)) {
        gaps.push([at, Math.min(start, at + mostBytes)]);
      }
      at = end;
    }
    return gaps;
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, at + done);
      done += bytesWritten;
    }
    this.#done = joined([...this.#done, [at, at + bytes.length]]);
    this.#noteTimer ??= setTimeout(() => this.#note(), NOTED_EVERY_MS);
  }

  /** Forgets everything: what came was not of one file. */
  async restart(): Promise<void> {
    this.#done = [];
    fs.rmSync(notePath(this.blob), { force: true });
    await this.handle.truncate(0);
  }

  /**
   * Makes it the blob, if its bytes are those that its name promises.
   *
   * @param onHashed Told how many bytes were looked at.
   * @returns False if they are not: then it is gone.
   */
  async publish(etag: string, onHashed: (bytes: number) => void): Promise<boolean> {
    if (await this.#hash(etag, onHashed) !== etag) {
      this.#remove();
      return false;
    }
    await this.handle.sync();
    fs.renameSync(dataPath(this.blob), this.blob);
    fs.rmSync(notePath(this.blob), { force: true });
    return true;
  }

  /** Keeps what came for the next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#noteTimer);
    await this.handle.close();
    if (!fs.existsSync(dataPath(this.blob))) return;
    if (this.#done.length > 0) this.#note();
    else this.#remove();
  }

  /** The hub names large files by SHA-256, small ones as git does. */
  async #hash(etag: string, onHashed: (bytes: number) => void): Promise<string> {
    const hash = etag.length === 64
      ? createHash("sha256")
      : createHash("sha1").update(`blob ${this.bytes}\0`);
    const buffer = new Uint8Array(Math.min(this.bytes, HASHED_AT_ONCE_BYTES));
    for (let at = 0; at < this.bytes;) {
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) throw new HubError(`Cannot read ${this.blob}: it was cut off by others`);
      const within = Math.min(bytesRead, this.bytes - at);
      hash.update(buffer.subarray(0, within));
      onHashed(within);
      at += within;
    }
    return hash.digest("hex");
  }

  /**
   * As a whole or not at all. A power cut may lose bytes that are noted: the hash will tell. A note
   * that can't be written, as on a full disk, only means that more has to come again.
   */
  #note(): void {
    clearTimeout(this.#noteTimer);
    this.#noteTimer = undefined;
    const temporary = `${notePath(this.blob)}.new`;
    try {
      fs.writeFileSync(temporary, JSON.stringify({ bytes: this.bytes, done: this.#done }));
      fs.renameSync(temporary, notePath(this.blob));
    } catch {
      fs.rmSync(temporary, { force: true });
    }
  }

  #remove(): void {
    for (const file of [dataPath(this.blob), notePath(this.blob)]) fs.rmSync(file, { force: true });
  }
}

function dataPath(blob: string): string {
  return `${blob}.trilith.incomplete`;
}

function notePath(blob: string): string {
  return `${blob}.trilith.json`;
}

/** Bytes of a blob that an earlier run has left. */
export function partialBytes(folder: string, etag: string, bytes: number): number {
  return readNote(blobPath(folder, etag), bytes)
    .reduce((sum, [start, end]) => sum + end - start, 0);
}

/** Whether a file of a `blobs` folder is one of ours that was not finished. */
export function isPartialName(name: string): boolean {
  return /\.trilith\.(?:incomplete|json(?:\.new)?)$/.test(name);
}

/** The ranges that are here; none if the note is not whole, or not of this file. */
function readNote(blob: string, bytes: number): Range[] {
  const note = parsedNote(blob);
  if (!isJsonObject(note) || note.bytes !== bytes || !Array.isArray(note.done)) return [];
  const ranges = note.done.filter((range): range is [number, number] => isRange(range, bytes));
  if (ranges.length !== note.done.length) return [];
  const done = joined(ranges);
  const data = fs.statSync(dataPath(blob), { throwIfNoEntry: false });
  // A device has no size.
  const isThere = data !== undefined && (!data.isFile() || data.size >= (done.at(-1)?.[1] ?? 0));
  return isThere ? done : [];
}

function parsedNote(blob: string): Json {
  try {
    return JSON.parse(fs.readFileSync(notePath(blob), "utf8"));
  } catch {
    return null;
  }
}

function isRange(range: Json, bytes: number): boolean {
  return Array.isArray(range) && range.length === 2 && range.every(Number.isSafeInteger) &&
    (range[0] as number) >= 0 && (range[0] as number) < (range[1] as number) &&
    (range[1] as number) <= bytes;
}

/** In order, with those that touch or overlap made one. */
export function joined(ranges: readonly Range[]): Range[] {
  const result: [number, number][] = [];
  for (const [start, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}
