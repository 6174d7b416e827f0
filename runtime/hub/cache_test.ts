/** Finding, listing and deleting what is in the hub's cache, whoever put it there. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { COMMIT_A, COMMIT_B, etagOf, someBytes, textFile } from "./fake_hub.ts";
import { linkSnapshot, readRefs, repoFolder, repoOfFolder } from "./layout.ts";
import { localModels } from "./local_models.ts";
import { locateModel } from "./locate.ts";
import { planRemoval, removeModel } from "./remove.ts";
import { MODEL, someRepo, WEIGHTS, withHub } from "./test_bench.ts";

const probe = () => Promise.resolve("bitnet, ternary");
const TOKENIZER_BYTES = 2;
const NEW_TOKENIZER = '{"new": 1}';

/** Two commits that share all but one file; `main` is at the second. */
async function withTwoCommits(
  use: (bench: { cache: string; folder: string; blob(etag: string): string }) => Promise<void>,
): Promise<void> {
  const repo = someRepo();
  await withHub(async ({ cache, folder, blob, pull }) => {
    await pull({}, `${MODEL}@${COMMIT_A}`);
    repo.commit = COMMIT_B;
    repo.files["tokenizer.json"] = textFile(NEW_TOKENIZER);
    await pull();
    await use({ cache, folder, blob });
  }, repo);
}

Deno.test("layout: a repository's folder and back", () => {
  for (const repo of ["gpt2", "org/name", "1bitLLM/bitnet_b1_58-3B"]) {
    assert.equal(repoOfFolder(path.basename(repoFolder("/c", repo))), repo);
  }
  for (const folder of ["datasets--a--b", ".locks", "blobs", "version.txt"]) {
    assert.equal(repoOfFolder(folder), null);
  }
});

Deno.test("linkSnapshot: a link that is wrong is put right, one that is right stays", async () => {
  await withHub(async ({ folder, pull }) => {
    await pull();
    const pointer = path.join(folder, "snapshots", COMMIT_A, "config.json");
    const right = fs.readlinkSync(pointer);
    fs.rmSync(pointer);
    fs.symlinkSync("nowhere", pointer);
    const etag = path.basename(right);
    linkSnapshot(folder, COMMIT_A, "config.json", etag, false);
    assert.equal(fs.readlinkSync(pointer), right);
    linkSnapshot(folder, COMMIT_A, "config.json", etag, false);
    assert.throws(() => linkSnapshot(folder, COMMIT_A, "../../x", etag, false), RangeError);
  });
});

Deno.test("locateModel: what exists as a path is one; the hub's names are looked up", async () => {
  await withHub(async ({ cache, folder, pull }) => {
    assert.equal(locateModel("models/story", cache), "models/story");
    assert.equal(locateModel("./no/such", cache), "./no/such");
    assert.equal(locateModel("no-such", cache), "no-such");
    for (const name of [MODEL, `hf:${MODEL}`, `https://huggingface.co/${MODEL}`, "bitnet-3b"]) {
      assert.throws(() => locateModel(name, cache), {
        name: "NotPulledError",
        message: new RegExp(`in the hub's cache .*, \`trilith pull ${name}\` fetches it`),
      });
    }
    await pull();
    const snapshot = path.join(folder, "snapshots", COMMIT_A);
    for (const name of [MODEL, `hf:${MODEL}@main`, `https://huggingface.co/${MODEL}/tree/main`]) {
      assert.equal(locateModel(name, cache), snapshot);
    }
    assert.equal(locateModel(`${MODEL}:model.safetensors`, cache), snapshot);
  });
});

Deno.test("locateModel: a snapshot whose blobs are gone is not there", async () => {
  await withHub(async ({ cache, blob, pull }) => {
    await pull();
    fs.rmSync(blob(etagOf(WEIGHTS)));
    assert.throws(() => locateModel(MODEL, cache), { name: "NotPulledError" });
  });
});

Deno.test("localModels: what is here, what it is, and what can be given to --model", async () => {
  await withTwoCommits(async ({ cache }) => {
    fs.mkdirSync(path.join(cache, "datasets--a--b", "snapshots"), { recursive: true });
    fs.mkdirSync(path.join(cache, "models--empty--x"));
    const [old, current, ...more] = await localModels(cache, probe).then((models) =>
      models.sort((a, b) => a.commit < b.commit ? -1 : 1)
    );
    assert.deepEqual(more, []);
    assert.equal(current.name, MODEL);
    assert.deepEqual(current.revisions, ["main"]);
    assert.equal(old.name, `${MODEL}@${COMMIT_A.slice(0, 8)}`);
    assert.equal(old.bytes, WEIGHTS.content.length + 24 + TOKENIZER_BYTES);
    for (const model of [old, current]) {
      assert.equal(model.format, "safetensors");
      assert.equal(locateModel(model.name, cache), model.path);
      assert.deepEqual([model.runs, model.note], [true, "bitnet, ternary"]);
    }
  });
});

Deno.test("localModels: each GGUF file is a model, and what fails says why", async () => {
  const file = (seed: number) => ({ content: someBytes(1000, seed), isLarge: true });
  const files = { "a-TQ2_0.gguf": file(1), "a-F16.gguf": file(2) };
  await withHub(async ({ cache, pull }) => {
    await pull({ include: ["*.gguf"] });
    const models = await localModels(cache, () => Promise.reject(new Error("It is damaged")));
    assert.deepEqual(models.map(({ name }) => name), [
      `${MODEL}:a-F16.gguf`,
      `${MODEL}:a-TQ2_0.gguf`,
    ]);
    for (const { name, path, format, runs, note } of models) {
      assert.deepEqual([format, runs, note], ["gguf", false, "It is damaged"]);
      assert.equal(locateModel(name, cache), path);
    }
  }, { files });
});

Deno.test("localModels: a pull that has not ended", async () => {
  await withHub(async ({ hub, cache, pull }) => {
    hub.fault = (seen, response) => {
      if (!seen.range?.startsWith("bytes=50000-")) return false;
      response.writeHead(404).end();
      return true;
    };
    await assert.rejects(pull({ connections: 1 }));
    const [model] = await localModels(cache, probe);
    assert.deepEqual([model.name, model.path, model.runs], [MODEL, null, false]);
    assert.match(model.note, /its pull did not end/);
    assert.ok(model.bytes >= 50_000 && model.bytes < WEIGHTS.content.length);
  });
});

Deno.test("rm: one revision goes, and only the blobs that no other has", async () => {
  await withTwoCommits(async ({ cache, folder, blob }) => {
    const removal = planRemoval(`${MODEL}@${COMMIT_B.slice(0, 8)}`, cache);
    assert.equal(removal.bytes, NEW_TOKENIZER.length);
    assert.equal(removal.isWholeRepo, false);
    removeModel(removal, cache);
    assert.ok(!fs.existsSync(blob(etagOf(textFile(NEW_TOKENIZER)))));
    assert.ok(!fs.existsSync(path.join(folder, "snapshots", COMMIT_B)));
    assert.equal(readRefs(folder).size, 0);
    // The one that is left is whole.
    const snapshot = locateModel(MODEL, cache);
    assert.equal(fs.statSync(path.join(snapshot, "model.safetensors")).size, 300_000);
    await Promise.resolve();
  });
});

Deno.test("rm: the whole model goes, with its locks and what was not finished", async () => {
  await withTwoCommits(async ({ cache, folder }) => {
    fs.writeFileSync(path.join(folder, "blobs", "x.trilith.incomplete"), "abc");
    const removal = planRemoval(MODEL, cache);
    assert.deepEqual(removal.commits.sort(), [COMMIT_A, COMMIT_B]);
    assert.ok(removal.bytes >= 300_000 + 24 + TOKENIZER_BYTES + NEW_TOKENIZER.length);
    removeModel(removal, cache);
    assert.deepEqual(fs.readdirSync(cache).sort(), [".locks", "CACHEDIR.TAG"]);
    assert.deepEqual(fs.readdirSync(path.join(cache, ".locks")), []);
    assert.throws(() => planRemoval(MODEL, cache), /it is not in the hub's cache/);
    await Promise.resolve();
  });
});

Deno.test("rm: one GGUF file of two", async () => {
  const file = (seed: number) => ({ content: someBytes(1000, seed), isLarge: true });
  const files = { "a-TQ2_0.gguf": file(1), "a-F16.gguf": file(2), "LICENSE": textFile("MIT") };
  await withHub(async ({ cache, pull }) => {
    await pull({ include: ["*"] });
    const removal = planRemoval(`${MODEL}:f16`, cache);
    assert.deepEqual([removal.files, removal.bytes], [["a-F16.gguf"], 1000]);
    // What was packed from the other one stays.
    assert.deepEqual(removal.origins.map((origin) => path.basename(origin)), ["a-F16.gguf"]);
    // Of two, the ternary one is opened.
    assert.match(locateModel(MODEL, cache), /a-TQ2_0\.gguf$/);
    removeModel(removal, cache);
    assert.match(locateModel(MODEL, cache), /a-TQ2_0\.gguf$/);
    assert.throws(() => planRemoval(`${MODEL}:f16`, cache), { name: "UsageError" });
    assert.throws(() => planRemoval(`${MODEL}@v3`, cache), /not in the hub's cache/);
    assert.throws(() => planRemoval("./models/story", cache), { name: "UsageError" });
  }, { files });
});

Deno.test("rm: a blob that Python shares between repositories stays where it is shared", async () => {
  await withHub(async ({ cache, blob, pull }) => {
    await pull();
    const etag = etagOf(WEIGHTS);
    const shared = path.join(cache, "blobs", "ab", "ab".repeat(32));
    fs.mkdirSync(path.dirname(shared), { recursive: true });
    fs.renameSync(blob(etag), shared);
    fs.symlinkSync(path.relative(path.dirname(blob(etag)), shared), blob(etag));
    const [model] = await localModels(cache, probe);
    assert.ok(model.bytes > 300_000);
    const again = await pull();
    assert.equal(again.neededBytes, 0);
    const removal = planRemoval(MODEL, cache);
    assert.ok(removal.bytes < 1000);
    removeModel(removal, cache);
    assert.equal(fs.statSync(shared).size, 300_000);
  });
});

Deno.test("where there are no links, a file in the snapshot is the blob", async () => {
  await withHub(async ({ hub, cache, folder, blob, pull }) => {
    await pull();
    const pointer = path.join(folder, "snapshots", COMMIT_A, "model.safetensors");
    fs.rmSync(pointer);
    fs.renameSync(blob(etagOf(WEIGHTS)), pointer);
    hub.seen.length = 0;
    assert.equal((await pull()).neededBytes, 0);
    assert.equal(hub.transfers.length, 0);
    const removal = planRemoval(`${MODEL}@main`, cache);
    assert.ok(removal.bytes >= 300_000);
    removeModel(removal, cache);
    assert.ok(!fs.existsSync(pointer));
  });
});
