import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import {
  cacheDirectory,
  CacheError,
  publishDirectory,
  publishFile,
  removeDirectory,
  removeStaleTemporaries,
  withLock,
} from "./cache.ts";
import { ended, firstLine, inFolder, runChild, withEnvironment } from "./test_helpers.ts";

const onWindows = process.platform === "win32";

Deno.test("cacheDirectory follows TRILITH_CACHE, then XDG_CACHE_HOME, then the home", async () => {
  await inFolder(async (folder) => {
    const home = path.join(folder, "home"), xdg = path.join(folder, "xdg");
    const own = path.join(folder, "own");
    const unset = { TRILITH_CACHE: undefined, XDG_CACHE_HOME: undefined, HOME: home };
    const find = async (set: Record<string, string>) => {
      let found = "";
      await withEnvironment({ ...unset, ...set }, () => found = cacheDirectory());
      return found;
    };
    assert.equal(await find({ TRILITH_CACHE: own, XDG_CACHE_HOME: xdg }), own);
    assert.equal(await find({ XDG_CACHE_HOME: xdg }), path.join(xdg, "trilith"));
    assert.ok((await find({ XDG_CACHE_HOME: "relative" })).startsWith(home));
    assert.ok((await find({ TRILITH_CACHE: "" })).startsWith(home), "empty is unset");
    assert.ok(fs.statSync(own).isDirectory());
  });
});

Deno.test({
  name: "cacheDirectory makes folders for this user only and refuses those of others",
  ignore: onWindows,
  async fn() {
    await inFolder(async (folder) => {
      await withEnvironment({ TRILITH_CACHE: path.join(folder, "cache") }, () => {
        const kernels = cacheDirectory("kernels");
        assert.equal(fs.statSync(kernels).mode & 0o777, 0o700);
        assert.equal(fs.statSync(path.dirname(kernels)).mode & 0o777, 0o700);
        fs.chmodSync(kernels, 0o777);
        assert.throws(
          () => cacheDirectory("kernels"),
          /^CacheError: .*other users .*TRILITH_CACHE=/,
        );
      });
    });
  },
});

Deno.test("an unusable cache directory is one error with directory, reason and remedy", async () => {
  await inFolder(async (folder) => {
    const file = path.join(folder, "file");
    fs.writeFileSync(file, "");
    for (const directory of [file, path.join(file, "below")]) {
      await withEnvironment({ TRILITH_CACHE: directory }, () => {
        assert.throws(() => cacheDirectory(), (error: Error) => {
          assert.ok(error instanceof CacheError);
          assert.ok(error.message.includes(directory), error.message);
          assert.match(error.message, /a file.*TRILITH_CACHE=\/other\/folder/);
          return true;
        });
      });
    }
  });
});

Deno.test("publishFile writes, replaces, and leaves nothing behind when it fails", async () => {
  await inFolder(async (folder) => {
    const write = (text: string) =>
      publishFile(folder, "plan.json", async (file) => {
        await file.write(new TextEncoder().encode(text));
      });
    const file = await write("one");
    await write("two");
    assert.equal(fs.readFileSync(file, "utf8"), "two");
    await assert.rejects(
      publishFile(folder, "plan.json", async (half) => {
        await half.write(new TextEncoder().encode("thr"));
        throw new RangeError("Stopped half-way");
      }),
      RangeError,
    );
    assert.deepEqual(fs.readdirSync(folder), ["plan.json"]);
    assert.equal(fs.readFileSync(file, "utf8"), "two");
  });
});

Deno.test({
  name: "a full disk while publishing is a CacheError and leaves nothing behind",
  ignore: !fs.existsSync("/dev/full"),
  async fn() {
    const writeToFull = () => fs.writeFileSync("/dev/full", "more than fits");
    await inFolder(async (folder) => {
      const asked = publishFile(folder, "plan.json", async () => await writeToFull());
      await assert.rejects(asked, /^CacheError: .*full \(ENOSPC\), set TRILITH_CACHE=/);
      const folderAsked = publishDirectory(folder, "kernels", async () => await writeToFull());
      await assert.rejects(folderAsked, { name: "CacheError", code: "ENOSPC", directory: folder });
      assert.deepEqual(fs.readdirSync(folder), []);
    });
  },
});

Deno.test({
  name: "a place where not even root may write is a CacheError",
  ignore: !fs.existsSync("/sys/kernel") || !fs.existsSync("/proc/self"),
  async fn() {
    const asked = publishFile("/sys/kernel", "plan.json", async () => {});
    await assert.rejects(asked, { name: "CacheError", directory: "/sys/kernel" });
    await assert.rejects(withLock("/sys/kernel", "build", async () => {}), CacheError);
    await withEnvironment({ TRILITH_CACHE: "/proc/trilith" }, () => {
      assert.throws(() => cacheDirectory(), CacheError);
    });
  },
});

Deno.test("publishDirectory keeps the one that came first", async () => {
  await inFolder(async (folder) => {
    const fill = (text: string) => (temporary: string) => {
      fs.writeFileSync(path.join(temporary, "file"), text);
      return Promise.resolve();
    };
    const first = await publishDirectory(folder, "key", fill("first"));
    const second = await publishDirectory(folder, "key", fill("second"));
    assert.equal(first, second);
    assert.equal(fs.readFileSync(path.join(first, "file"), "utf8"), "first");
    assert.deepEqual(fs.readdirSync(folder), ["key"]);
    removeDirectory(folder, "key");
    removeDirectory(folder, "key");
    assert.deepEqual(fs.readdirSync(folder), []);
  });
});

Deno.test("what a killed writer leaves is not taken for the result and is swept up", async () => {
  await inFolder(async (folder) => {
    const child = runChild(
      "./cache.ts",
      `
      await module.publishDirectory(${JSON.stringify(folder)}, "key", async (temporary) => {
        Deno.writeTextFileSync(temporary + "/half", "half");
        console.log("started");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`,
    );
    assert.equal(await firstLine(child), "started");
    assert.deepEqual(removeStaleTemporaries(folder), [], "its writer lives");
    child.kill("SIGKILL");
    await ended(child);
    assert.equal(fs.existsSync(path.join(folder, "key")), false);
    assert.equal(removeStaleTemporaries(folder).length, 1);
    assert.deepEqual(fs.readdirSync(folder), []);
  });
});

Deno.test("temporaries of unknown hosts go after an hour, other files never", async () => {
  await inFolder((folder) => {
    const foreign = path.join(folder, ".tmp-1-00000000-abc-key");
    fs.writeFileSync(foreign, "");
    fs.writeFileSync(path.join(folder, "key"), "");
    assert.deepEqual(removeStaleTemporaries(folder), []);
    const later = Date.now() + 3_700_000;
    assert.deepEqual(removeStaleTemporaries(folder, later), [path.basename(foreign)]);
    assert.deepEqual(fs.readdirSync(folder), ["key"]);
    assert.deepEqual(removeStaleTemporaries(path.join(folder, "absent")), []);
  });
});

Deno.test("withLock runs one at a time, in this process and between processes", async () => {
  await inFolder(async (folder) => {
    const log = path.join(folder, "log");
    const body = `
      for (let i = 0; i < 5; i++) {
        await module.withLock(${JSON.stringify(folder)}, "build", async () => {
          Deno.writeTextFileSync(${JSON.stringify(log)}, "<", { append: true });
          await new Promise((resolve) => setTimeout(resolve, 20));
          Deno.writeTextFileSync(${JSON.stringify(log)}, ">", { append: true });
        });
      }`;
    await Promise.all([1, 2].map(() => ended(runChild("./cache.ts", body))));
    assert.equal(fs.readFileSync(log, "utf8"), "<>".repeat(10));
    assert.deepEqual(fs.readdirSync(folder), ["log"]);
  });
});

Deno.test("withLock says once for whom it waits, and can be aborted", async () => {
  await inFolder(async (folder) => {
    const order: string[] = [];
    const release = Promise.withResolvers<void>();
    const first = withLock(folder, "build", () => release.promise);
    await sleep(0);
    const onWait = (pid: number) => order.push(`wait for ${pid}`);
    const second = withLock(folder, "build", async () => await order.push("second"), { onWait });
    const signal = AbortSignal.timeout(50);
    await assert.rejects(withLock(folder, "build", async () => {}, { signal }), {
      name: "TimeoutError",
    });
    await sleep(250);
    release.resolve();
    await Promise.all([first, second]);
    assert.deepEqual(order, [`wait for ${process.pid}`, "second"]);
    assert.deepEqual(fs.readdirSync(folder), []);
  });
});

Deno.test("the lock of a killed process, a silent one and a damaged one are broken", async () => {
  await inFolder(async (folder) => {
    const lock = path.join(folder, "build.lock");
    const child = runChild(
      "./cache.ts",
      `
      await module.withLock(${JSON.stringify(folder)}, "build", async () => {
        console.log("locked");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`,
    );
    assert.equal(await firstLine(child), "locked");
    child.kill("SIGKILL");
    await ended(child);
    assert.ok(fs.existsSync(lock));
    assert.equal(await withLock(folder, "build", () => Promise.resolve(1)), 1);
    const longAgo = new Date(Date.now() - 120_000);
    for (
      const text of [JSON.stringify({ pid: 1, host: "elsewhere", token: "x" }), "", "{nonsense"]
    ) {
      fs.writeFileSync(lock, text);
      fs.utimesSync(lock, longAgo, longAgo);
      assert.equal(await withLock(folder, "build", () => Promise.resolve(2)), 2);
      assert.deepEqual(fs.readdirSync(folder), []);
    }
  });
});

Deno.test("a failure inside the lock frees it", async () => {
  await inFolder(async (folder) => {
    const failing = withLock(folder, "build", () => Promise.reject(new RangeError("No")));
    await assert.rejects(failing, RangeError);
    assert.equal(await withLock(folder, "build", () => Promise.resolve("free")), "free");
  });
});
