/** Files in memory that count what is read of them, and fail on any read that is not within one. */
import { join } from "node:path";
import { type ByteSource, memoryBytes } from "../runtime/byte_source.ts";
import { CheckpointError } from "../runtime/errors.ts";
import { utf8Text } from "../runtime/json.ts";
import type { ModelFiles } from "../runtime/model_files.ts";

/** A read that is not within the file. */
export class OutsideError extends Error {
  override name = "OutsideError";
}

export interface Reads {
  count: number;
  bytes: number;
}

/** Bytes as a file. */
export function watchedBytes(bytes: Uint8Array, path: string, reads: Reads): ByteSource {
  const source = memoryBytes(bytes, path);
  return {
    ...source,
    read(position, length, allocate) {
      const isInside = Number.isSafeInteger(position) && Number.isSafeInteger(length) &&
        position >= 0 && length >= 0 && position + length <= bytes.length;
      if (!isInside) {
        throw new OutsideError(`${length} bytes at ${position} of ${bytes.length} of ${path}`);
      }
      reads.count++;
      reads.bytes += length;
      return source.read(position, length, allocate);
    },
  };
}

/** Files of a folder, by name. */
export function watchedFiles(
  folder: string,
  files: Readonly<Record<string, Uint8Array>>,
  reads: Reads,
): ModelFiles {
  const paths = new Map(Object.entries(files).map(([name, bytes]) => [join(folder, name), bytes]));
  return {
    has: (path) => Promise.resolve(paths.has(path)),
    open(path) {
      const bytes = paths.get(path);
      if (bytes !== undefined) return Promise.resolve(watchedBytes(bytes, path, reads));
      return Promise.reject(new CheckpointError(`Cannot open ${path}: there is no such file`));
    },
    // deno-lint-ignore require-await -- so that errors become rejections.
    async text(path) {
      const bytes = paths.get(path);
      if (bytes === undefined) return null;
      reads.count++;
      reads.bytes += bytes.length;
      return utf8Text(bytes, path);
    },
  };
}
