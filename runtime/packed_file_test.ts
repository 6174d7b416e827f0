import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { LOOKUP10 } from "../codegen/layouts/lookup.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import { randomOf } from "../codegen/random.ts";
import { inFolder, withEnvironment } from "../kernels/test_helpers.ts";
import { ODD_MODELS } from "../tests/odd_models.ts";
import { randomPacked, randomSource } from "../tests/random_model.ts";
import { ensurePackedFile, HEADER_BYTES, packedKey, type PackedSource } from "./packed_file.ts";
import { SHAPES } from "./shapes.ts";
import { referencePacker } from "./ternary_packer.ts";

const { spec } = ODD_MODELS[0];
const SEED = 7;

function sourceOf(changes: Partial<PackedSource> = {}): PackedSource {
  const layout = changes.layout ?? ROWS32;
  return {
    spec,
    layout,
    origin: "/models/a",
    identity: "a1",
    weights: () => randomSource(spec, randomOf(SEED)),
    packer: () => referencePacker(layout),
    ...changes,
  };
}

/** Runs with a cache of its own. */
async function withCache(run: (models: string) => Promise<void>): Promise<void> {
  await inFolder((folder) =>
    withEnvironment({ TRILITH_CACHE: folder }, () => run(path.join(folder, "models")))
  );
}

const packedIn = (folder: string) =>
  fs.readdirSync(folder).map((name) => path.join(folder, name)).sort();

Deno.test("packed file: the data lies behind a header that tells what it is", async () => {
  await withCache(async () => {
    const file = await ensurePackedFile(sourceOf());
    const bytes = fs.readFileSync(file.path);
    const expected = await randomPacked(spec, SEED);
    assert.equal(file.dataBytes, expected.length);
    assert.deepEqual(new Uint8Array(bytes.subarray(HEADER_BYTES)), expected);
    const header = JSON.parse(bytes.toString("utf8", 0, HEADER_BYTES));
    assert.deepEqual([header.origin, header.layout], ["/models/a", "rows32"]);
  });
});

Deno.test("packed file: one that is there is opened, and nothing is read", async () => {
  await withCache(async () => {
    const { path } = await ensurePackedFile(sourceOf());
    const unread = { weights: () => assert.fail("weights were read") };
    assert.equal((await ensurePackedFile(sourceOf(unread))).path, path);
  });
});

Deno.test("packed file: the one of an earlier state of the checkpoint is removed, no other", async () => {
  await withCache(async (models) => {
    const kept = [
      sourceOf({ layout: LOOKUP10 }),
      sourceOf({ origin: "/models/b", identity: "b1" }),
      sourceOf({ origin: "/models/a absmean", identity: "a1 absmean" }),
    ];
    const files = [];
    for (const source of kept) files.push((await ensurePackedFile(source)).path);
    const old = await ensurePackedFile(sourceOf());
    fs.writeFileSync(path.join(models, "damaged.packed"), "not a header");
    assert.ok(fs.existsSync(old.path));
    const fresh = await ensurePackedFile(sourceOf({ identity: "a2" }));
    const expected = [...files, fresh.path, path.join(models, "damaged.packed")].sort();
    assert.deepEqual(packedIn(models), expected);
  });
});

Deno.test("packed file: a source that fails half-way leaves nothing, and the old file stays", async () => {
  await withCache(async (models) => {
    const old = await ensurePackedFile(sourceOf());
    const sound = randomSource(spec, randomOf(SEED));
    const cut = sourceOf({
      identity: "a2",
      weights: () => ({
        ...sound,
        linear: (layer, name) =>
          layer === 1 ? Promise.reject(new Error("cut short")) : sound.linear(layer, name),
      }),
    });
    await assert.rejects(ensurePackedFile(cut), /cut short/);
    assert.deepEqual(packedIn(models), [old.path]);
  });
});

Deno.test("packed file: aborted packing leaves nothing", async () => {
  await withCache(async (models) => {
    const controller = new AbortController();
    const onProgress = ({ done }: { done?: number }) => {
      if (done! > 0) controller.abort(new Error("enough"));
    };
    const { signal } = controller;
    await assert.rejects(ensurePackedFile(sourceOf(), { onProgress, signal }), /enough/);
    assert.deepEqual(packedIn(models), []);
  });
});

Deno.test("packed file: another model, source or order of weights is another file", () => {
  const spec = SHAPES["bitnet-2b-4t"];
  // The same name and sizes, the first two bytes of every matrix the other way round.
  const swapped: TernaryLayout = {
    ...ROWS32,
    packRows(packed, ...rest) {
      ROWS32.packRows(packed, ...rest);
      [packed[0], packed[1]] = [packed[1], packed[0]];
    },
  };
  const sources = [
    { spec, layout: ROWS32, identity: "a" },
    { spec, layout: ROWS32, identity: "b" },
    { spec: SHAPES["bitnet-3b"], layout: ROWS32, identity: "a" },
    { spec, layout: swapped, identity: "a" },
  ];
  assert.equal(new Set(sources.map(packedKey)).size, sources.length);
  assert.equal(packedKey(sources[0]), packedKey({ ...sources[0] }));
});
