import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "./cache.ts";
import {
  assemble,
  clearLibraries,
  CompileError,
  compileExecutable,
  compileLibrary,
  type CompileRequest,
  hostTarget,
  listLibraries,
  type Target,
} from "./compile.ts";
import { detectCpu, supportedIsas } from "./cpu.ts";
import { openLibrary } from "./ffi.ts";
import { ended, firstLine, inFolder, runChild, until, withEnvironment } from "./test_helpers.ts";
import { ensureZig, type Zig } from "./toolchain.ts";

let zig: Zig;

/** Runs with an empty cache for kernels, but the C library's stubs that are already compiled. */
async function onEmptyCache(run: (kernels: string) => unknown): Promise<void> {
  zig ??= await ensureZig();
  const stubs = cacheDirectory("zig");
  await inFolder(async (root) => {
    fs.symlinkSync(stubs, path.join(root, "zig"), "junction");
    await withEnvironment({ TRILITH_CACHE: root }, () => run(path.join(root, "kernels")));
  });
}

function test(name: string, fn: (kernels: string) => unknown): void {
  Deno.test(`compile: ${name}`, () => onEmptyCache(fn));
}

/** A library of two files whose `answer` gives a number. */
const answering = (answer: number): CompileRequest => ({
  isa: "portable",
  sources: new Map([
    ["kernels.zig", `export fn answer() i32 {\n    return @import("value.zig").value;\n}\n`],
    ["value.zig", `pub const value = ${answer};\n`],
  ]),
});

function ask(file: string): number {
  const library = openLibrary(file, { answer: { parameters: [], result: "i32" } });
  const answer = library.symbols.answer();
  library.close();
  return answer;
}

test("a library is compiled once, then found", async (kernels) => {
  const first = await compileLibrary(zig, answering(42));
  assert.equal(first.compiled, true);
  assert.ok(first.compileMs > 0);
  assert.equal(ask(first.path), 42);
  const second = await compileLibrary(zig, answering(42));
  assert.deepEqual(second, { ...first, compiled: false, compileMs: 0 });
  assert.deepEqual(fs.readdirSync(kernels), [first.key], "no lock, no temporary");
  const kept = fs.readdirSync(path.dirname(first.path)).sort();
  assert.deepEqual(kept, [path.basename(first.path), "manifest.json", "source"]);
  assert.equal(ask((await compileLibrary(zig, answering(43))).path), 43);
});

test("the key follows sources, version and ISA, and not the order of files", async () => {
  const request = answering(1);
  const { key } = await compileLibrary(zig, request);
  const turned = { ...request, sources: new Map([...request.sources].reverse()) };
  assert.equal((await compileLibrary(zig, turned)).key, key);
  const newer = { ...zig, version: "0.17.99" };
  assert.notEqual((await compileLibrary(newer, request)).key, key);
  const native = hostTarget().arch === "x86_64" ? "avx2" : "neon";
  assert.notEqual((await compileLibrary(zig, { ...request, isa: native })).key, key);
});

test("a damaged library is compiled anew", async (kernels) => {
  const { path: file, key } = await compileLibrary(zig, answering(7));
  const manifest = path.join(kernels, key, "manifest.json");
  const whole = fs.readFileSync(file);
  const damages = [
    () => fs.truncateSync(file, 100),
    () => fs.writeFileSync(file, whole.map((byte, i) => i === 64 ? byte ^ 1 : byte)),
    () => fs.rmSync(file),
    () => fs.writeFileSync(manifest, "{"),
    () => fs.rmSync(manifest),
  ];
  for (const damage of damages) {
    damage();
    assert.equal((await compileLibrary(zig, answering(7))).compiled, true);
    assert.equal(ask(file), 7);
  }
  assert.deepEqual(fs.readdirSync(kernels), [key]);
});

test("an error shows the compiler's words and where the source is", async (kernels) => {
  const wrong = { ...answering(1), sources: new Map([["kernels.zig", "export fn f() i32 {}"]]) };
  await assert.rejects(compileLibrary(zig, wrong), (error: Error) => {
    assert.ok(error instanceof CompileError);
    assert.match(
      error.message,
      /^Cannot compile the portable kernels: .* status 1, .*\n {2}kernels/,
    );
    assert.match(error.message, /kernels\.zig:1:\d+: error: /);
    assert.ok(error.message.includes(error.sourcePath));
    assert.equal(fs.readFileSync(error.sourcePath, "utf8"), "export fn f() i32 {}");
    return true;
  });
  assert.match(fs.readdirSync(kernels).join(), /^failed-[0-9a-f]{16}$/);
  assert.equal(clearLibraries(), 0);
  assert.deepEqual(fs.readdirSync(kernels), []);
});

test("a compiler that does not start is a CompileError", async () => {
  const absent = { ...zig, path: path.join(os.tmpdir(), "no-such-zig") };
  await assert.rejects(compileLibrary(absent, answering(1)), /^CompileError: .*can't be started/s);
});

test("an ISA of another architecture and a missing root are refused", async () => {
  const target: Target = { arch: "aarch64", os: "linux" };
  await assert.rejects(
    async () => await compileLibrary(zig, { ...answering(1), isa: "avx2", target }),
    /^RangeError: Cannot compile avx2 kernels as they need an x86_64 target/,
  );
  await assert.rejects(
    async () => await compileLibrary(zig, { ...answering(1), root: "absent.zig" }),
    /^TypeError: .*must hold absent\.zig/,
  );
});

test("an aborted compilation stops and leaves nothing", async (kernels) => {
  const abort = new AbortController();
  const asked = compileLibrary(zig, answering(11), {
    signal: abort.signal,
    onProgress: () => setTimeout(() => abort.abort(), 5),
  });
  await assert.rejects(asked, { name: "AbortError" });
  assert.deepEqual(fs.readdirSync(kernels), []);
});

const compileInChild = (answer: number) =>
  runChild(
    "./compile.ts",
    `const sources = new Map(${JSON.stringify([...answering(answer).sources])});
    const onProgress = () => console.log("compiling");
    const result = await module.compileLibrary(${JSON.stringify(zig)},
      { isa: "portable", sources }, { onProgress });
    console.log(JSON.stringify(result));`,
  );

test("a process that is killed leaves nothing half-made", async (kernels) => {
  const child = compileInChild(12);
  assert.equal(await firstLine(child), "compiling");
  child.kill("SIGKILL");
  await until("the child to end", () => child.signalCode !== null);
  assert.equal(fs.readdirSync(kernels).some((name) => !/^\.tmp-|\.lock$/.test(name)), false);
  const { path: file, compiled, key } = await compileLibrary(zig, answering(12));
  assert.equal(compiled, true);
  assert.equal(ask(file), 12);
  // The killed process's compiler may still have been at work in its folder.
  const left = fs.readdirSync(kernels).filter((name) => !name.startsWith(".tmp-"));
  assert.deepEqual(left, [key]);
});

test("two processes at once both get the library, and it is compiled once", async () => {
  const children = [1, 2].map(() => compileInChild(13));
  const outputs = children.map(async (child) => {
    let text = "";
    child.stdout!.on("data", (data) => text += data);
    assert.equal(await ended(child), 0);
    return JSON.parse(text.trim().split("\n").at(-1)!);
  });
  const results = await Promise.all(outputs);
  assert.deepEqual(results.map(({ compiled }) => compiled).sort(), [false, true]);
  assert.equal(results[0].path, results[1].path);
  assert.equal(ask(results[0].path), 13);
});

test("libraries are listed and cleared", async (kernels) => {
  const { path: file, key } = await compileLibrary(zig, answering(1));
  fs.mkdirSync(path.join(kernels, "f".repeat(64)));
  const [listed, ...others] = listLibraries();
  assert.equal(others.length, 0, "a folder without a library is none");
  assert.deepEqual([listed.key, listed.path, listed.isa], [key, file, "portable"]);
  assert.equal(listed.bytes, fs.statSync(file).size);
  assert.equal(listed.zigVersion, zig.version);
  assert.equal(clearLibraries(), 2);
  assert.deepEqual(listLibraries(), []);
});

test("assembly text shows the function's instructions", async () => {
  const text = await assemble(zig, answering(123));
  assert.match(text, /answer:\n/);
  assert.match(text, /123/);
});

test("an executable is static on Linux and runs", async () => {
  if (hostTarget().os !== "linux") return;
  const main = `
    const linux = @import("std").os.linux;
    pub fn main() void {
        _ = linux.write(1, "ternary", 7);
    }
  `;
  const sources = new Map([["main.zig", main]]);
  const { path: file } = await compileExecutable(zig, {
    isa: "portable",
    sources,
    root: "main.zig",
  });
  assert.equal(execFileSync(file, { encoding: "utf8" }), "ternary");
  assert.equal(fs.readFileSync(file, "latin1").includes("ld-linux"), false);
});

const FORMATS: [Target, string][] = [
  [{ arch: "x86_64", os: "linux" }, "\x7fELF"],
  [{ arch: "aarch64", os: "linux" }, "\x7fELF"],
  [{ arch: "aarch64", os: "macos" }, "\xcf\xfa\xed\xfe"],
  [{ arch: "x86_64", os: "windows" }, "MZ"],
];
test("libraries for other systems have their format and name", async () => {
  const extensions = { linux: "so", macos: "dylib", windows: "dll" };
  for (const [target, magic] of FORMATS) {
    const { path: file } = await compileLibrary(zig, { ...answering(5), target });
    assert.equal(path.basename(file), `libtrilith.${extensions[target.os]}`);
    assert.equal(fs.readFileSync(file, "latin1").slice(0, magic.length), magic);
  }
});

test("compiling and loading need these permissions and no others, and nothing is asked", async (kernels) => {
  const root = path.dirname(kernels);
  // The stubs are behind a symbolic link.
  const folders = `${root},${fs.realpathSync(path.join(root, "zig"))}`;
  const url = (module: string) => JSON.stringify(import.meta.resolve(module));
  const script = `
    import { compileLibrary } from ${url("./compile.ts")};
    import { detectCpuWithZig, supportedIsas } from ${url("./cpu.ts")};
    import { openLibrary } from ${url("./ffi.ts")};
    const isas = supportedIsas(await detectCpuWithZig(${JSON.stringify(zig.path)}));
    const sources = new Map(${JSON.stringify([...answering(17).sources])});
    const { path } = await compileLibrary(${JSON.stringify(zig)}, { isa: "portable", sources });
    const library = openLibrary(path, { answer: { parameters: [], result: "i32" } });
    console.log(isas.join(), library.symbols.answer());`;
  const command = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      `--allow-read=${folders}`,
      `--allow-write=${folders}`,
      `--allow-run=${zig.path}`,
      `--allow-ffi=${root}`,
      "--allow-env=TRILITH_CACHE,NODE_V8_COVERAGE",
      `data:text/typescript,${encodeURIComponent(script)}`,
    ],
    stdin: "null",
  });
  const { stdout, stderr } = await command.output();
  const isas = supportedIsas(detectCpu()).join();
  assert.equal(new TextDecoder().decode(stdout), `${isas} 17\n`, new TextDecoder().decode(stderr));
});

test("a path of the machine is in no message of success", async (kernels) => {
  const messages: string[] = [];
  const onProgress = ({ message }: { message: string }) => messages.push(message);
  await compileLibrary(zig, answering(99), { onProgress });
  assert.equal(messages.length, 1);
  assert.equal(messages[0].includes(kernels) || messages[0].includes(process.cwd()), false);
});
