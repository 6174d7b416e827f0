/**
 * Writes the files of a conversion where nobody takes them for finished: in a folder `NAME.partial`
 * beside their place, from which they are renamed when all are whole. A journal in it says how far
 * they are, so that the same command goes on after a kill.
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BlockWriter, writeAll } from "../block_writer.ts";
import { freeBytesAt } from "../hub/disk.ts";
import type { OnProgress } from "../types.ts";
import { OutputError, outputError } from "./errors.ts";
import { beginJournal, JOURNAL, type JournalState, JournalWriter, readJournal } from "./journal.ts";
import type { Part, PlannedFile } from "./plan.ts";

const SYNC_BYTES = 64 << 20;

/** The place in which an output is made, and what an earlier run has left there. */
export interface Staging {
  destination: string;
  /** Folder of the unfinished files. */
  folder: string;
  files: readonly PlannedFile[];
  /** Of what the journal tells. */
  identity: string;
  /** Of an earlier run of the same conversion; nothing where there was none. */
  earlier: JournalState;
  /** Whether that run has moved the folder to its place, and then was stopped. */
  isPublished: boolean;
}

/** Files that are written. */
export interface Staged {
  /** Notes of finished parts, those of an earlier run first. */
  notes: unknown[];
  /** Bytes that an earlier run had finished. */
  resumedBytes: number;
}

export interface StagingOptions {
  /** Takes what is to be remembered of the parts since it was last called. */
  takeNotes?: () => unknown[];
  /** What is written between two lines of the journal: as much may be done again after a kill. */
  syncBytes?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** The folder in which an output is made. */
export function stagingFolder(destination: string): string {
  return `${destination}.partial`;
}

const NOTHING: JournalState = { identity: null, parts: 0, notes: [], whole: null };

/**
 * Looks at what an earlier run has left, and changes nothing.
 *
 * @param identity Says of what and how: what was left of another is of no use.
 */
export async function openStaging(
  destination: string,
  files: readonly PlannedFile[],
  identity: string,
): Promise<Staging> {
  const folder = stagingFolder(destination);
  const whose = identityOf(files, identity);
  const staging = { destination, folder, files, identity: whose };
  for (const at of [folder, destination]) {
    const earlier = await readJournal(at);
    const isOurs = earlier.identity === whose && await areThere(at, files, earlier);
    if (isOurs) return { ...staging, earlier, isPublished: at === destination };
  }
  return { ...staging, earlier: NOTHING, isPublished: false };
}

/** Of the source, the options, and all that is known of the files beforehand. */
function identityOf(files: readonly PlannedFile[], identity: string): string {
  const hash = createHash("sha256").update(identity);
  for (const { name, head, parts, bytes } of files) {
    hash.update(JSON.stringify([name, bytes])).update(head);
    for (const { content } of parts) if (content !== undefined) hash.update(content);
  }
  return hash.digest("hex");
}

/** Whether the files are as long as the journal says, here or where they were being moved to. */
async function areThere(
  folder: string,
  files: readonly PlannedFile[],
  { parts, whole }: JournalState,
): Promise<boolean> {
  let left = parts;
  for (const { name, bytes, parts: all } of files) {
    const end = whole === null ? endOf(all[Math.min(left, all.length) - 1]) : bytes;
    const isMoved = whole !== null && await sizeOf(join(dirname(folder), name)) === bytes;
    if (await sizeOf(join(folder, name)) < end && !isMoved) return false;
    left = Math.max(0, left - all.length);
  }
  return true;
}

/** 0 where there is none. */
function sizeOf(path: string): Promise<number> {
  return stat(path).then(({ size }) => size, () => 0);
}

/**
 * Writes all files, or what an earlier run has left of them.
 *
 * @throws {OutputError} If the place can't be written, or has too little room.
 */
export async function stage(staging: Staging, options: StagingOptions = {}): Promise<Staged> {
  const { destination, folder, files, earlier } = staging;
  const notes = [...earlier.notes];
  const done = earlier.whole === null ? finishedBytes(files, earlier.parts) : totalBytes(files);
  if (earlier.whole !== null) return { notes, resumedBytes: done };
  try {
    if (earlier.identity === null) await begin(staging);
    await checkRoom(folder, files).catch(async (error) => {
      if (earlier.parts === 0) await removeStaging(folder);
      throw error;
    });
    await using job = await Job.open(folder, { ...options, files, notes, done });
    let before = 0;
    for (const file of files) {
      await job.write(file, Math.max(0, earlier.parts - before));
      before += file.parts.length;
    }
    return { notes, resumedBytes: done };
  } catch (error) {
    throw outputError(destination, error);
  }
}

async function begin({ folder, identity }: Staging): Promise<void> {
  await removeStaging(folder);
  await mkdir(folder);
  beginJournal(folder, identity);
}

/** Notes that all is whole and has been read back: what is left is to move it. */
export async function endStaging(staging: Staging, verified: unknown): Promise<void> {
  try {
    await using journal = await JournalWriter.open(staging.folder);
    await journal.end(verified);
  } catch (error) {
    throw outputError(staging.destination, error);
  }
}

/** Removes an unfinished output; a folder that is not ours stays, and is an error. */
export async function removeStaging(folder: string): Promise<void> {
  const names: string[] = await readdir(folder).catch(() => []);
  if (names.length > 0 && !names.includes(JOURNAL)) {
    throw new OutputError(
      `Cannot write in ${
        JSON.stringify(folder)
      }: the folder is not one of an unfinished conversion: ` +
        "move it away",
    );
  }
  await rm(folder, { recursive: true, force: true });
}

function finishedBytes(files: readonly PlannedFile[], parts: number): number {
  const all = files.flatMap((file) => file.parts);
  return all.slice(0, parts).reduce((sum, { bytes }) => sum + bytes, 0);
}

function totalBytes(files: readonly PlannedFile[]): number {
  return finishedBytes(files, Infinity);
}

async function checkRoom(folder: string, files: readonly PlannedFile[]): Promise<void> {
  const free = freeBytesAt(folder);
  let needed = 0;
  for (const { name, bytes } of files) {
    needed += Math.max(0, bytes - await sizeOf(join(folder, name)));
  }
  if (free === null || free >= needed) return;
  throw new OutputError(
    `Cannot write ${JSON.stringify(basename(folder).replace(/\.partial$/, ""))}: it needs ` +
      `${needed} bytes, and ${dirname(folder)} has ${free} free: make room`,
  );
}

interface JobOptions extends StagingOptions {
  files: readonly PlannedFile[];
  notes: unknown[];
  done: number;
}

class Job implements AsyncDisposable {
  readonly #folder: string;
  readonly #options: JobOptions;
  readonly #journal: JournalWriter;
  readonly #total: number;
  /** Bytes and parts that are written, and bytes of which the journal tells. */
  #done: number;
  #parts = 0;
  #journaled: number;

  private constructor(folder: string, options: JobOptions, journal: JournalWriter) {
    this.#folder = folder;
    this.#options = options;
    this.#journal = journal;
    this.#done = this.#journaled = options.done;
    this.#total = totalBytes(options.files);
  }

  static async open(folder: string, options: JobOptions): Promise<Job> {
    return new Job(folder, options, await JournalWriter.open(folder));
  }

  /** Writes a file from its part `first` on. */
  async write(file: PlannedFile, first: number): Promise<void> {
    const parts = file.parts.slice(first);
    this.#parts += Math.min(first, file.parts.length);
    const path = join(this.#folder, file.name);
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, first > 0 ? "r+" : "w");
    try {
      if (first === 0) await writeAll(handle, file.head, 0);
      const last = file.parts[Math.min(first, file.parts.length) - 1];
      const from = first === 0 ? file.head.length : endOf(last);
      await this.#writeParts(handle, parts, from);
      await handle.truncate(file.bytes);
      await handle.sync();
      await this.#tell();
    } finally {
      await handle.close();
    }
  }

  async #writeParts(handle: FileHandle, parts: readonly Part[], from: number): Promise<void> {
    await using blocks = new BlockWriter((block, at) => writeAll(handle, block, from + at));
    for (const part of parts) {
      await blocks.append(new Uint8Array(part.offset - from - blocks.end));
      for await (const chunk of part.chunks()) {
        this.#options.signal?.throwIfAborted();
        await blocks.append(chunk);
        this.#done += chunk.length;
        this.#report();
      }
      checkLength(part, from + blocks.end);
      this.#parts++;
      if (this.#done - this.#journaled < (this.#options.syncBytes ?? SYNC_BYTES)) continue;
      await blocks.finish();
      await handle.datasync();
      await this.#tell();
    }
    await blocks.finish();
  }

  /** Writes into the journal how far all is. */
  async #tell(): Promise<void> {
    this.#journaled = this.#done;
    const notes = this.#options.takeNotes?.() ?? [];
    this.#options.notes.push(...notes);
    await this.#journal.tell(this.#parts, notes);
  }

  #report(): void {
    this.#options.onProgress?.({
      phase: "convert",
      message: "Converting",
      done: this.#done,
      total: this.#total,
      unit: "bytes",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#journal[Symbol.asyncDispose]();
  }
}

function endOf(part: Part | undefined): number {
  return part === undefined ? 0 : part.offset + part.bytes;
}

function checkLength(part: Part, end: number): void {
  if (end === part.offset + part.bytes) return;
  throw new Error(
    `Cannot convert ${part.what}: ${
      end - part.offset
    } bytes were made in place of ${part.bytes}, ` +
      "report this",
  );
}
