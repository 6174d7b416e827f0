/**
 * What can go wrong before a model runs for the first time: two processes at once, a kill at the
 * worst moment, a cache that can't be written or that was damaged.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { documentOf, type Ended, errorLine, runCli, startCli } from "./cli_process.ts";
import { goldenModel } from "./golden_models.ts";
import { ZIG } from "./machine.ts";
import { CLI } from "./paths.ts";
import { withFolder } from "./safetensors_file.ts";
import { testUnless } from "./tools.ts";

const GOLDEN = goldenModel("llama3-158-packed");
const { prompt_ids: PROMPT, new_ids: EXPECTED } = GOLDEN.manifest.greedy[2];
const TOKENS = 8;

const ARGS = [
  "generate",
  ...["--model", GOLDEN.folder, "--prompt-ids", PROMPT.join(",")],
  ...["--temperature", "0", "--ignore-eos", "--max-tokens", String(TOKENS), "--json", "--quiet"],
];

function assertGenerated(ended: Ended): void {
  assert.deepEqual(documentOf(ended).tokenIds, EXPECTED.slice(0, TOKENS));
  assert.equal(ended.stderr, "");
}

/** Files below a folder, relative to it, in order. Zig keeps its own cache in its own way. */
function filesOf(cache: string): string[] {
  return (fs.readdirSync(cache, { recursive: true }) as string[])
    .filter((name) => !/^zig\b/.test(name) && fs.statSync(path.join(cache, name)).isFile())
    .sort();
}

function assertNothingHalfWritten(cache: string): void {
  const left = filesOf(cache).filter((name) => /\.tmp-|\.lock$|\.new$/.test(name));
  assert.deepEqual(left, []);
}

/** What a run leaves in the cache. */
interface Product {
  pattern: RegExp;
  count: number;
}

/** The model's own, and the packer of its layout. */
const LIBRARY: Product = { pattern: /^kernels.*\blibtrilith\./, count: 2 };
const PACKED: Product = { pattern: /^models.*\.packed$/, count: 1 };

/** All files of a kind, each once. */
function all(cache: string, { pattern, count }: Product): string[] {
  const found = filesOf(cache).filter((name) => pattern.test(name));
  assert.equal(found.length, count, `${pattern}: ${found}`);
  return found.map((name) => path.join(cache, name));
}

// ---------------------------------------------------------------- a cache that others start with

const warmCache = path.join(os.tmpdir(), `trilith-first-start-${process.pid}`);

/** Runs with a cache in which the model has been run once. */
async function withWarmCache(use: (cache: string) => Promise<void>): Promise<void> {
  if (!fs.existsSync(warmCache)) assertGenerated(await runCli(ARGS, { cache: warmCache }));
  await withFolder({}, async (folder) => {
    const cache = path.join(folder, "cache");
    fs.cpSync(warmCache, cache, { recursive: true, mode: fs.constants.COPYFILE_FICLONE });
    await use(cache);
  });
}

globalThis.addEventListener("unload", () => fs.rmSync(warmCache, { recursive: true, force: true }));

Deno.test("first start: two processes at once on an empty cache both succeed", async () => {
  await withFolder({}, async (cache) => {
    const both = await Promise.all([runCli(ARGS, { cache }), runCli(ARGS, { cache })]);
    both.forEach(assertGenerated);
    assertNothingHalfWritten(cache);
    all(cache, LIBRARY);
    all(cache, PACKED);
  });
});

// ---------------------------------------------------------------- kill -9

/**
 * Kills a run as soon as there is a temporary of this name in `folder`; again if the run was quicker.
 */
async function killWhile(cache: string, folder: string, name: RegExp): Promise<void> {
  const seen = () => {
    try {
      return fs.readdirSync(path.join(cache, folder)).some((file) => name.test(file));
    } catch {
      return false;
    }
  };
  for (let attempt = 0; attempt < 20; attempt++) {
    fs.rmSync(path.join(cache, folder), { recursive: true, force: true });
    const { child, ended } = startCli(ARGS, { cache });
    let isOver = false;
    ended.then(() => isOver = true);
    while (!isOver && !seen()) await new Promise((resolve) => setImmediate(resolve));
    child.kill("SIGKILL");
    const { code } = await ended;
    if (code === null && seen()) return;
  }
  assert.fail(`no run could be killed while it wrote ${folder}`);
}

for (
  const [what, folder, name] of [
    ["compiling", "kernels", /^\.tmp-.*-[0-9a-f]{64}$/],
    ["packing", "models", /^\.tmp-.*\.packed$/],
  ] as const
) {
  Deno.test(`first start: after kill -9 while ${what} the next run cleans up and succeeds`, async () => {
    await withWarmCache(async (cache) => {
      await killWhile(cache, folder, name);
      const { pattern, count } = folder === "kernels" ? LIBRARY : PACKED;
      const results = filesOf(cache).filter((file) => pattern.test(file) && !/\.tmp-/.test(file));
      assert.ok(results.length < count, `something unfinished has its final name: ${results}`);
      assertGenerated(await runCli(ARGS, { cache }));
      assertNothingHalfWritten(cache);
      assertGenerated(await runCli(ARGS, { cache }));
    });
  });
}

// ---------------------------------------------------------------- damage

const hashOf = (file: string) => createHash("sha256").update(fs.readFileSync(file)).digest("hex");

/** Changes one byte in the middle, in a new file: the old one may be mapped by somebody. */
function damage(file: string): void {
  const bytes = fs.readFileSync(file);
  bytes[bytes.length >> 1] ^= 0x55;
  fs.rmSync(file);
  fs.writeFileSync(file, bytes);
}

function truncate(file: string): void {
  fs.truncateSync(file, fs.statSync(file).size >> 1);
}

for (const [name, product] of [["packed file", PACKED], ["library", LIBRARY]] as const) {
  for (const harm of [damage, truncate]) {
    Deno.test(`first start: a ${name} is made again after ${harm.name}`, async () => {
      await withWarmCache(async (cache) => {
        const files = all(cache, product);
        const sizes = files.map((file) => fs.statSync(file).size);
        const hashes = files.map(hashOf);
        files.forEach(harm);
        files.forEach((file, i) => assert.notEqual(hashOf(file), hashes[i]));
        assertGenerated(await runCli(ARGS, { cache }));
        assert.deepEqual(all(cache, product).map((file) => fs.statSync(file).size), sizes);
        // Zig names a library's sections by paths, so that only packed files are equal again.
        if (product === PACKED) assert.deepEqual(all(cache, product).map(hashOf), hashes);
        assertNothingHalfWritten(cache);
      });
    });
  }
}

// ---------------------------------------------------------------- caches that can't be used

Deno.test("first start: a cache that can't be made is one clear error", async () => {
  await withFolder({ file: "" }, async (folder) => {
    const file = path.join(folder, "file");
    const paths = [file, path.join(file, "below")];
    if (process.platform === "linux") paths.push("/proc/trilith");
    for (const cache of paths) {
      const ended = await runCli(ARGS, { cache });
      assert.equal(ended.code, 1);
      const line = errorLine(ended);
      assert.match(line, /^error: Cannot use the cache directory .*, set TRILITH_CACHE=/);
    }
    assert.deepEqual(fs.readdirSync(folder), ["file"]);
  });
});

const isRoot = process.getuid?.() === 0;

testUnless(
  isRoot ? "root may write anywhere" : process.platform === "win32" ? "needs file modes" : null,
  "first start: a cache without the right to write is one clear error",
  async () => {
    await withFolder({}, async (cache) => {
      fs.chmodSync(cache, 0o500);
      const ended = await runCli(ARGS, { cache });
      fs.chmodSync(cache, 0o700);
      assert.equal(ended.code, 1);
      assert.match(errorLine(ended), /it can't be written by this user/);
    });
  },
);

/** Why no file systems can be mounted for a test, or null. */
function mountProblem(): string | null {
  const probe = ["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
  const { status } = spawnSync("unshare", probe, { stdio: "ignore" });
  return status === 0 ? null : "file systems can't be mounted here";
}

/** Runs the command line with a cache on a file system of its own, which goes with the process. */
function runMounted(mountOptions: string): Ended {
  const command = [Deno.execPath(), "run", "-A", CLI, ...ARGS];
  const script = `mount -t tmpfs -o ${mountOptions} tmpfs /mnt && exec "$@"`;
  const { status, stdout, stderr } = spawnSync(
    "unshare",
    ["-m", "sh", "-c", script, "sh", ...command],
    {
      encoding: "utf8",
      env: { ...process.env, TRILITH_CACHE: "/mnt", TRILITH_ZIG: ZIG.path, NO_COLOR: "1" },
      timeout: 120_000,
    },
  );
  return { code: status, stdout, stderr };
}

for (
  const [what, mountOptions, reason] of [
    ["read-only", "ro", /its file system is read-only \(EROFS\)/],
    ["full", "size=32k", /its file system is full \(ENOSPC\)/],
    // Room for our own files, but not for the compiler's.
    ["soon full", "size=2m", /its file system is full \(ENOSPC\)/],
  ] as const
) {
  testUnless(mountProblem(), `first start: a ${what} file system is one clear error`, () => {
    const ended = runMounted(mountOptions);
    assert.equal(ended.code, 1);
    assert.match(errorLine(ended), reason);
  });
}
