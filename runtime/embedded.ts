import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { cacheDirectory, publishFiles, removeDirectory } from "../kernels/cache.ts";

/** The folder's name is the model's. */
const NAME = "story";

/** Where Bun shows a single-file executable's own files; on Windows it is a drive. */
const IN_EXECUTABLE = /^(\/\$bunfs|[A-Z]:[\\/]~BUN)[\\/]/;

let unpacked: string | undefined;

/**
 * Folder of the story model that comes with Trilith. A single-file executable holds it inside and
 * unpacks it into the cache directory at first use, as native code maps files of the file system.
 *
 * @throws {CacheError} If it can't be unpacked there.
 */
export function embeddedModelFolder(): string {
  const own = fileURLToPath(import.meta.url);
  if (!IN_EXECUTABLE.test(own)) return fileURLToPath(new URL("../models/story", import.meta.url));
  return unpacked ??= unpackFolder(path.join(path.dirname(own), NAME));
}

/**
 * The copy of a folder's files in the cache directory, made if it isn't there or isn't whole. Its
 * path has a hash of them all, so that executables of several versions don't share one.
 *
 * @returns The copy, which has the folder's name.
 * @throws {CacheError} If it can't be written.
 */
export function unpackFolder(folder: string): string {
  const names = fs.readdirSync(folder).sort();
  const files = new Map(names.map((name) => [name, fs.readFileSync(path.join(folder, name))]));
  const parent = cacheDirectory("embedded", digestOf(files));
  const name = path.basename(folder);
  if (isWhole(path.join(parent, name), files)) return path.join(parent, name);
  removeDirectory(parent, name);
  return publishFiles(parent, name, files);
}

function digestOf(files: ReadonlyMap<string, Uint8Array>): string {
  const hash = createHash("sha256");
  for (const [name, bytes] of files) hash.update(`${name} ${bytes.length}\n`).update(bytes);
  return hash.digest("hex").slice(0, 32);
}

/** Sizes only: cleaners of caches delete files, and nothing writes into them. */
function isWhole(folder: string, files: ReadonlyMap<string, Uint8Array>): boolean {
  return [...files].every(([name, { length }]) =>
    fs.statSync(path.join(folder, name), { throwIfNoEntry: false })?.size === length
  );
}
