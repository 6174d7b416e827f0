/**
 * A checkpoint as Hugging Face folders keep it: config.json beside model.safetensors, or beside
 * model.safetensors.index.json and the shards that it names; or a GGUF file, which holds all that
 * itself. Gives one map of all tensors.
 */
import { createHash } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Companions } from "./companions.ts";
import { CheckpointError, reasonOf, shown } from "./errors.ts";
import { INDEX_FILE, openFolder, SINGLE_FILE } from "./folder_checkpoint.ts";
import { ggufModels, type GgufOptions, onlyModel, openGguf } from "./gguf/checkpoint.ts";
import { locateModel } from "./hub/locate.ts";
import { isMissing } from "./json.ts";
import { DISK } from "./model_files.ts";
import type { TensorInfo, WeightFile } from "./tensors.ts";
import { isTrilithFile, openTrilithFile, type PackedModel } from "./trilith/file.ts";
import type { Allocate } from "./weights.ts";

export interface Checkpoint extends AsyncDisposable {
  /** Folder of the weights, and of config.json, tokenizer.json and so on where they are files. */
  readonly folder: string;
  /** For people: the folder's own name, or the model's id in the hub's cache. */
  readonly name: string;
  readonly format: "safetensors" | "gguf" | "packed";
  /** A config.json; that of a GGUF file is made from its keys. */
  readonly configText: string;
  /** Tokenizer, chat template and generation defaults. */
  readonly companions: Companions;
  readonly files: readonly WeightFile[];
  /** Every tensor of every shard, by Hugging Face's names. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Weights that are packed already, in the place of tensors. */
  readonly packed?: PackedModel;
  read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>>;
  readRange(
    name: string,
    start: number,
    length: number,
    allocate?: Allocate,
  ): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/**
 * Opens a model folder, a `.safetensors` file that has its config.json beside it, a GGUF file, or a
 * `.trilith` file; by its path, or by its name on the hub if it is in the hub's cache.
 *
 * @throws {CheckpointError} If something is missing, damaged, or of a format that is not read.
 */
export async function openCheckpoint(path: string, options: GgufOptions = {}): Promise<Checkpoint> {
  const located = await locate(locateModel(path));
  if ("gguf" in located) return await openGguf(located.gguf, options);
  if ("trilith" in located) return await openTrilithFile(located.trilith);
  return await openFolder(located.folder, located.weightsFile);
}

/**
 * A string that changes when the model's files do, cheap to compute: names, sizes, times and
 * headers of all weight files, and config.json. Weights themselves are not read.
 */
export function headerIdentity(checkpoint: Checkpoint): string {
  const hash = createHash("sha256").update(checkpoint.configText);
  for (const { path, fileBytes, modifiedMs, headerSha256 } of checkpoint.files) {
    hash.update(JSON.stringify([basename(path), fileBytes, modifiedMs, headerSha256]));
  }
  return hash.digest("hex");
}

type Located = { folder: string; weightsFile: string | null } | { gguf: string } | {
  trilith: string;
};

async function locate(path: string): Promise<Located> {
  let info;
  try {
    info = await stat(path);
  } catch (error) {
    const reason = isMissing(error) ? "there is no such file or folder" : reasonOf(error);
    throw new CheckpointError(`Cannot open model ${shown(path)}: ${reason}`);
  }
  if (info.isDirectory()) return await locateInFolder(resolve(path));
  if (!info.isFile()) {
    throw new CheckpointError(`Cannot open model ${shown(path)}: it is neither file nor folder`);
  }
  if (isTrilithFile(path)) return { trilith: path };
  if (await isGguf(path)) return { gguf: path };
  if (path.endsWith(".safetensors")) {
    return { folder: dirname(resolve(path)), weightsFile: basename(path) };
  }
  throw new CheckpointError(
    `Cannot open model ${
      shown(path)
    }: give a model's folder, its .safetensors, .gguf or .trilith file`,
  );
}

/** Safetensors win, as they have more digits; a GGUF file counts where it is the only model. */
async function locateInFolder(folder: string): Promise<Located> {
  const names = [SINGLE_FILE, INDEX_FILE].map((name) => DISK.has(join(folder, name)));
  if ((await Promise.all(names)).includes(true)) return { folder, weightsFile: null };
  const models = await ggufModels(folder);
  return models.length === 0 ? { folder, weightsFile: null } : { gguf: onlyModel(folder, models) };
}

async function isGguf(path: string): Promise<boolean> {
  if (path.toLowerCase().endsWith(".gguf")) return true;
  const handle = await open(path, "r");
  try {
    const magic = new Uint8Array(4);
    await handle.read(magic, 0, 4, 0);
    return String.fromCharCode(...magic) === "GGUF";
  } finally {
    await handle.close();
  }
}
