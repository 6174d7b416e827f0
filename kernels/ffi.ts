/**
 * The one file that knows how Deno and Bun call native code. Symbols are described once, in our own
 * few types, and behave the same in both runtimes.
 */
import fs from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";

/** An address that native code gave out. Opaque: an object in Deno, a number in Bun. Never null. */
export interface Pointer {
  readonly [addressBrand]: true;
}
declare const addressBrand: unique symbol;

/** Memory that a call may read or write while it runs. */
export type NativeBuffer = ArrayBufferView;

/** What a symbol takes: `u64` is a bigint, as a number would leave Deno's fast path. */
export interface NativeParameters {
  pointer: Pointer | null;
  buffer: NativeBuffer | null;
  i32: number;
  u32: number;
  u64: bigint;
  f32: number;
}
export type NativeParameter = keyof NativeParameters;

/** What a symbol returns. */
export interface NativeResults {
  void: void;
  i32: number;
  u64: bigint;
  pointer: Pointer | null;
}
export type NativeResult = keyof NativeResults;

export interface NativeSymbol {
  readonly parameters: readonly NativeParameter[];
  readonly result: NativeResult;
  /**
   * The call returns a promise. Deno runs it on another thread. Bun can't: there the event loop
   * turns once, so that timers and signals run, and then the call blocks.
   */
  readonly async?: boolean;
}
export type NativeSymbols = Readonly<Record<string, NativeSymbol>>;

type Arguments<P extends readonly NativeParameter[]> = {
  -readonly [I in keyof P]: NativeParameters[P[I]];
};
type Call<S extends NativeSymbol> = (
  ...values: Arguments<S["parameters"]>
) => S["async"] extends true ? Promise<NativeResults[S["result"]]> : NativeResults[S["result"]];

export interface NativeLibrary<S extends NativeSymbols> {
  readonly path: string;
  readonly symbols: { readonly [Name in keyof S]: Call<S[Name]> };
  /** Unloads the library. Pointers into it and calls that still run are the caller's to end first. */
  close(): void;
}

export type LibraryProblem =
  | "permission"
  | "missing-file"
  | "missing-symbol"
  | "invalid"
  | "runtime";

/** A native library that can't be opened. */
export class NativeLibraryError extends Error {
  override readonly name = "NativeLibraryError";
  constructor(
    readonly path: string,
    readonly problem: LibraryProblem,
    why: string,
    cause?: unknown,
  ) {
    super(`Cannot open the native library ${path}: ${why}`, { cause });
  }
}

/**
 * Opens a shared library and binds the symbols that are described.
 *
 * @param path Absolute path, or a name that the system's loader finds.
 * @throws {NativeLibraryError} If the file, a symbol or the permission is missing.
 */
export function openLibrary<const S extends NativeSymbols>(
  path: string,
  symbols: S,
): NativeLibrary<S> {
  const opened = dialect().open(path, symbols);
  return { path, symbols: opened.calls as NativeLibrary<S>["symbols"], close: opened.close };
}

/** The address as a number, for alignment checks and messages. */
export function pointerToBigInt(pointer: Pointer | null): bigint {
  return pointer === null ? 0n : dialect().toBigInt(pointer);
}

/** The address of a typed array's first byte; null when it is empty. It must outlive all use. */
export function pointerOf(buffer: NativeBuffer): Pointer | null {
  return buffer.byteLength === 0 ? null : dialect().of(buffer);
}

/** The address that is `bytes` further on. */
export function pointerAt(pointer: Pointer, bytes: number): Pointer {
  return dialect().offset(pointer, bytes);
}

/**
 * Native memory as bytes, without a copy.
 *
 * @param pointer Start of at least `byteLength` bytes that stay allocated while the view is used.
 * @throws {RangeError} If `byteLength` is not a positive integer.
 */
export function viewOf(pointer: Pointer, byteLength: number): Uint8Array<ArrayBuffer> {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
    throw new RangeError(
      `Cannot view native memory as its length must be a positive integer: current value is ${byteLength}`,
    );
  }
  return new Uint8Array(dialect().view(pointer, byteLength));
}

interface Dialect {
  open(path: string, symbols: NativeSymbols): { calls: Record<string, unknown>; close: () => void };
  toBigInt(pointer: Pointer): bigint;
  of(buffer: NativeBuffer): Pointer;
  offset(pointer: Pointer, bytes: number): Pointer;
  view(pointer: Pointer, byteLength: number): ArrayBuffer;
}

let chosen: Dialect | undefined;

function dialect(): Dialect {
  return chosen ??= typeof Deno !== "undefined" ? denoDialect() : bunDialect();
}

// ---------------------------------------------------------------- Deno

function denoDialect(): Dialect {
  const plain = (pointer: Pointer) => pointer as unknown as Deno.PointerObject;
  const opaque = (pointer: Deno.PointerValue) => pointer as unknown as Pointer;
  return {
    open: openWithDeno,
    toBigInt: (pointer) => Deno.UnsafePointer.value(plain(pointer)),
    of: (buffer) => opaque(Deno.UnsafePointer.of(buffer as Uint8Array<ArrayBuffer>)),
    offset: (pointer, bytes) => opaque(Deno.UnsafePointer.offset(plain(pointer), bytes)),
    view: (pointer, length) => Deno.UnsafePointerView.getArrayBuffer(plain(pointer), length),
  };
}

/** Deno's own functions are handed out unwrapped: only direct calls take V8's fast path. */
function openWithDeno(path: string, symbols: NativeSymbols) {
  const foreign: Record<string, Deno.ForeignFunction> = {};
  for (const [name, { parameters, result, async }] of Object.entries(symbols)) {
    foreign[name] = { parameters: [...parameters], result, nonblocking: async === true };
  }
  try {
    const library = Deno.dlopen(path, foreign);
    return { calls: library.symbols, close: () => library.close() };
  } catch (error) {
    throw explain(path, error);
  }
}

// ---------------------------------------------------------------- Bun

/** The part of `bun:ffi` that is used. Its pointers are numbers; null is null or 0. */
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, { args: string[]; returns: string }>,
  ): { symbols: Record<string, (...values: unknown[]) => unknown>; close(): void };
  ptr(buffer: NativeBuffer): number;
  toArrayBuffer(pointer: number, byteOffset: number, byteLength: number): ArrayBuffer;
}

const BUN_TYPES: Record<NativeParameter | NativeResult, string> = {
  pointer: "ptr",
  buffer: "ptr",
  i32: "i32",
  u32: "u32",
  u64: "u64",
  f32: "f32",
  void: "void",
};

function bunDialect(): Dialect {
  const ffi = loadBunFfi();
  const plain = (pointer: Pointer) => pointer as unknown as number;
  const opaque = (pointer: number) => pointer as unknown as Pointer;
  return {
    open: (path, symbols) => openWithBun(ffi, path, symbols),
    toBigInt: (pointer) => BigInt(plain(pointer)),
    of: (buffer) => opaque(ffi.ptr(settled(buffer))),
    offset: (pointer, bytes) => opaque(plain(pointer) + bytes),
    view: (pointer, length) => ffi.toArrayBuffer(plain(pointer), 0, length),
  };
}

/**
 * Small typed arrays of Bun live in the garbage collector's heap and move out of it when their
 * `buffer` is first asked for: asked for now, so that the address stays true.
 */
function settled(buffer: NativeBuffer): NativeBuffer {
  void buffer.buffer;
  return buffer;
}

/** By `require`, as an import that names `bun:ffi` would not even load elsewhere. */
function loadBunFfi(): BunFfi {
  if (process.versions.bun === undefined) {
    throw new NativeLibraryError(
      "(any)",
      "runtime",
      "native kernels need Deno or Bun, run with one",
    );
  }
  return createRequire(import.meta.url)("bun:ffi");
}

function openWithBun(ffi: BunFfi, path: string, symbols: NativeSymbols) {
  const described = Object.fromEntries(
    Object.entries(symbols).map(([name, { parameters, result }]) => [name, {
      args: parameters.map((type) => BUN_TYPES[type]),
      returns: BUN_TYPES[result],
    }]),
  );
  try {
    const library = ffi.dlopen(path, described);
    const calls = Object.fromEntries(
      Object.entries(symbols).map(([name, symbol]) => [name, adapt(library.symbols[name], symbol)]),
    );
    return { calls, close: () => library.close() };
  } catch (error) {
    throw explain(path, error);
  }
}

function adapt(call: (...values: unknown[]) => unknown, symbol: NativeSymbol) {
  const typed = symbol.parameters.includes("buffer") ? withEmptyBuffers(call) : call;
  const normal = symbol.result === "pointer"
    ? (...values: unknown[]) => typed(...values) || null
    : typed;
  if (!symbol.async) return normal;
  return async (...values: unknown[]) => {
    await new Promise((resolve) => setImmediate(resolve));
    return normal(...values);
  };
}

/** Bun refuses to take the address of an empty typed array; Deno passes one that is never read. */
function withEmptyBuffers(call: (...values: unknown[]) => unknown) {
  const orNull = (value: unknown) =>
    ArrayBuffer.isView(value) && value.byteLength === 0 ? null : value;
  return (...values: unknown[]) => call(...values.map(orNull));
}

// ---------------------------------------------------------------- errors

/** Tells which of the few things that go wrong did, from messages that differ by runtime and OS. */
function explain(path: string, error: unknown): NativeLibraryError {
  const text = error instanceof Error ? error.message : String(error);
  if (
    error instanceof Error && (error.name === "NotCapable" || error.name === "PermissionDenied")
  ) {
    const why = `Deno does not allow it, run with --allow-ffi=${path} or -A`;
    return new NativeLibraryError(path, "permission", why, error);
  }
  const symbol = /register symbol (\S+?):?(?:\s|$)|[Ss]ymbol "([^"]+)" not found/.exec(text);
  if (symbol !== null) {
    const why = `it lacks the symbol ${
      symbol[1] ?? symbol[2]
    }, remove the file so that it is rebuilt`;
    return new NativeLibraryError(path, "missing-symbol", why, error);
  }
  if (isFilePath(path) && !exists(path)) {
    return new NativeLibraryError(path, "missing-file", "there is no such file", error);
  }
  return new NativeLibraryError(path, "invalid", text, error);
}

function isFilePath(path: string): boolean {
  return path.includes("/") || path.includes("\\");
}

/** A file that may not be looked at counts as there: the loader's own message is then the best. */
function exists(path: string): boolean {
  try {
    return fs.existsSync(path);
  } catch {
    return true;
  }
}
