/**
 * A checkpoint as Hugging Face folders keep it: config.json beside model.safetensors, or beside
 * model.safetensors.index.json and the shards that it names; or a GGUF file, which holds all that
 * itself. Gives one map of all tensors.
 */
import { createHash } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { type Companions, folderCompanions } from "./companions.ts";
import { CheckpointError, reasonOf, shown, shownList } from "./errors.ts";
import { ggufModels, type GgufOptions, onlyModel, openGguf } from "./gguf/checkpoint.ts";
import { locateModel } from "./hub/locate.ts";
import { isJsonObject, isMissing, parseJson, readTextFile } from "./json.ts";
import { openSafetensors, type SafetensorsFile } from "./safetensors.ts";
import type { TensorInfo, WeightFile } from "./tensors.ts";
import { isTrilithFile, openTrilithFile, type PackedModel } from "./trilith/file.ts";
import type { Allocate } from "./weights.ts";

const SINGLE_FILE = "model.safetensors";
const INDEX_FILE = "model.safetensors.index.json";
const CONFIG_FILE = "config.json";

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
  const { folder, weightsFile } = located;
  const configText = await readTextFile(join(folder, CONFIG_FILE));
  if (configText === null) {
    throw new CheckpointError(
      `Cannot open ${shown(folder)}: it has no ${CONFIG_FILE}, give the folder of a whole model`,
    );
  }
  const { files, owners } = await openWeightFiles(folder, weightsFile);
  return new OpenCheckpoint(folder, configText, files, owners);
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
  const names = [SINGLE_FILE, INDEX_FILE].map((name) => exists(join(folder, name)));
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

interface OpenedFiles {
  files: SafetensorsFile[];
  owners: Map<string, SafetensorsFile>;
}

async function openWeightFiles(folder: string, weightsFile: string | null): Promise<OpenedFiles> {
  const single = weightsFile ?? SINGLE_FILE;
  if (weightsFile !== null || await exists(join(folder, single))) {
    const file = await openSafetensors(join(folder, single));
    return { files: [file], owners: new Map([...file.tensors.keys()].map((n) => [n, file])) };
  }
  const indexText = await readTextFile(join(folder, INDEX_FILE));
  if (indexText === null) throw await noWeightsError(folder);
  return await openShards(folder, parseWeightMap(indexText));
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}

async function noWeightsError(folder: string): Promise<CheckpointError> {
  for (const name of ["pytorch_model.bin", "pytorch_model.bin.index.json"]) {
    if (await exists(join(folder, name))) {
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

async function openShards(folder: string, shards: Map<string, string>): Promise<OpenedFiles> {
  const files: SafetensorsFile[] = [];
  try {
    for (const name of new Set(shards.values())) {
      files.push(await openSafetensors(join(folder, name)));
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

class OpenCheckpoint implements Checkpoint {
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
    files: readonly SafetensorsFile[],
    owners: ReadonlyMap<string, SafetensorsFile>,
  ) {
    this.folder = folder;
    this.name = nameOf(folder);
    this.configText = configText;
    this.companions = folderCompanions(folder);
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
