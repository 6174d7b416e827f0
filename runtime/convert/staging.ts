/**
 * Writes the files of a conversion where nobody takes them for finished: in a folder `NAME.partial`
 * beside their place, from which they are renamed when all are whole. A journal in it says how far
 * they are, so that the same command goes on after a kill.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BlockWriter, writeAll } from "../block_writer.ts";
import { freeBytesAt } from "../hub/disk.ts";
import { readTextFile } from "../json.ts";
import type { OnProgress } from "../types.ts";
import { OutputError, outputError } from "./errors.ts";
import type { Part, PlannedFile } from "./plan.ts";

const JOURNAL = "journal.jsonl";
const SYNC_BYTES = 64 << 20;

export interface Staging {
  /** Folder of the unfinished files. */
  folder: string;
  files: readonly PlannedFile[];
  /** Notes of finished parts, those of an earlier run first. */
  notes: unknown[];
  /** Bytes that an earlier run had finished. */
  resumedBytes: number;
}

export interface StagingOptions {
  /** Says of what and how: an earlier run of another identity is thrown away. */
  identity: string;
  /** Takes what is to be remembered of the parts since it was last called. */
  takeNotes?: () => unknown[];
  /** What is written between two lines of the journal: as much may be done again after a kill. */
  syncBytes?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

interface Journal {
  /** Parts that are finished, of all files in their order. */
  parts: number;
  notes: unknown[];
}

/** The folder in which an output is made. */
export function stagingFolder(destination: string): string {
  return `${destination}.partial`;
}

/**
 * Writes all files, or what an earlier run has left of them.
 *
 * @throws {OutputError} If the place can't be written, or has too little room.
 */
export async function stage(
  destination: string,
  files: readonly PlannedFile[],
  options: StagingOptions,
): Promise<Staging> {
  const folder = stagingFolder(destination);
  try {
    const earlier = await openFolder(folder, files, identityOf(files, options.identity));
    const notes = [...earlier.notes];
    const done = finishedBytes(files, earlier.parts);
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
    return { folder, files, notes, resumedBytes: done };
  } catch (error) {
    throw outputError(destination, error);
  }
}

/** Of the source, the options, and all that the files' heads say. */
function identityOf(files: readonly PlannedFile[], identity: string): string {
  const hash = createHash("sha256").update(identity);
  for (const { name, head, bytes } of files) {
    hash.update(JSON.stringify([name, bytes])).update(head);
  }
  return hash.digest("hex");
}

async function openFolder(
  folder: string,
  files: readonly PlannedFile[],
  identity: string,
): Promise<Journal> {
  const journal = join(folder, JOURNAL);
  const lines = parseLines(await readTextFile(journal).catch(() => null));
  const parts = Number(lines.findLast(({ parts }) => parts !== undefined)?.parts ?? 0);
  if (lines[0]?.identity === identity && await areThere(folder, files, parts)) {
    return { parts, notes: lines.flatMap(({ notes }) => Array.isArray(notes) ? notes : []) };
  }
  await removeStaging(folder);
  await mkdir(folder);
  fs.writeFileSync(journal, `${JSON.stringify({ identity })}\n`);
  return { parts: 0, notes: [] };
}

/** Whether the files are as long as the journal says. */
async function areThere(folder: string, files: readonly PlannedFile[], parts: number) {
  let left = parts;
  for (const { name, parts: all } of files) {
    const end = endOf(all[Math.min(left, all.length) - 1]);
    const size = await stat(join(folder, name)).then((info) => info.size, () => 0);
    if (size < end) return false;
    left = Math.max(0, left - all.length);
  }
  return true;
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

/** Whole lines only: a kill may leave half of one. */
function parseLines(text: string | null): Record<string, unknown>[] {
  const lines: Record<string, unknown>[] = [];
  for (const line of text?.split("\n").slice(0, -1) ?? []) {
    try {
      lines.push(JSON.parse(line));
    } catch {
      return lines;
    }
  }
  return lines;
}

function finishedBytes(files: readonly PlannedFile[], parts: number): number {
  const all = files.flatMap((file) => file.parts);
  return all.slice(0, parts).reduce((sum, { bytes }) => sum + bytes, 0);
}

async function checkRoom(folder: string, files: readonly PlannedFile[]): Promise<void> {
  const free = freeBytesAt(folder);
  let needed = 0;
  for (const { name, bytes } of files) {
    const there = await stat(join(folder, name)).then(({ size }) => size, () => 0);
    needed += Math.max(0, bytes - there);
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
  readonly #journal: FileHandle;
  readonly #total: number;
  /** Bytes and parts that are written, and bytes of which the journal tells. */
  #done: number;
  #parts = 0;
  #journaled: number;

  private constructor(folder: string, options: JobOptions, journal: FileHandle) {
    this.#folder = folder;
    this.#options = options;
    this.#journal = journal;
    this.#done = this.#journaled = options.done;
    this.#total = finishedBytes(options.files, Infinity);
  }

  static async open(folder: string, options: JobOptions): Promise<Job> {
    return new Job(folder, options, await open(join(folder, JOURNAL), "a"));
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
    await this.#journal.appendFile(`${JSON.stringify({ parts: this.#parts, notes })}\n`);
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
    await this.#journal.close();
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

/** Moves finished files to their places, one after the other. */
export async function publishFiles({ folder, files }: Staging): Promise<string[]> {
  const target = dirname(folder);
  const paths: string[] = [];
  for (const { name } of files) {
    paths.push(join(target, name));
    await rename(join(folder, name), join(target, name));
  }
  await rm(folder, { recursive: true });
  syncFolder(target);
  return paths;
}

/** Moves the folder as a whole to its place, where an older one may be. */
export async function publishFolder(
  { folder, files }: Staging,
  destination: string,
): Promise<string[]> {
  await rm(join(folder, JOURNAL));
  const old = `${destination}.old`;
  const isThere = fs.existsSync(destination);
  if (isThere) await rename(destination, old);
  await rename(folder, destination);
  if (isThere) await rm(old, { recursive: true });
  syncFolder(dirname(destination));
  return files.map(({ name }) => join(destination, name));
}

/** Renames outlive a power cut only when the folder is synced too; not all systems can. */
function syncFolder(folder: string): void {
  try {
    const handle = fs.openSync(folder, "r");
    try {
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
  } catch {
    // Windows has no such call.
  }
}
