/**
 * Files that outlive a run: compiled kernels, the toolchain, packed weights. Everything is written
 * beside its place and renamed into it, so that a reader sees a whole file or none, whatever is
 * killed and whoever else writes; locks only save double work.
 */
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { environmentVariable, isAllGranted, isGranted, readTextIfAllowed } from "./permissions.ts";

/** The cache directory can't be used: another one, or more room, is up to the person. */
export class CacheError extends Error {
  override readonly name = "CacheError";
  constructor(readonly directory: string, readonly code: string, cause?: unknown) {
    const reason = REASONS[code] ?? code;
    super(
      `Cannot use the cache directory ${directory}: ${reason} (${code})` +
        `, set TRILITH_CACHE=/other/folder to a folder that can be written and has room`,
      { cause },
    );
  }
}

const REASONS: Record<string, string> = {
  EACCES: "it can't be written by this user",
  EPERM: "it can't be written by this user",
  EROFS: "its file system is read-only",
  ENOSPC: "its file system is full",
  EDQUOT: "this user's quota of disk space is used up",
  ENOTDIR: "a part of its path is a file",
  EEXIST: "there is a file of that name",
  ENOENT: "it can't be made there",
  ENAMETOOLONG: "its path is too long",
  UNSAFE: "other users may write in it, so that code in it can't be trusted",
  NotCapable: "Deno is not allowed to use it (--allow-read and --allow-write)",
};

/** Rethrows what the file system says of an unusable directory as CacheError, the rest as it is. */
export function throwCacheError(directory: string, error: unknown): never {
  const { code, name } = error as { code?: string; name?: string };
  const key = name === "NotCapable" ? name : code;
  const known = key !== undefined && key !== "ENOENT" && key in REASONS;
  if (error instanceof CacheError || !known) throw error;
  throw new CacheError(directory, key, error);
}

// ---------------------------------------------------------------- where

/**
 * Trilith's cache directory, or a folder in it, made with mode 0700 when it is absent: TRILITH_CACHE,
 * else the place where the system keeps such files.
 *
 * @throws {CacheError} If it can't be made, or other users could put code into the folder.
 */
export function cacheDirectory(...folders: string[]): string {
  const root = cacheRoot();
  const directory = path.join(root, ...folders);
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    // Such as below /proc, where nothing can be made.
    if ((error as { code?: string }).code === "ENOENT") throw new CacheError(root, "ENOENT", error);
    throwCacheError(root, error);
  }
  if (folders.length > 0) refuseUnsafe(path.join(root, folders[0]));
  return directory;
}

/** The folder that holds all that Trilith keeps; it may not exist yet. */
export function cacheRoot(): string {
  const own = environmentVariable("TRILITH_CACHE");
  if (own !== null) return path.resolve(own);
  // The XDG specification says that a relative path is to be ignored.
  const xdg = environmentVariable("XDG_CACHE_HOME");
  if (xdg !== null && path.isAbsolute(xdg)) return path.join(xdg, "trilith");
  if (process.platform === "win32") {
    const local = environmentVariable("LOCALAPPDATA") ??
      path.join(homeDirectory(), "AppData/Local");
    return path.join(local, "trilith", "cache");
  }
  const base = process.platform === "darwin" ? "Library/Caches" : ".cache";
  return path.join(homeDirectory(), base, "trilith");
}

function homeDirectory(): string {
  return environmentVariable("HOME") ?? environmentVariable("USERPROFILE") ?? os.homedir();
}

/**
 * Only folders of our own are looked at: TRILITH_CACHE itself may be a shared one such as /tmp, where
 * another user could have made our folder before us.
 */
function refuseUnsafe(folder: string): void {
  const uid = isGranted({ name: "sys", kind: "uid" }) ? process.getuid?.() : undefined;
  if (process.platform === "win32" || uid === undefined) return;
  const { mode, uid: owner } = fs.statSync(folder);
  if ((mode & 0o022) !== 0 || (owner !== uid && owner !== 0)) {
    throw new CacheError(folder, "UNSAFE");
  }
}

// ---------------------------------------------------------------- publish

const TEMPORARY = /^\.tmp-(\d+)-([0-9a-f]{8})-/;
const STALE_MS = 3600_000;

/** A name that no other writer has; it tells who writes, so that others can see whether he lives. */
function temporaryPath(directory: string, name: string): string {
  const unique = randomBytes(6).toString("hex");
  return path.join(directory, `.tmp-${process.pid}-${hostMark()}-${unique}-${name}`);
}

/**
 * Writes `directory/name` as a whole or not at all: to a temporary file, synced, then renamed over
 * what was there.
 *
 * @param write Fills the file, whose path for now is `temporary`; when it throws, nothing stays behind.
 * @returns The file's path.
 * @throws {CacheError} If the directory is not writable or full.
 */
export async function publishFile(
  directory: string,
  name: string,
  write: (file: FileHandle, temporary: string) => Promise<void>,
): Promise<string> {
  const temporary = temporaryPath(directory, name);
  const target = path.join(directory, name);
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    await writeSynced(temporary, write);
    fs.renameSync(temporary, target);
  } catch (error) {
    discard(temporary);
    throwCacheError(directory, error);
  }
  syncDirectory(directory);
  return target;
}

async function writeSynced(
  file: string,
  write: (file: FileHandle, temporary: string) => Promise<void>,
) {
  const handle = await open(file, "wx", 0o600);
  try {
    await write(handle, file);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Makes the directory `parent/name` as a whole or not at all. If another process has made it in the
 * meantime, its one is used and ours dropped.
 *
 * @param fill Fills a temporary directory beside the target. Files at its top level are synced;
 *   deeper ones are too many to wait for in a toolchain, whose users check it before they trust it.
 * @returns The directory's path.
 * @throws {CacheError} If `parent` is not writable or full.
 */
export async function publishDirectory(
  parent: string,
  name: string,
  fill: (temporary: string) => Promise<void>,
): Promise<string> {
  const temporary = temporaryPath(parent, name);
  const target = path.join(parent, name);
  try {
    fs.mkdirSync(temporary, { recursive: true, mode: 0o700 });
    await fill(temporary);
    syncTopLevel(temporary);
    renameUnlessThere(temporary, target);
  } catch (error) {
    throwCacheError(parent, error);
  } finally {
    discard(temporary);
  }
  syncDirectory(parent);
  return target;
}

/**
 * The same for a few files, at once: each is written with its content and synced.
 *
 * @throws {CacheError} If `parent` is not writable or full.
 */
export function publishFiles(
  parent: string,
  name: string,
  files: ReadonlyMap<string, Uint8Array>,
): string {
  const temporary = temporaryPath(parent, name);
  const target = path.join(parent, name);
  try {
    fs.mkdirSync(temporary, { recursive: true, mode: 0o700 });
    for (const [file, bytes] of files) {
      fs.writeFileSync(path.join(temporary, file), bytes, { flag: "wx", mode: 0o600 });
    }
    syncTopLevel(temporary);
    renameUnlessThere(temporary, target);
  } catch (error) {
    throwCacheError(parent, error);
  } finally {
    discard(temporary);
  }
  syncDirectory(parent);
  return target;
}

function renameUnlessThere(temporary: string, target: string): void {
  try {
    fs.renameSync(temporary, target);
  } catch (error) {
    // Linux says ENOTEMPTY or EEXIST, Windows EPERM or EACCES.
    if (!fs.existsSync(target)) throw error;
  }
}

/** Takes a directory away in one move, then deletes it: nobody meets half of it under its name. */
export function removeDirectory(parent: string, name: string): void {
  const retired = temporaryPath(parent, name);
  try {
    fs.renameSync(path.join(parent, name), retired);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return;
    throwCacheError(parent, error);
  }
  discard(retired);
}

/** Deletes what nobody needs. If that fails it must not hide the error that led here. */
function discard(temporary: string): void {
  try {
    fs.rmSync(temporary, { recursive: true, force: true });
  } catch {
    // `removeStaleTemporaries` tries again.
  }
}

function syncTopLevel(directory: string): void {
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    if (entry.isFile()) syncPath(path.join(directory, entry.name), "r+");
  }
}

/** A rename survives a power cut only once its directory is synced; Windows has no such call. */
function syncDirectory(directory: string): void {
  if (process.platform !== "win32") syncPath(directory, "r");
}

function syncPath(name: string, flags: string): void {
  try {
    const descriptor = fs.openSync(name, flags);
    try {
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    // Some file systems can't sync a directory: the files are whole, they may only be lost.
  }
}

/**
 * Deletes what killed writers left: temporaries whose process is gone, or older than an hour.
 *
 * @returns The names that were removed.
 */
export function removeStaleTemporaries(directory: string, now = Date.now()): string[] {
  if (!fs.existsSync(directory)) return [];
  const stale = fs.readdirSync(directory).filter((name) => {
    const parts = TEMPORARY.exec(name);
    return parts !== null && isStale(path.join(directory, name), parts, now);
  });
  for (const name of stale) discard(path.join(directory, name));
  return stale;
}

function isStale(file: string, [, pid, host]: RegExpExecArray, now: number): boolean {
  if (host === hostMark() && isDead(Number(pid))) return true;
  return now - (fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? now) > STALE_MS;
}

// ---------------------------------------------------------------- processes

let mark: string | undefined;

/** Which processes a pid can be compared with: those of this host and, on Linux, its pid namespace. */
function hostMark(): string {
  if (mark !== undefined) return mark;
  const host = isGranted({ name: "sys", kind: "hostname" }) ? os.hostname() : "";
  return mark = createHash("sha256").update(`${host} ${pidNamespace()}`).digest("hex").slice(0, 8);
}

/** Empty where there is none or we may not look: the host name has to do then. */
function pidNamespace(): string {
  if (process.platform !== "linux" || !isAllGranted()) return "";
  try {
    return fs.readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

/** True only if the process is known to be gone. Deno wants the permission to run all for asking. */
function isDead(pid: number): boolean {
  if (!isGranted({ name: "run" })) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as { code?: string }).code === "ESRCH";
  }
  // A child that was killed and not yet waited for still takes signals.
  return /^\d+ \(.*\) Z/s.test(readTextIfAllowed(`/proc/${pid}/stat`) ?? "");
}

// ---------------------------------------------------------------- lock

export interface LockOptions {
  /** Called once if another process has the lock. */
  onWait?: (holderPid: number) => void;
  signal?: AbortSignal;
}

interface Holder {
  pid: number;
  host: string;
  /** Tells our lock from a later one of the same process. */
  token: string;
}

const POLL_MS = 100;
const HEARTBEAT_MS = 5_000;
/** A holder touches its lock every 5 s; one that missed twelve of them is gone or asleep. */
const SILENT_MS = 60_000;

/**
 * Runs `fn` while no other process runs one under the same name. Advisory: it saves double work, and
 * what `fn` publishes must be right even if the lock was broken, as it is when its holder is dead or
 * has not touched it for a minute.
 *
 * @throws {CacheError} If the directory is not writable or full.
 * @throws The signal's reason, if it is aborted while waiting.
 */
export async function withLock<T>(
  directory: string,
  name: string,
  fn: () => Promise<T>,
  { onWait, signal }: LockOptions = {},
): Promise<T> {
  const file = path.join(directory, `${name}.lock`);
  const holder = { pid: process.pid, host: hostMark(), token: randomBytes(8).toString("hex") };
  await acquire(file, holder, onWait, signal);
  const heartbeat = setInterval(() => touch(file), HEARTBEAT_MS);
  try {
    return await fn();
  } finally {
    clearInterval(heartbeat);
    release(file, holder);
  }
}

async function acquire(
  file: string,
  holder: Holder,
  onWait: LockOptions["onWait"],
  signal: AbortSignal | undefined,
): Promise<void> {
  let told = false;
  for (;;) {
    signal?.throwIfAborted();
    if (tryCreate(file, holder)) return;
    const text = readLock(file);
    if (text === null) continue;
    if (isAbandoned(file, text)) {
      breakLock(file, text);
      continue;
    }
    if (!told) onWait?.(parseHolder(text)?.pid ?? 0);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Linked into place with its content, so that nobody ever reads an empty lock. */
function tryCreate(file: string, holder: Holder): boolean {
  const directory = path.dirname(file);
  const temporary = temporaryPath(directory, "lock");
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    fs.writeFileSync(temporary, JSON.stringify(holder), { flag: "wx", mode: 0o600 });
  } catch (error) {
    throwCacheError(directory, error);
  }
  try {
    return linkOrCopy(temporary, file);
  } finally {
    discard(temporary);
  }
}

function linkOrCopy(from: string, to: string): boolean {
  try {
    fs.linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") return false;
  }
  try {
    // File systems without hard links, such as exFAT.
    fs.copyFileSync(from, to, fs.constants.COPYFILE_EXCL);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") return false;
    throwCacheError(path.dirname(to), error);
  }
}

function readLock(file: string): string | null {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throwCacheError(path.dirname(file), error);
  }
}

function parseHolder(text: string): Holder | null {
  try {
    const { pid, host, token } = JSON.parse(text);
    return Number.isSafeInteger(pid) ? { pid, host: `${host}`, token: `${token}` } : null;
  } catch {
    return null;
  }
}

function isAbandoned(file: string, text: string): boolean {
  const holder = parseHolder(text);
  if (holder?.host === hostMark() && isDead(holder.pid)) return true;
  const touched = fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs;
  return touched !== undefined && Date.now() - touched > SILENT_MS;
}

/** The process that has a lock, or null; the lock of one that is gone does not count. */
export function lockHolder(directory: string, name: string): number | null {
  const file = path.join(directory, `${name}.lock`);
  const text = readLock(file);
  return text === null || isAbandoned(file, text) ? null : parseHolder(text)?.pid ?? 0;
}

/**
 * Renamed away before it is deleted: if another process has broken the same lock and made its own
 * since we read it, the rename takes the new one, which is then put back.
 */
function breakLock(file: string, text: string): void {
  const aside = temporaryPath(path.dirname(file), "lock");
  try {
    fs.renameSync(file, aside);
    if (fs.readFileSync(aside, "utf8") !== text) linkOrCopy(aside, file);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throwCacheError(path.dirname(file), error);
  } finally {
    discard(aside);
  }
}

function touch(file: string): void {
  try {
    const now = new Date();
    fs.utimesSync(file, now, now);
  } catch {
    // The lock was broken; what we publish is right all the same.
  }
}

function release(file: string, holder: Holder): void {
  const text = fs.existsSync(file) ? readLock(file) : null;
  if (text !== null && parseHolder(text)?.token === holder.token) fs.rmSync(file, { force: true });
}
