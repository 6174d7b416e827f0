import assert from "node:assert/strict";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { fixturePath } from "../tests/fixtures.ts";
import { safetensorsFile, withFolder } from "../tests/safetensors_file.ts";
import { headerIdentity, openCheckpoint } from "./checkpoint.ts";
import { CheckpointError } from "./errors.ts";
import { parseWeightMap } from "./folder_checkpoint.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);
const tensor = (...values: number[]) => ({
  dtype: "U8",
  shape: [values.length],
  bytes: bytes(...values),
});
const INDEX = "model.safetensors.index.json";
const index = (weightMap: unknown) => JSON.stringify({ metadata: {}, weight_map: weightMap });

async function refused(files: Record<string, string | Uint8Array>, message: RegExp, name = "") {
  await withFolder(files, async (folder) => {
    await assert.rejects(openCheckpoint(join(folder, name)), (error: Error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}

Deno.test("openCheckpoint opens a folder and a file with its config.json beside it", async () => {
  const files = { "config.json": "{}", "model.safetensors": safetensorsFile({ a: tensor(1, 2) }) };
  await withFolder(files, async (folder) => {
    for (const path of [folder, join(folder, "model.safetensors")]) {
      await using checkpoint = await openCheckpoint(path);
      assert.equal(checkpoint.configText, "{}");
      assert.equal(checkpoint.folder, folder);
      assert.deepEqual(await checkpoint.read("a"), bytes(1, 2));
      assert.deepEqual(await checkpoint.readRange("a", 1, 1), bytes(2));
      await assert.rejects(checkpoint.read("b"), /no tensor "b"/);
    }
  });
});

Deno.test("shards hold the same tensors as the single file", async () => {
  await using single = await openCheckpoint(fixturePath("models/llama3-158-packed"));
  await using shards = await openCheckpoint(fixturePath("models/llama3-158-packed-sharded"));
  assert.equal(shards.files.length, 3);
  assert.deepEqual([...shards.tensors.keys()].sort(), [...single.tensors.keys()].sort());
  for (const name of single.tensors.keys()) {
    assert.deepEqual(await shards.read(name), await single.read(name), name);
  }
});

const SHARDS = {
  "config.json": "{}",
  "s1.safetensors": safetensorsFile({ a: tensor(1) }),
  "s2.safetensors": safetensorsFile({ b: tensor(2) }),
};

for (
  const [what, weightMap, message] of [
    ["a tensor in another shard", { a: "s2.safetensors", b: "s2.safetensors" }, /lack a,/],
    ["swapped shards", { a: "s2.safetensors", b: "s1.safetensors" }, /which .* puts in/],
    ["a tensor in no shard", { a: "s1.safetensors", c: "s1.safetensors" }, /lack c,/],
    ["a shard that is missing", { a: "s3.safetensors" }, /s3.safetensors".* no such file/],
    ["a tensor that is not indexed", { a: "s1.safetensors", x: "s2.safetensors" }, /"no file"/],
    ["a shard in the parent folder", { a: "../s1.safetensors" }, /of the same folder/],
    ["an absolute path", { a: "/etc/x.safetensors" }, /of the same folder/],
    ["a path with a backslash", { a: "..\\s1.safetensors" }, /of the same folder/],
    ["a shard of another kind", { a: "config.json" }, /of the same folder/],
    ["a shard that is a number", { a: 1 }, /of the same folder/],
    ["no tensors", {}, /names no tensor/],
    ["a list", ["a"], /weight_map must be an object/],
  ] as const
) {
  Deno.test(`an index with ${what} is refused`, async () => {
    await refused({ ...SHARDS, [INDEX]: index(weightMap) }, message);
  });
}

const WITH_CONFIG = { "config.json": "{}" };
for (
  const [what, files, message, name] of [
    ["a missing folder", {}, /no such file or folder/, "none"],
    ["an empty folder", {}, /has no config.json/],
    ["a folder without weights", WITH_CONFIG, /neither model.safetensors nor/],
    ["a pickle", { ...WITH_CONFIG, "pytorch_model.bin": "x" }, /pickle.*save_pretrained/],
    ["a damaged GGUF file", { "m.gguf": "GGUF" }, /as a GGUF file: it ends at byte 4/, "m.gguf"],
    [
      "a damaged GGUF file by another name",
      { "m.bin": "GGUF\x03\0\0\0" },
      /ends at byte 8/,
      "m.bin",
    ],
    ["a file of another kind", { "m.txt": "hello" }, /give a model's folder/, "m.txt"],
    ["an empty file", { "m": "" }, /give a model's folder/, "m"],
    ["damaged weights", { ...WITH_CONFIG, "model.safetensors": "hello" }, /only 5 bytes/],
    ["a damaged index", { ...WITH_CONFIG, [INDEX]: "{" }, /not valid JSON/],
  ] as readonly (readonly [string, Record<string, string>, RegExp, string?])[]
) {
  Deno.test(`openCheckpoint refuses ${what}`, async () => await refused(files, message, name));
}

Deno.test("a model in the hub's cache is named by its id", async () => {
  await withFolder({}, async (root) => {
    const folder = join(root, "models--microsoft--bitnet-2B", "snapshots", "0123abcd");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "config.json"), "{}");
    await writeFile(join(folder, "model.safetensors"), safetensorsFile({ a: tensor(1) }));
    await using checkpoint = await openCheckpoint(folder);
    assert.equal(checkpoint.name, "microsoft/bitnet-2B");
  });
});

Deno.test("config.json must be a file", async () => {
  await withFolder({}, async (folder) => {
    await mkdir(join(folder, "config.json"));
    await assert.rejects(openCheckpoint(folder), /not a regular file/);
  });
});

Deno.test("headerIdentity changes with config, header, size and time, and only then", async () => {
  const weights = safetensorsFile({ a: tensor(1, 2) });
  await withFolder({ "config.json": "{}", "model.safetensors": weights }, async (folder) => {
    const file = join(folder, "model.safetensors");
    const identity = async () => {
      await utimes(file, 1000, 1000);
      await using checkpoint = await openCheckpoint(folder);
      return headerIdentity(checkpoint);
    };
    const first = await identity();
    assert.equal(await identity(), first);
    assert.match(first, /^[0-9a-f]{64}$/);
    await writeFile(file, safetensorsFile({ b: tensor(1, 2) }));
    const renamed = await identity();
    await writeFile(file, weights);
    assert.equal(await identity(), first);
    await writeFile(join(folder, "config.json"), "{ }");
    const configured = await identity();
    await utimes(file, 2000, 2000);
    await using touched = await openCheckpoint(folder);
    assert.equal(new Set([first, renamed, configured, headerIdentity(touched)]).size, 4);
  });
});

Deno.test("any index is an error or a map into the folder", () => {
  const file = fc.oneof(fc.string(), fc.constantFrom("a.safetensors", "../a.safetensors", 3, null));
  const anyIndex = fc.oneof(
    fc.json(),
    fc.dictionary(fc.string(), file).map(index),
    fc.tuple(fc.constant(index({ a: "m.safetensors" })), fc.nat(40)).map(([s, n]) => s.slice(n)),
  );
  fc.assert(
    fc.property(anyIndex, (text) => {
      try {
        for (const name of parseWeightMap(text).values()) {
          assert.match(name, /^[\w.\-]+\.safetensors$/);
        }
      } catch (error) {
        assert.ok(error instanceof CheckpointError, String(error));
        assert.doesNotMatch(error.message, /\n/);
      }
    }),
    { numRuns: 500 },
  );
});
