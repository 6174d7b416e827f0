/**
 * What both runtimes must do alike, on the C library that every system has. `ffi_test.ts` runs it in
 * Deno, and in Bun by running this file.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {
  NativeLibraryError,
  openLibrary,
  pointerAt,
  pointerOf,
  pointerToBigInt,
  viewOf,
} from "./ffi.ts";

/** Name by which the system's loader finds the C library. */
const LIBC = {
  linux: "libc.so.6",
  darwin: "/usr/lib/libSystem.B.dylib",
  win32: "msvcrt.dll",
}[process.platform as string] ?? "libc.so";

function openLibc() {
  return openLibrary(LIBC, {
    abs: { parameters: ["i32"], result: "i32" },
    strlen: { parameters: ["buffer"], result: "u64" },
    malloc: { parameters: ["u64"], result: "pointer" },
    memcpy: { parameters: ["pointer", "buffer", "u64"], result: "pointer" },
    memchr: { parameters: ["pointer", "i32", "u64"], result: "pointer" },
    strnlen: { parameters: ["buffer", "u64"], result: "u64" },
    free: { parameters: ["pointer"], result: "void" },
  });
}

const bytes = (text: string) => new TextEncoder().encode(text);

function problemOf(open: () => unknown): NativeLibraryError {
  try {
    open();
  } catch (error) {
    assert.ok(error instanceof NativeLibraryError, `not our error: ${error}`);
    return error;
  }
  throw new assert.AssertionError({ message: "the library was opened" });
}

export const CHECKS: Record<string, () => void | Promise<void>> = {
  "integers go in and out"() {
    const libc = openLibc();
    assert.equal(libc.symbols.abs(-7), 7);
    assert.equal(libc.symbols.abs(2147483647), 2147483647);
    libc.close();
  },

  "u64 results are bigints and buffers are read in place"() {
    const libc = openLibc();
    assert.equal(libc.symbols.strlen(bytes("ternary\0xx")), 7n);
    const backing = bytes("ab\0cdef\0");
    assert.equal(libc.symbols.strlen(backing.subarray(3)), 4n, "the byte offset counts");
    libc.close();
  },

  "an empty buffer can be passed"() {
    const libc = openLibc();
    assert.equal(libc.symbols.strnlen(new Uint8Array(0), 0n), 0n);
    libc.close();
  },

  "pointers: view, offset, address, null"() {
    const libc = openLibc();
    const memory = libc.symbols.malloc(64n);
    assert.ok(memory !== null);
    const text = bytes("weights");
    const copied = libc.symbols.memcpy(memory, text, BigInt(text.length));
    assert.equal(pointerToBigInt(copied), pointerToBigInt(memory));
    const view = viewOf(memory, 64);
    assert.deepEqual(view.slice(0, 7), text);
    view[0] = 0x57;
    const found = libc.symbols.memchr(memory, 0x57, 7n);
    assert.equal(pointerToBigInt(found), pointerToBigInt(memory), "writes are seen by native code");
    assert.equal(libc.symbols.memchr(memory, 0x7e, 7n), null, "a null result is null");
    assert.equal(pointerToBigInt(pointerAt(memory, 24)) - pointerToBigInt(memory), 24n);
    assert.equal(viewOf(pointerAt(memory, 1), 1)[0], text[1]);
    assert.equal(pointerToBigInt(null), 0n);
    libc.symbols.free(memory);
    libc.close();
  },

  "the address of a typed array is that of its first byte"() {
    const values = Float32Array.of(1, 2, 3, 4);
    const all = pointerOf(values), tail = pointerOf(values.subarray(2));
    assert.ok(all !== null && tail !== null);
    assert.equal(pointerToBigInt(tail) - pointerToBigInt(all), 8n);
    assert.equal(new Float32Array(viewOf(tail, 8).slice().buffer)[1], 4);
    assert.equal(pointerOf(new Uint8Array(0)), null);
  },

  "a view must have a length"() {
    const pointer = pointerOf(new Uint8Array(4))!;
    assert.throws(() => viewOf(pointer, 0), /^RangeError: Cannot view native memory .* is 0$/);
    assert.throws(() => viewOf(pointer, 1.5), RangeError);
  },

  async "an async call lets timers run and gives its result"() {
    const library = openLibrary(LIBC, {
      usleep: { parameters: ["u32"], result: "i32", async: true },
      malloc: { parameters: ["u64"], result: "pointer", async: true },
      free: { parameters: ["pointer"], result: "void" },
    });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    for (let i = 0; i < 10; i++) assert.equal(await library.symbols.usleep(5000), 0);
    clearInterval(timer);
    assert.ok(ticks >= 5, `timers ran ${ticks} times during ten calls`);
    const memory = await library.symbols.malloc(16n);
    assert.ok(memory !== null);
    library.symbols.free(memory);
    library.close();
  },

  "a missing symbol is named"() {
    const error = problemOf(() =>
      openLibrary(LIBC, { trilith_absent: { parameters: [], result: "void" } })
    );
    assert.equal(error.problem, "missing-symbol");
    assert.match(error.message, /lacks the symbol trilith_absent/);
  },

  "a missing file is told from a damaged one"() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-ffi-"));
    const file = path.join(folder, "libtrilith.so");
    const open = () => openLibrary(file, { a: { parameters: [], result: "void" } });
    assert.equal(problemOf(open).problem, "missing-file");
    fs.writeFileSync(file, "not a library");
    const error = problemOf(open);
    assert.equal(error.problem, "invalid");
    assert.ok(error.message.startsWith(`Cannot open the native library ${file}: `));
    fs.rmSync(folder, { recursive: true });
  },
};

if (import.meta.main) {
  for (const [name, check] of Object.entries(CHECKS)) {
    await check();
    console.log(`ok: ${name}`);
  }
}
