import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { COMMIT_A, etagOf, FakeHub, type FakeRepo, someBytes, textFile } from "./fake_hub.ts";
import { repoFolder } from "./layout.ts";
import { locateModel } from "./locate.ts";
import { pullModel, type PullOptions } from "./pull.ts";

export const MODEL = "someone/ternary-1b";
const WEIGHTS = { content: someBytes(300_000, 1), isLarge: true };

export function someRepo(): FakeRepo {
  return {
    files: {
      ".gitattributes": textFile("*.safetensors filter=lfs\n"),
      "README.md": textFile("# A model"),
      "config.json": textFile('{"model_type": "bitnet"}'),
      "tokenizer.json": textFile("{}"),
      "model.safetensors": WEIGHTS,
      "pytorch_model.bin": { content: someBytes(1000, 2), isLarge: true },
      "onnx/model.onnx": { content: someBytes(1000, 3), isLarge: true },
    },
  };
}

export interface Bench {
  hub: FakeHub;
  cache: string;
  folder: string;
  pull(text?: string, options?: PullOptions): ReturnType<typeof pullModel>;
}

/** A hub with one model, an empty cache, quick retries and small pieces. */
export async function withHub(use: (bench: Bench) => Promise<void>, repo = someRepo()) {
  await using hub = await FakeHub.start({ [MODEL]: repo });
  const cache = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-hub-"));
  const settings = {
    endpoint: hub.endpoint,
    cacheFolder: cache,
    token: null,
    isOffline: false,
    stallMs: 5000,
  };
  const pull: Bench["pull"] = (text = MODEL, options = {}) =>
    pullModel(text, {
      retryMs: 1,
      pieceBytes: 50_000,
      ...options,
      settings: { ...settings, ...options.settings },
    });
  try {
    await use({ hub, cache, folder: repoFolder(cache, MODEL), pull });
  } finally {
    fs.rmSync(cache, { recursive: true, force: true });
  }
}

Deno.test("pull: what a model needs lies as the hub's cache has it", async () => {
  await withHub(async ({ hub, cache, folder, pull }) => {
    const report = await pull();
    const snapshot = path.join(folder, "snapshots", COMMIT_A);
    assert.deepEqual(fs.readdirSync(snapshot).sort(), [
      "config.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
    assert.equal(report.path, snapshot);
    assert.equal(report.commit, COMMIT_A);
    assert.equal(fs.readFileSync(path.join(folder, "refs", "main"), "utf8"), COMMIT_A);
    const weights = path.join(snapshot, "model.safetensors");
    assert.deepEqual(new Uint8Array(fs.readFileSync(weights)), WEIGHTS.content);
    assert.equal(fs.readlinkSync(weights), `../../blobs/${etagOf(WEIGHTS)}`);
    assert.deepEqual(
      fs.readdirSync(path.join(folder, "blobs")).filter((name) => name.includes("trilith")),
      [],
    );
    assert.equal(hub.transfers.filter(({ origin }) => origin === "storage").length, 6);
    assert.equal(locateModel(MODEL, cache), snapshot);
    const again = await pull();
    assert.deepEqual([again.neededBytes, again.files.map(({ state }) => state)], [
      0,
      ["present", "present", "present"],
    ]);
  });
});
