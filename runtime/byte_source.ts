/** Bytes that are read by position: those of a file, or of memory where tests make them. */
import { type FileHandle, open, stat } from "node:fs/promises";
import { CheckpointError, reasonOf, shown } from "./errors.ts";
import { isMissing } from "./json.ts";
import type { Allocate } from "./weights.ts";

/** One read call takes at most 2^31 - 1 bytes on Linux. */
const MAX_READ_BYTES = 2 ** 30;

export interface ByteSource {
  /** For errors. */
  readonly path: string;
  readonly size: number;
  readonly modifiedMs: number;
  /**
   * Exactly `length` bytes from `position`, at the start of a buffer that `allocate` gives.
   * @throws {CheckpointError} If there are fewer.
   */
  read(position: number, length: number, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Opens a file: one of a disk, or of memory where tests make them. @throws As `openBytes`. */
export type OpenBytes = (path: string) => Promise<ByteSource>;

/** @throws {CheckpointError} If there is no such file, or it is none that can be read. */
export async function openBytes(path: string): Promise<ByteSource> {
  try {
    // A pipe would block and a device would never end, so look before opening.
    const info = await stat(path);
    if (!info.isFile()) throw new Error("it is not a regular file");
    // Deno gives whole milliseconds, Bun fractions: both must make the same identity.
    return new FileBytes(path, info.size, Math.floor(info.mtimeMs), await open(path, "r"));
  } catch (error) {
    const reason = isMissing(error) ? "there is no such file" : reasonOf(error);
    throw new CheckpointError(`Cannot open ${shown(path)}: ${reason}`);
  }
}

/** Bytes in memory as if they were a file. */
export function memoryBytes(bytes: Uint8Array, path: string): ByteSource {
  return {
    path,
    size: bytes.length,
    modifiedMs: 0,
    read(position, length, allocate = (bytes) => new Uint8Array(bytes)) {
      const isInside = position >= 0 && length >= 0 && position + length <= bytes.length;
      if (!isInside) return Promise.reject(cutError(path, bytes.length));
      const out = allocate(length);
      out.set(bytes.subarray(position, position + length));
      return Promise.resolve(out);
    },
    close: () => Promise.resolve(),
  };
}

function cutError(path: string, end: number): CheckpointError {
  return new CheckpointError(
    `Cannot read ${shown(path)}: it ends at byte ${end}, it was cut while in use`,
  );
}

class FileBytes implements ByteSource {
  readonly path: string;
  readonly size: number;
  readonly modifiedMs: number;
  readonly #handle: FileHandle;

  constructor(path: string, size: number, modifiedMs: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.modifiedMs = modifiedMs;
    this.#handle = handle;
  }

  async read(
    position: number,
    length: number,
    allocate: Allocate = (bytes) => new Uint8Array(bytes),
  ): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = allocate(length);
    for (let done = 0; done < length;) {
      const wanted = Math.min(length - done, MAX_READ_BYTES);
      const got = await this.#readOnce(bytes.subarray(done, done + wanted), position + done);
      if (got === 0) throw cutError(this.path, position + done);
      done += got;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #readOnce(into: Uint8Array, position: number): Promise<number> {
    try {
      return (await this.#handle.read(into, 0, into.length, position)).bytesRead;
    } catch (error) {
      throw new CheckpointError(`Cannot read ${shown(this.path)}: ${reasonOf(error)}`);
    }
  }
}
