/** What happens to a running server when somebody changes files under it. */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { embeddedModelFolder } from "../../runtime/embedded.ts";
import { cacheRoot } from "../../kernels/cache.ts";
import { testUnless } from "../tools.ts";
import { greedyText } from "./requests.ts";

interface Place {
  model: string;
  cache: string;
  start: () => Promise<ServerProcess>;
}

/** A copy of the story model, and a cache of its own that has the kernel already. */
async function withCopy(use: (place: Place) => Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-test-"));
  const [model, cache] = ["model", "cache"].map((name) => path.join(folder, name));
  const start = () =>
    ServerProcess.start({
      args: ["--threads", "1", "--model", model, "--alias", "story"],
      env: { TRILITH_CACHE: cache },
    });
  try {
    fs.cpSync(embeddedModelFolder(), model, { recursive: true });
    fs.mkdirSync(cache, { mode: 0o700 });
    const kernels = path.join(cacheRoot(), "kernels");
    if (fs.existsSync(kernels)) {
      fs.cpSync(kernels, path.join(cache, "kernels"), { recursive: true });
    }
    await use({ model, cache, start });
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** Files of packed weights. */
function packedFiles(cache: string): string[] {
  return (fs.readdirSync(cache, { recursive: true }) as string[])
    .map((file) => path.join(cache, file))
    .filter((file) => !file.includes("kernels") && fs.statSync(file).size > 500_000);
}

Deno.test("model files: deleted or replaced while the server runs, its answers stay the same", async () => {
  await withCopy(async ({ model, cache, start }) => {
    await using server = await start();
    const text = await greedyText(server.url);
    fs.rmSync(model, { recursive: true });
    assert.equal(await greedyText(server.url), text);
    const packed = packedFiles(cache);
    assert.ok(packed.length > 0);
    for (const file of packed) {
      fs.writeFileSync(`${file}.new`, new Uint8Array(fs.statSync(file).size).fill(0x55));
      fs.renameSync(`${file}.new`, file);
    }
    assert.equal(await greedyText(server.url), text);
    fs.rmSync(cache, { recursive: true });
    assert.equal(await greedyText(server.url), text);
    assert.ok(server.isRunning);
  });
});

Deno.test("model files: packed weights that do not belong to the model are packed anew", async () => {
  await withCopy(async ({ cache, start }) => {
    const first = await start();
    const text = await greedyText(first.url);
    await first[Symbol.asyncDispose]();
    for (const file of packedFiles(cache)) fs.truncateSync(file, 100_000);
    await using second = await start();
    assert.equal(await greedyText(second.url), text);
  });
});

testUnless(
  process.platform === "linux" ? null : "what a system does here is its own",
  "model files: packed weights cut off under the server end it, and never its answers' truth",
  async () => {
    await withCopy(async ({ cache, start }) => {
      const first = await start();
      const text = await greedyText(first.url);
      for (const file of packedFiles(cache)) fs.truncateSync(file, 4096);
      // Reading mapped pages that are no longer there is a bus error: no program can answer then.
      await assert.rejects(greedyText(first.url), TypeError);
      assert.equal(await first.ended, "SIGBUS");
      await using second = await start();
      assert.equal(await greedyText(second.url), text);
    });
  },
);
