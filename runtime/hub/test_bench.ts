/** A hub on this machine with one model, and an empty cache, for the tests of this folder. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { FakeHub, type FakeRepo, someBytes, textFile } from "./fake_hub.ts";
import { blobPath, repoFolder } from "./layout.ts";
import { pullModel, type PullOptions } from "./pull.ts";
import type { HubSettings } from "./settings.ts";

export const MODEL = "someone/ternary-1b";
export const WEIGHTS = { content: someBytes(300_000, 1), isLarge: true };
/** So many requests fetch the weights. */
export const PIECES = 6;

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
  /** The model's, in the cache. */
  folder: string;
  settings: HubSettings;
  pull(options?: Partial<PullOptions> & Partial<HubSettings>, name?: string): ReturnType<
    typeof pullModel
  >;
  /** Where a blob is. */
  blob(etag: string): string;
  /** Files of the blobs' folder that are no whole blobs. */
  leftovers(): string[];
}

/** Retries are quick and pieces are small. */
export async function withHub(
  use: (bench: Bench) => Promise<void>,
  repo: FakeRepo = someRepo(),
): Promise<void> {
  await using hub = await FakeHub.start({ [MODEL]: repo });
  const cache = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-hub-"));
  const folder = repoFolder(cache, MODEL);
  const settings: HubSettings = {
    endpoint: hub.endpoint,
    cacheFolder: cache,
    token: null,
    isOffline: false,
    stallMs: 10_000,
  };
  try {
    await use({
      hub,
      cache,
      folder,
      settings,
      pull: ({ endpoint, token, isOffline, stallMs, ...options } = {}, name = MODEL) => {
        const given = { endpoint, token, isOffline, stallMs };
        const known = Object.entries(given).filter(([, value]) => value !== undefined);
        return pullModel(name, {
          retryMs: 1,
          pieceBytes: Math.ceil(WEIGHTS.content.length / PIECES),
          settings: { ...settings, ...Object.fromEntries(known) },
          ...options,
        });
      },
      blob: (etag) => blobPath(folder, etag),
      leftovers: () => {
        const blobs = path.join(folder, "blobs");
        if (!fs.existsSync(blobs)) return [];
        return fs.readdirSync(blobs).filter((name) => !/^[0-9a-f]+$/.test(name));
      },
    });
  } finally {
    fs.rmSync(cache, { recursive: true, force: true });
  }
}
