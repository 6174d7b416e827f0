import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { cacheDirectory } from "../kernels/cache.ts";
import { inFolder, withEnvironment } from "../kernels/test_helpers.ts";
import { unpackFolder } from "./embedded.ts";

/** Runs with a folder "tale" of two files, and a cache of its own. */
async function withTale(run: (tale: string) => void): Promise<void> {
  await inFolder((folder) =>
    withEnvironment({ TRILITH_CACHE: path.join(folder, "cache") }, () => {
      const tale = path.join(folder, "tale");
      fs.mkdirSync(tale);
      fs.writeFileSync(path.join(tale, "config.json"), "{}");
      fs.writeFileSync(path.join(tale, "weights"), new Uint8Array([1, 2, 3]));
      run(tale);
    })
  );
}

function contentOf(folder: string): Record<string, string> {
  const names = fs.readdirSync(folder).sort();
  return Object.fromEntries(
    names.map((name) => [name, fs.readFileSync(path.join(folder, name), "latin1")]),
  );
}

Deno.test("a folder is unpacked into the cache once, under its own name", async () => {
  await withTale((tale) => {
    const copy = unpackFolder(tale);
    assert.equal(path.basename(copy), "tale");
    assert.ok(copy.startsWith(cacheDirectory("embedded") + path.sep));
    assert.deepEqual(contentOf(copy), { "config.json": "{}", weights: "\x01\x02\x03" });
    const { ino } = fs.statSync(path.join(copy, "weights"));
    assert.equal(unpackFolder(tale), copy);
    assert.equal(fs.statSync(path.join(copy, "weights")).ino, ino);
  });
});

Deno.test("a copy that lacks a file, or a part of one, is made again", async () => {
  await withTale((tale) => {
    const copy = unpackFolder(tale);
    const whole = contentOf(copy);
    fs.rmSync(path.join(copy, "config.json"));
    assert.deepEqual(contentOf(unpackFolder(tale)), whole);
    fs.truncateSync(path.join(copy, "weights"), 1);
    assert.deepEqual(contentOf(unpackFolder(tale)), whole);
    assert.deepEqual(fs.readdirSync(path.dirname(copy)), ["tale"], "nothing else stays behind");
  });
});

Deno.test("other content is another copy", async () => {
  await withTale((tale) => {
    const before = unpackFolder(tale);
    fs.writeFileSync(path.join(tale, "config.json"), "[]");
    const after = unpackFolder(tale);
    assert.notEqual(after, before);
    assert.deepEqual([contentOf(before), contentOf(after)].map((files) => files["config.json"]), [
      "{}",
      "[]",
    ]);
  });
});
