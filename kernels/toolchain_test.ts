import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import process from "node:process";
import {
  ended,
  firstLine,
  inFolder,
  runChild,
  until,
  withEnvironment,
  writeScript,
} from "./test_helpers.ts";
import { ensureZig, findZig, ToolchainError, type ToolchainProgress } from "./toolchain.ts";

// The fakes are shell scripts.
const ignore = process.platform === "win32";

/** A machine of our own: an empty PATH folder and an empty cache. */
async function onMachine(run: (machine: { bin: string; cache: string; root: string }) => unknown) {
  await inFolder(async (root) => {
    const bin = path.join(root, "bin"), cache = path.join(root, "cache");
    fs.mkdirSync(bin);
    const variables = {
      PATH: bin,
      TRILITH_CACHE: cache,
      TRILITH_ZIG: undefined,
      TRILITH_ZIG_MIRROR: undefined,
      TRILITH_ZIG_SHA256: undefined,
    };
    await withEnvironment(variables, () => run({ bin, cache, root }));
  });
}

const zigScript = (version: string) => `[ "$1" = version ] && echo ${version}`;

/** A shell fragment that makes a fake toolchain in the folder that a shell word names. */
const makeToolchain = (folder: string, version = "0.17.1") => `
/bin/mkdir -p ${folder}/lib/std
: > ${folder}/lib/std/std.zig
: > ${folder}/lib/compiler_rt.zig
printf '#!/bin/sh\\n${zigScript(version)}\\n' > ${folder}/zig
/bin/chmod +x ${folder}/zig`;

/** A fake package tool: it notes its arguments, then runs `body` with $target set. */
function writePackageTool(file: string, log: string, body: string): void {
  writeScript(
    file,
    `echo "$0 $@" >> ${log}
echo noise that must not reach our stdout
while [ "$1" != --target ]; do shift; done
target=$2
${body}`,
  );
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `ensureZig ${name}`, ignore, fn });
}

test("takes TRILITH_ZIG first", () =>
  onMachine(async ({ bin, root }) => {
    const own = path.join(root, "own", "zig");
    writeScript(own, zigScript("0.17.4"));
    writeScript(path.join(bin, "zig"), zigScript("0.17.1"));
    await withEnvironment({ TRILITH_ZIG: own }, async () => {
      assert.deepEqual(await ensureZig(), { path: own, version: "0.17.4", source: "TRILITH_ZIG" });
    });
  }));

test("never passes over a wrong TRILITH_ZIG", () =>
  onMachine(async ({ bin, root }) => {
    writeScript(path.join(bin, "zig"), zigScript("0.17.1"));
    const old = path.join(root, "old"), broken = path.join(root, "broken");
    writeScript(old, zigScript("0.14.0"));
    writeScript(broken, "echo error: no such library >&2; exit 3");
    const reasons = { [old]: "version 0.14.0", [broken]: "status 3: error: no such library" };
    for (const [wrong, reason] of Object.entries({ ...reasons, [`${root}/absent`]: "ENOENT" })) {
      await withEnvironment({ TRILITH_ZIG: wrong }, async () => {
        await assert.rejects(ensureZig(), (error: Error) => {
          assert.ok(error instanceof ToolchainError);
          assert.ok(error.message.includes(`current value is ${wrong} (`), error.message);
          assert.ok(error.message.includes(reason), error.message);
          return true;
        });
        await assert.rejects(findZig(), ToolchainError);
      });
    }
  }));

test("takes a supported zig on PATH, and not another version before it", () =>
  onMachine(async ({ bin, root }) => {
    const first = path.join(root, "first");
    writeScript(path.join(first, "zig"), zigScript("0.16.0"));
    writeScript(path.join(bin, "zig"), zigScript("0.17.0"));
    await withEnvironment({ PATH: `${first}:${bin}` }, async () => {
      const zig = { path: path.join(bin, "zig"), version: "0.17.0", source: "PATH" };
      assert.deepEqual(await ensureZig(), zig);
    });
  }));

test("installs the wheel with the first tool that works, and then finds it in the cache", () =>
  onMachine(async ({ bin, cache, root }) => {
    const log = path.join(root, "log");
    writePackageTool(path.join(bin, "uv"), log, "echo 'error: no interpreter' >&2; exit 2");
    writePackageTool(path.join(bin, "python3"), log, makeToolchain("$target/ziglang"));
    writePackageTool(path.join(bin, "pip"), log, "exit 1");
    const progress: ToolchainProgress[] = [];
    const zig = await ensureZig({ onProgress: (step) => progress.push(step) });
    const binary = path.join(cache, "toolchain/zig-0.17.1/ziglang/zig");
    assert.deepEqual(zig, { path: binary, version: "0.17.1", source: "pip" });
    assert.deepEqual(await ensureZig(), { ...zig, source: "cache" });
    assert.deepEqual(await findZig(), { ...zig, source: "cache" });
    const calls = fs.readFileSync(log, "utf8").trim().split("\n");
    assert.equal(calls.length, 2, "uv, then python3, and nothing for the second call");
    assert.match(calls[1], /python3 -m pip install .*--target \S+ ziglang==0\.17\.1$/);
    assert.ok(progress.every(({ phase, total }) => phase === "toolchain" && total! > 4e8));
    assert.deepEqual(fs.readdirSync(path.join(cache, "toolchain")), ["zig-0.17.1"]);
  }));

test("replaces a damaged toolchain", () =>
  onMachine(async ({ bin, cache, root }) => {
    const log = path.join(root, "log");
    writePackageTool(path.join(bin, "pip"), log, makeToolchain("$target/ziglang"));
    const { path: binary } = await ensureZig();
    const home = path.dirname(binary);
    const damages = [
      () => writeScript(binary, "exit 1"),
      () => writeScript(binary, zigScript("0.17.0")),
      () => fs.rmSync(path.join(home, "lib/std/std.zig")),
      () => fs.rmSync(binary),
      () => fs.truncateSync(binary, 3),
    ];
    for (const damage of damages) {
      damage();
      assert.equal(await findZig(), null);
      assert.equal((await ensureZig()).source, "pip");
      assert.equal((await ensureZig()).source, "cache");
    }
    assert.deepEqual(fs.readdirSync(path.join(cache, "toolchain")), ["zig-0.17.1"]);
  }));

test("says all that was tried, why each failed, and what to do", () =>
  onMachine(async ({ bin, cache, root }) => {
    const log = path.join(root, "log");
    writeScript(path.join(bin, "zig"), zigScript("0.13.0"));
    writePackageTool(path.join(bin, "python3"), log, "echo 'ERROR: no network' >&2; exit 1");
    writePackageTool(path.join(bin, "pip"), log, makeToolchain("$target/ziglang", "0.12.0"));
    await assert.rejects(ensureZig(), (error: Error) => {
      assert.ok(error instanceof ToolchainError);
      assert.match(error.message, /bin\/zig: it is version 0\.13\.0, 0\.17\.x is needed/);
      assert.match(error.message, /the kernels: there is no uv, python, py on PATH; /);
      assert.match(error.message, /python3 -m pip install .*: .*status 1: ERROR: no network/);
      assert.match(error.message, /pip install .*: .*unusable: its version is 0\.12\.0/);
      assert.match(error.message, /ziglang\.org.*no verified SHA-256.*TRILITH_ZIG_SHA256/);
      assert.match(error.message, /: install Zig 0\.17 .*TRILITH_ZIG$/);
      assert.doesNotMatch(error.message, /\n/);
      assert.equal(error.attempts.length, 7);
      return true;
    });
    assert.deepEqual(fs.readdirSync(path.join(cache, "toolchain")), []);
  }));

test("gives up on a tool that takes too long", () =>
  onMachine(async ({ bin, root }) => {
    writePackageTool(path.join(bin, "pip"), path.join(root, "log"), "exec /bin/sleep 30");
    const started = Date.now();
    await assert.rejects(ensureZig({ timeoutMs: 300 }), /pip install .*took longer than 0\.3 s/);
    assert.ok(Date.now() - started < 10_000);
  }));

test("stops when it is aborted, and leaves nothing", () =>
  onMachine(async ({ bin, cache, root }) => {
    const log = path.join(root, "log");
    writePackageTool(path.join(bin, "pip"), log, "exec /bin/sleep 30");
    const abort = new AbortController();
    const asked = ensureZig({ signal: abort.signal });
    const stopped = assert.rejects(asked, { name: "AbortError" });
    await until("pip to start", () => fs.existsSync(log));
    abort.abort();
    await stopped;
    assert.deepEqual(fs.readdirSync(path.join(cache, "toolchain")), []);
  }));

test("leaves nothing half-made when it is killed", () =>
  onMachine(async ({ bin, cache, root }) => {
    const log = path.join(root, "log"), pip = path.join(bin, "pip");
    const folder = path.join(cache, "toolchain");
    // The binary comes last, as if unpacking had been cut off.
    const half = `/bin/mkdir -p $target/ziglang/lib; echo $$ > ${root}/pid; exec /bin/sleep 30`;
    writePackageTool(pip, log, half);
    const child = runChild("./toolchain.ts", "await module.ensureZig();");
    const pid = () => Number(fs.readFileSync(path.join(root, "pid"), "utf8"));
    // The shell makes the file before it writes it, and process 0 would be all of this test's group.
    await until("pip to start", () => fs.existsSync(path.join(root, "pid")) && pid() > 0);
    child.kill("SIGKILL");
    await until("the child to end", () => child.signalCode !== null);
    process.kill(pid(), "SIGKILL");
    assert.equal(fs.existsSync(path.join(folder, "zig-0.17.1")), false);
    assert.equal(await findZig(), null);
    writePackageTool(pip, log, makeToolchain("$target/ziglang"));
    assert.equal((await ensureZig()).source, "pip");
    assert.deepEqual(fs.readdirSync(folder), ["zig-0.17.1"]);
  }));

test("installs once when two processes start at once", () =>
  onMachine(async ({ bin, root }) => {
    const log = path.join(root, "log");
    writePackageTool(
      path.join(bin, "pip"),
      log,
      `/bin/sleep 0.5\n${makeToolchain("$target/ziglang")}`,
    );
    const body = `console.log((await module.ensureZig()).source);`;
    const children = [1, 2].map(() => runChild("./toolchain.ts", body));
    const sources = await Promise.all(children.map(firstLine));
    await Promise.all(children.map((child) => child.exitCode ?? ended(child)));
    assert.deepEqual(sources.sort(), ["cache", "pip"]);
    assert.equal(fs.readFileSync(log, "utf8").trim().split("\n").length, 1);
  }));

test("says which cache directory can't be used", () =>
  onMachine(async ({ root }) => {
    const file = path.join(root, "file");
    fs.writeFileSync(file, "");
    await withEnvironment({ TRILITH_CACHE: file }, async () => {
      await assert.rejects(ensureZig(), { name: "CacheError", directory: file });
    });
  }));

// ---------------------------------------------------------------- the archive, from a local server

interface Served {
  bytes: Uint8Array;
  status?: number;
  /** Bytes that are sent before the connection is cut; all when absent. */
  cutAt?: number;
}

/** Serves one archive on the loopback interface. */
async function serving(served: Served, run: (url: string, asked: string[]) => Promise<void>) {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url!);
    response.writeHead(served.status ?? 200, { "content-length": served.bytes.length });
    if (served.cutAt === undefined) return response.end(served.bytes);
    response.write(served.bytes.subarray(0, served.cutAt), () => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await run(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mirror`, asked);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A tar.xz of a fake toolchain in one top folder, as ziglang.org packs them. */
function packArchive(root: string): Uint8Array {
  const home = path.join(root, "zig-x86_64-linux-0.17.1");
  execFileSync("/bin/sh", ["-c", makeToolchain(home)]);
  // Random bytes, so that the archive is longer than one chunk.
  fs.writeFileSync(path.join(home, "lib/filler"), crypto.getRandomValues(new Uint8Array(65536)));
  const file = path.join(root, "archive.tar.xz");
  execFileSync("tar", ["-cJf", file, "-C", root, path.basename(home)], {
    env: { PATH: systemPath },
  });
  return fs.readFileSync(file);
}

const systemPath = process.env.PATH ?? "";
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A machine that has nothing but tar, and a mirror that serves an archive. */
function withMirror(
  change: (archive: Uint8Array) => Served,
  run: (mirror: { sha: string; asked: string[]; folder: string }) => Promise<void>,
): Promise<void> {
  return onMachine(async ({ bin, cache, root }) => {
    const archive = packArchive(root);
    writeScript(path.join(bin, "tar"), `PATH=${systemPath} exec tar "$@"`);
    await serving(change(archive), async (url, asked) => {
      await withEnvironment({ TRILITH_ZIG_MIRROR: url }, async () => {
        await run({ sha: sha256(archive), asked, folder: path.join(cache, "toolchain") });
      });
    });
  });
}

test("unpacks the archive when its hash is right", () =>
  withMirror((bytes) => ({ bytes }), async ({ sha, asked, folder }) => {
    await withEnvironment({ TRILITH_ZIG_SHA256: sha }, async () => {
      const zig = await ensureZig();
      assert.equal(zig.source, "archive");
      assert.equal(zig.path, path.join(folder, "zig-0.17.1", "zig"));
      assert.equal((await ensureZig()).source, "cache");
    });
    assert.equal(asked.length, 1);
    assert.match(asked[0], /^\/mirror\/zig-\w+-\w+-0\.17\.1\.tar\.xz$/);
    assert.deepEqual(fs.readdirSync(path.join(folder, "zig-0.17.1")).sort(), ["lib", "zig"]);
  }));

test("downloads nothing without a hash to check it by", () =>
  withMirror((bytes) => ({ bytes }), async ({ asked, folder }) => {
    await assert.rejects(ensureZig(), /is known here, set TRILITH_ZIG_SHA256/);
    assert.deepEqual(asked, []);
    assert.deepEqual(fs.readdirSync(folder), []);
  }));

const ARCHIVE_FAILURES: Record<string, [(bytes: Uint8Array) => Served, RegExp]> = {
  "with other content": [
    (bytes) => ({ bytes: bytes.map((byte, i) => i === 99 ? byte ^ 1 : byte) }),
    /its SHA-256 must be [0-9a-f]{64} but is [0-9a-f]{64}/,
  ],
  "that is cut off": [
    (bytes) => ({ bytes, cutAt: 40_000 }),
    /mirror\/zig-\S+: .*(cut off|error reading|body|closed|end of file)/i,
  ],
  "that is absent": [(bytes) => ({ bytes, status: 404 }), /the server answered 404 Not Found/],
};
for (const [name, [change, message]] of Object.entries(ARCHIVE_FAILURES)) {
  test(`refuses an archive ${name}`, () =>
    withMirror(change, async ({ sha, folder }) => {
      await withEnvironment({ TRILITH_ZIG_SHA256: sha }, async () => {
        await assert.rejects(ensureZig(), message);
      });
      assert.deepEqual(fs.readdirSync(folder), []);
    }));
}
