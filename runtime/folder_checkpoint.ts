/** A folder of safetensors files with their config.json as a Checkpoint. */
import { basename, join } from "node:path";
import type { Checkpoint } from "./checkpoint.ts";
import { type Companions, folderCompanions } from "./companions.ts";
import { CheckpointError, shown, shownList } from "./errors.ts";
import { isJsonObject, parseJson } from "./json.ts";
import { isMlx, MlxCheckpoint } from "./mlx/checkpoint.ts";
import { DISK, type ModelFiles } from "./model_files.ts";
import { openSafetensors, type SafetensorsFile } from "./safetensors.ts";
import type { TensorInfo } from "./tensors.ts";
import type { Allocate } from "./weights.ts";

export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";
const CONFIG_FILE = "config.json";

/**
 * @param weightsFile Name of the file of all weights; null for model.safetensors or what the index names.
 * @throws As `openCheckpoint`; and if MLX packed its matrices in a way that is not read.
 */
export async function openFolder(
  folder: string,
  weightsFile: string | null,
  files: ModelFiles = DISK,
): Promise<Checkpoint> {
  const configText = await files.text(join(folder, CONFIG_FILE));
  if (configText === null) {
    throw new CheckpointError(
      `Cannot open ${shown(folder)}: it has no ${CONFIG_FILE}, give the folder of a whole model`,
    );
  }
  const opened = await openWeightFiles(folder, weightsFile, files);
  const companions = folderCompanions(folder, files.text);
  const checkpoint = new FolderCheckpoint(folder, configText, opened, companions);
  try {
    return isMlx(checkpoint) ? new MlxCheckpoint(checkpoint) : checkpoint;
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

interface OpenedFiles {
  files: SafetensorsFile[];
  owners: Map<string, SafetensorsFile>;
}

async function openWeightFiles(
  folder: string,
  weightsFile: string | null,
  disk: ModelFiles,
): Promise<OpenedFiles> {
  const single = weightsFile ?? SINGLE_FILE;
  if (weightsFile !== null || await disk.has(join(folder, single))) {
    const file = await openSafetensors(join(folder, single), disk.open);
    return { files: [file], owners: new Map([...file.tensors.keys()].map((n) => [n, file])) };
  }
  const indexText = await disk.text(join(folder, INDEX_FILE));
  if (indexText === null) throw await noWeightsError(folder, disk);
  return await openShards(folder, parseWeightMap(indexText), disk);
}

async function noWeightsError(folder: string, disk: ModelFiles): Promise<CheckpointError> {
  for (const name of ["pytorch_model.bin", "pytorch_model.bin.index.json"]) {
    if (await disk.has(join(folder, name))) {
      return new CheckpointError(
        `Cannot open ${shown(folder)}: ${name} is a Python pickle, which is not read: ` +
          `save the model with transformers' save_pretrained(..., safe_serialization=True)`,
      );
    }
  }
  return new CheckpointError(
    `Cannot open ${shown(folder)}: it has neither ${SINGLE_FILE} nor ${INDEX_FILE}`,
  );
}

/**
 * The tensor to shard map of an index file.
 * @throws {CheckpointError} If it is malformed or a shard lies outside of the folder.
 */
export function parseWeightMap(text: string): Map<string, string> {
  const index = parseJson(text, INDEX_FILE);
  const weightMap = isJsonObject(index) ? index.weight_map : undefined;
  if (!isJsonObject(weightMap)) {
    throw new CheckpointError(`Cannot read ${INDEX_FILE}: weight_map must be an object`);
  }
  const shards = new Map<string, string>();
  for (const [tensor, file] of Object.entries(weightMap)) {
    if (!isShardName(file)) {
      throw new CheckpointError(
        `Cannot read ${INDEX_FILE}: ${shown(tensor)} must be in a .safetensors file of the same ` +
          `folder: current value is ${shown(file)}`,
      );
    }
    shards.set(tensor, file);
  }
  if (shards.size === 0) throw new CheckpointError(`Cannot read ${INDEX_FILE}: it names no tensor`);
  return shards;
}

/** Names only: a path of any kind could leave the folder. */
function isShardName(file: unknown): file is string {
  return typeof file === "string" && /^[\w][\w.\-]{0,250}\.safetensors$/.test(file) &&
    !file.includes("..");
}

async function openShards(
  folder: string,
  shards: Map<string, string>,
  disk: ModelFiles,
): Promise<OpenedFiles> {
  const files: SafetensorsFile[] = [];
  try {
    for (const name of new Set(shards.values())) {
      files.push(await openSafetensors(join(folder, name), disk.open));
    }
    return { files, owners: ownersOf(files, shards) };
  } catch (error) {
    await Promise.all(files.map((file) => file.close()));
    throw error;
  }
}

/** Which file holds each tensor: exactly the one that the index names. */
function ownersOf(files: readonly SafetensorsFile[], shards: Map<string, string>) {
  const owners = new Map<string, SafetensorsFile>();
  for (const file of files) {
    for (const name of file.tensors.keys()) {
      if (shards.get(name) !== basename(file.path)) {
        throw new CheckpointError(
          `Cannot read ${shown(basename(file.path))}: it holds ${shown(name)}, which ` +
            `${INDEX_FILE} puts in ${shown(shards.get(name) ?? "no file")}`,
        );
      }
      owners.set(name, file);
    }
  }
  const missing = [...shards.keys()].filter((name) => !owners.has(name));
  if (missing.length > 0) {
    throw new CheckpointError(
      `Cannot open the checkpoint: the shards lack ${shownList(missing)}, which ` +
        `${INDEX_FILE} names: download it again`,
    );
  }
  return owners;
}

/** The folder's name; in the hub's cache that is a hash, and the model's id is further up. */
function nameOf(folder: string): string {
  const cached = /models--([^\\/]+)[\\/]snapshots[\\/][^\\/]+$/.exec(folder);
  return cached === null ? basename(folder) : cached[1].replaceAll("--", "/");
}

class FolderCheckpoint implements Checkpoint {
  readonly folder: string;
  readonly name: string;
  readonly format = "safetensors";
  readonly configText: string;
  readonly companions: Companions;
  readonly files: readonly SafetensorsFile[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #owners: ReadonlyMap<string, SafetensorsFile>;

  constructor(
    folder: string,
    configText: string,
    { files, owners }: OpenedFiles,
    companions: Companions,
  ) {
    this.folder = folder;
    this.name = nameOf(folder);
    this.configText = configText;
    this.companions = companions;
    this.files = files;
    this.tensors = new Map([...owners].map(([name, file]) => [name, file.tensors.get(name)!]));
    this.#owners = owners;
  }

  async read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#owner(name).read(name, allocate);
  }

  async readRange(
    name: string,
    start: number,
    length: number,
    allocate?: Allocate,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#owner(name).readRange(name, start, length, allocate);
  }

  async close(): Promise<void> {
    await Promise.all(this.files.map((file) => file.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #owner(name: string): SafetensorsFile {
    const owner = this.#owners.get(name);
    if (owner !== undefined) return owner;
    throw new CheckpointError(`Cannot read ${shown(this.folder)}: no tensor ${shown(name)} in it`);
  }
}
