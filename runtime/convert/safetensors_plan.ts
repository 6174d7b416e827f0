/** A model as a folder that transformers opens: packed codes in safetensors files, and what is beside. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { CompanionName } from "../companions.ts";
import { UnsupportedModelError } from "../errors.ts";
import { isMissing } from "../json.ts";
import type { PlannedFile } from "./plan.ts";
import { packedConfigText } from "./safetensors_config.ts";
import { packedTensors, type PlannedTensor, type TensorOptions } from "./safetensors_tensors.ts";
import type { Source } from "./source.ts";

export interface SafetensorsOptions extends TensorOptions {
  /** Bytes that no file of weights is to exceed, but for a single tensor that does. */
  splitMaxBytes?: number;
}

/** The size at which transformers itself begins a new file. */
const SHARD_BYTES = 5e9;

const COMPANIONS: readonly CompanionName[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
  "chat_template.jinja",
  "tokenizer.model",
  "modules.json",
  "1_Pooling/config.json",
  "config_sentence_transformers.json",
];

/**
 * All files of the folder.
 *
 * @throws {UnsupportedModelError} If transformers' packed form can't hold the model.
 */
export async function planSafetensors(
  source: Source,
  options: SafetensorsOptions,
): Promise<PlannedFile[]> {
  refuse(source);
  const config = new TextEncoder().encode(await packedConfigText(source));
  return [
    textFile("config.json", config),
    ...await companionFiles(source),
    ...weightFiles(packedTensors(source, options), options.splitMaxBytes ?? SHARD_BYTES),
  ];
}

function textFile(name: string, head: Uint8Array): PlannedFile {
  return { name, head, parts: [], bytes: head.length };
}

function refuse({ config: { spec } }: Source): void {
  const scales = spec.groups?.weightScales ? "a group" : spec.rowScales ? "a row" : null;
  const has = spec.experts !== undefined
    ? "experts"
    : spec.ternaryHead
    ? "a ternary head"
    : scales === null
    ? null
    : `a factor ${scales}`;
  if (has === null) return;
  throw new UnsupportedModelError(
    `Cannot write packed safetensors: transformers' form has one factor a matrix and its linears ` +
      `only, this model has ${has}: use --to packed`,
  );
}

// ---------------------------------------------------------------- files beside the weights

async function companionFiles({ checkpoint }: Source): Promise<PlannedFile[]> {
  const files: PlannedFile[] = [];
  for (const name of COMPANIONS) {
    const bytes = checkpoint.format === "safetensors"
      ? await fileBytes(join(checkpoint.folder, name))
      : await checkpoint.companions.text(name).then((text) =>
        text === null ? null : new TextEncoder().encode(text)
      );
    if (bytes !== null) files.push(textFile(name, bytes));
  }
  return files;
}

async function fileBytes(path: string): Promise<Uint8Array | null> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

// ---------------------------------------------------------------- files of weights

function weightFiles(tensors: readonly PlannedTensor[], most: number): PlannedFile[] {
  const shards = shardsOf(tensors, most);
  if (shards.length === 1) return [weightFile("model.safetensors", shards[0])];
  const five = (value: number) => String(value).padStart(5, "0");
  const names = shards.map((_, i) => `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`);
  const files = shards.map((shard, i) => weightFile(names[i], shard));
  return [indexFile(shards, names), ...files];
}

function shardsOf(tensors: readonly PlannedTensor[], most: number): PlannedTensor[][] {
  const shards: PlannedTensor[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    if (size > 0 && size + tensor.bytes > most) {
      shards.push([]);
      size = 0;
    }
    shards[shards.length - 1].push(tensor);
    size += tensor.bytes;
  }
  return shards;
}

function indexFile(shards: readonly PlannedTensor[][], names: readonly string[]): PlannedFile {
  const total = shards.flat().reduce((sum, { bytes }) => sum + bytes, 0);
  const entries = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]]));
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(entries) };
  const text = `${JSON.stringify(index, null, 2)}\n`;
  return textFile("model.safetensors.index.json", new TextEncoder().encode(text));
}

/** Header and data as safetensors has them: no holes, and the data at a multiple of 8 bytes. */
function weightFile(name: string, tensors: readonly PlannedTensor[]): PlannedFile {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end += bytes] };
  }
  const text = JSON.stringify(header);
  const encoded = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const head = new Uint8Array(8 + encoded.length);
  new DataView(head.buffer).setBigUint64(0, BigInt(encoded.length), true);
  head.set(encoded, 8);
  let offset = head.length;
  const parts = tensors.map(({ name, bytes, chunks }) => {
    offset += bytes;
    return { what: name, offset: offset - bytes, bytes, chunks };
  });
  return { name, head, parts, bytes: offset };
}
