/** What the command line asks of the cache: where models are, which there are, and to delete them. */
import { rm } from "node:fs/promises";
import { openCheckpoint } from "../checkpoint.ts";
import { readModelConfig } from "../config.ts";
import { NotTernaryError } from "../errors.ts";
import { packedFilesFrom } from "../packed_file.ts";
import { type LocalModel, localModels } from "./local_models.ts";
import { planRemoval, type Removal, removeModel } from "./remove.ts";
import { hubCacheFolder } from "./settings.ts";

export type { LocalModel } from "./local_models.ts";

export interface ModelRemoval extends Removal {
  /** Weights that were packed from it. */
  packed: { path: string; bytes: number }[];
}

/** Models of the hub's cache, with what their headers say. */
export function listModels(): Promise<LocalModel[]> {
  return localModels(hubCacheFolder(), probe);
}

async function probe(path: string): Promise<string> {
  await using checkpoint = await openCheckpoint(path);
  try {
    const { modelType, quantization, task } = await readModelConfig(checkpoint);
    const kind = quantization.kind === "absmean" ? "float" : "ternary";
    return `${modelType}, ${kind}${task === "embed" ? ", embeddings" : ""}`;
  } catch (error) {
    if (!(error instanceof NotTernaryError)) throw error;
    return "float: with --quantize absmean";
  }
}

/** What `removeModels` of that name would delete, packed weights included. */
export async function modelRemoval(name: string): Promise<ModelRemoval> {
  const removal = planRemoval(name, hubCacheFolder());
  return { ...removal, packed: await packedFilesFrom(removal.origins) };
}

/** Deletes what `modelRemoval` found. */
export async function removeModels(removal: ModelRemoval): Promise<void> {
  removeModel(removal, hubCacheFolder());
  for (const { path } of removal.packed) await rm(path, { force: true });
}
