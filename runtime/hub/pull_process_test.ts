/** What only processes of their own show: kill -9 on the way, and two that want the same. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { bun, testWith } from "../../tests/tools.ts";
import { locateModel } from "./locate.ts";
import type { PullReport } from "./pull.ts";
import { planRemoval } from "./remove.ts";
import { COMMIT_A, COMMIT_B, textFile } from "./fake_hub.ts";
import { MODEL, PIECES, someRepo, WEIGHTS, withHub } from "./test_bench.ts";

const PULL_ONCE = fileURLToPath(new URL("./pull_once.ts", import.meta.url));
/** A process that hangs must not hang the tests. */
const LIMIT_MS = 30_000;

interface Run {
  child: ChildProcess;
  /** Its report, or null if it was killed. */
  ended: Promise<PullReport | null>;
}

const DENO = [process.execPath, "run", "-A"];

function start(endpoint: string, cacheFolder: string, [program, ...args] = DENO): Run {
  const child = spawn(program, [...args, PULL_ONCE, endpoint, cacheFolder, MODEL], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout!.setEncoding("utf8").on("data", (chunk) => text += chunk);
  const limit = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  const ended = once(child, "close").then(([code]) => {
    clearTimeout(limit);
    return code === 0 ? JSON.parse(text) as PullReport : null;
  });
  return { child, ended };
}

function assertWhole(report: PullReport | null): void {
  assert.ok(report);
  const weights = fs.readFileSync(path.join(report.path!, "model.safetensors"));
  assert.deepEqual(new Uint8Array(weights), WEIGHTS.content);
}

Deno.test("pull: after kill -9 it goes on with what was noted", async () => {
  await withHub(async ({ hub, cache, leftovers }) => {
    // The last piece never comes: the process waits for it, having noted what came before.
    hub.fault = ({ origin, range }) => origin === "storage" && range!.startsWith("bytes=250000-");
    const { child, ended } = start(hub.endpoint, cache);
    while (!leftovers().some((name) => name.endsWith(".json"))) {
      assert.equal(child.exitCode ?? child.signalCode, null, "it ended before it noted anything");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.throws(() => planRemoval(MODEL, cache), {
      name: "UsageError",
      message: new RegExp(`while process ${child.pid} fetches it: stop that first`),
    });
    child.kill("SIGKILL");
    assert.equal(await ended, null);
    assert.ok(planRemoval(MODEL, cache).bytes > 0);
    hub.fault = () => false;
    hub.seen.length = 0;
    assertWhole(await start(hub.endpoint, cache).ended);
    const fetched = hub.transfers.filter(({ origin }) => origin === "storage").length;
    assert.ok(fetched >= 1 && fetched < PIECES, `${fetched} pieces`);
    assert.deepEqual(leftovers(), []);
  });
});

Deno.test("pull: two processes fetch a file once", async () => {
  await withHub(async ({ hub, cache, leftovers }) => {
    hub.fault = async () => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      return false;
    };
    const runs = [start(hub.endpoint, cache), start(hub.endpoint, cache)];
    for (const report of await Promise.all(runs.map(({ ended }) => ended))) assertWhole(report);
    assert.equal(hub.transfers.filter(({ origin }) => origin === "storage").length, PIECES);
    assert.deepEqual(leftovers(), []);
  });
});

Deno.test("pull: where links can't be made, files are there once, and other revisions keep theirs", async () => {
  const { files } = someRepo();
  // Of the same content, so that one blob is to be in two places.
  files["generation_config.json"] = files["tokenizer.json"];
  await withHub(async ({ hub, cache, folder, pull }) => {
    await pull({}, `${MODEL}@v1`);
    files["LICENSE"] = textFile("MIT");
    // Deno makes links only for those who may read and write everything.
    const restricted = [`--allow-read=${cache}`, `--allow-write=${cache}`, "--allow-net=127.0.0.1"];
    const command = [process.execPath, "run", "--no-prompt", ...restricted];
    for (const transfers of [1, 0]) {
      hub.seen.length = 0;
      assertWhole(await start(hub.endpoint, cache, command).ended);
      assert.equal(hub.transfers.length, transfers);
    }
    for (const commit of [COMMIT_A, COMMIT_B]) {
      const snapshot = path.join(folder, "snapshots", commit);
      const names = fs.readdirSync(snapshot).filter((name) =>
        fs.existsSync(path.join(snapshot, name))
      );
      const own = commit === COMMIT_A ? ["LICENSE"] : [];
      const both = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
      assert.deepEqual(names.sort(), [...own, ...both]);
    }
  }, { files, branches: { v1: COMMIT_B } });
});

testWith(
  bun(),
  "pull: Bun goes on with what Deno has begun, and the other way round",
  async (command) => {
    await withHub(async ({ hub, cache, pull }) => {
      hub.fault = (seen, response) => {
        if (!seen.range?.startsWith("bytes=250000-")) return false;
        response.writeHead(404).end();
        return true;
      };
      await assert.rejects(pull({ connections: 1 }), /no such model/);
      hub.fault = () => false;
      hub.seen.length = 0;
      const report = await start(hub.endpoint, cache, [...command, "run"]).ended;
      assertWhole(report);
      assert.equal(hub.transfers.filter(({ origin }) => origin === "storage").length, 1);
      assert.equal(locateModel(MODEL, cache), report!.path);
      assert.equal((await pull()).neededBytes, 0);
    });
  },
);
