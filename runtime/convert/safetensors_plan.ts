/** A model as a folder that transformers opens: packed codes in safetensors files, and what is beside. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type FloatType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
} from "../../codegen/model_spec.ts";
import type { CompanionName } from "../companions.ts";
import { isPacked, type ModelConfig } from "../config.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import { isJsonObject, isMissing, type JsonObject, parseJson } from "../json.ts";
import { INPUT_GROUP_KEY } from "../quantization.ts";
import type { FloatMatrix } from "../weights.ts";
import { FLOAT_BYTES, floatsAs, matrixChunks } from "./floats.ts";
import { type Part, type PlannedFile, rowChunks, whole } from "./plan.ts";
import { packQuarters } from "./quarters.ts";
import { type Source, type TernaryMatrix, ternaryMatrix } from "./source.ts";

export interface SafetensorsOptions {
  /** Default: as the model has them. */
  embeddingType?: FloatType;
  /** Bytes that no file of weights is to exceed, but for a single tensor that does. */
  splitMaxBytes?: number;
  /** Told of each matrix before it is written. */
  onMatrix?: (matrix: TernaryMatrix) => void;
}

/** A tensor that knows how it is made. */
interface Planned extends Pick<Part, "chunks"> {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

/** The size at which transformers itself begins a new file. */
const SHARD_BYTES = 5e9;

const DTYPES: Readonly<Record<FloatType, string>> = { f32: "F32", f16: "F16", bf16: "BF16" };
const ELEMENT_BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, U8: 1 };

const COMPANIONS: readonly CompanionName[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
  "chat_template.jinja",
  "tokenizer.model",
  "modules.json",
  "1_Pooling/config.json",
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
  const config = new TextEncoder().encode(configText(source));
  return [
    textFile("config.json", config),
    ...await companionFiles(source),
    ...weightFiles(tensorsOf(source, options), options.splitMaxBytes ?? SHARD_BYTES),
  ];
}

function textFile(name: string, head: Uint8Array): PlannedFile {
  return { name, head, parts: [], bytes: head.length };
}

function refuse({ checkpoint: { format }, config: { spec } }: Source): void {
  if (format === "packed") {
    throw new UnsupportedModelError(
      "Cannot write packed safetensors from a .trilith file, which keeps no names of tensors: " +
        "convert what it was made from",
    );
  }
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

/** `bitlinear` divides by weight_scale and `autobitlinear` multiplies, a bias too. */
function linearClassOf({ quantization, spec }: ModelConfig): "bitlinear" | "autobitlinear" {
  if (quantization.kind === "bitnet" && quantization.mode === "offline") {
    return quantization.linearClass;
  }
  return spec.biases.length > 0 ? "bitlinear" : "autobitlinear";
}

/** What is left of a factor: a reciprocal of a reciprocal may be its neighbour. */
export function writtenScale(config: ModelConfig, factor: number): number {
  const isKept = isPacked(config.quantization) || linearClassOf(config) === "autobitlinear";
  return isKept ? factor : Math.fround(1 / Math.fround(1 / factor));
}

function configText({ checkpoint, config }: Source): string {
  const json = parseJson(checkpoint.configText, "config.json") as JsonObject;
  const before = isJsonObject(json.quantization_config ?? null)
    ? json.quantization_config as JsonObject
    : {};
  const { linearNormEps } = config.spec;
  const norms = linearNormEps === null ? {} : { use_rms_norm: true, rms_norm_eps: linearNormEps };
  const quantization = {
    quant_method: "bitnet",
    linear_class: linearClassOf(config),
    quantization_mode: "offline",
    modules_to_not_convert: before.modules_to_not_convert ?? ["lm_head"],
    ...norms,
  };
  const { groups } = config.spec;
  const inputs = groups === undefined ? {} : { [INPUT_GROUP_KEY]: groups.size };
  const written = { ...withKnownRope(json), ...inputs, quantization_config: quantization };
  return `${JSON.stringify(written, null, 2)}\n`;
}

/**
 * What a GGUF file divides frequencies by, as a type of transformers: "longrope" with one table for
 * short and long contexts, and no change of the attention.
 */
function withKnownRope(json: JsonObject): JsonObject {
  const scaling = json.rope_scaling ?? null;
  if (!isJsonObject(scaling) || scaling.rope_type !== "divisors") return json;
  const rope = {
    rope_type: "longrope",
    short_factor: scaling.divisors,
    long_factor: scaling.divisors,
    original_max_position_embeddings: json.max_position_embeddings,
    attention_factor: 1,
  };
  return { ...json, rope_scaling: rope };
}

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

// ---------------------------------------------------------------- tensors

function tensorsOf(source: Source, options: SafetensorsOptions): Planned[] {
  const { config: { spec, tensorNames } } = source;
  const planned: Planned[] = [];
  const done = new Set<string>();
  const factors = new Map<string, number>();
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const name of LINEAR_NAMES) {
      const path = tensorNames.linear(layer, name);
      done.add(`${path}.weight`).add(`${path}.weight_scale`);
      planned.push(...linearTensors(source, layer, name, factors, options));
    }
  }
  for (const [name, { dtype, shape }] of source.checkpoint.tensors) {
    if (done.has(name)) continue;
    const matrix = matrixOf(source, name);
    planned.push(
      matrix === null ? copied(source, name, dtype, shape) : converted(name, matrix, options),
    );
  }
  return planned.sort((a, b) => orderOf(a) - orderOf(b));
}

/**
 * Wider elements first, so that all are aligned, as safetensors' own writer has them; factors last,
 * when they are known. Rows of codes are multiples of 4 bytes.
 */
function orderOf({ name, dtype }: Planned): number {
  return name.endsWith(".weight_scale") ? 0 : -ELEMENT_BYTES[dtype];
}

function matrixOf({ config, weights }: Source, name: string): FloatMatrix | null {
  const { tensorNames: { embedding, head }, spec } = config;
  if (name === embedding) return weights.embedding();
  return name === head && !spec.tieWordEmbeddings ? weights.head() : null;
}

function converted(name: string, matrix: FloatMatrix, { embeddingType }: SafetensorsOptions) {
  const { rows, columns } = matrix;
  const type = embeddingType ?? matrix.type;
  return {
    name,
    dtype: DTYPES[type],
    shape: [rows, columns],
    bytes: rows * columns * FLOAT_BYTES[type],
    chunks: () => matrixChunks(matrix, type, name),
  };
}

/** A tensor as it is. */
function copied(
  { checkpoint }: Source,
  name: string,
  dtype: string,
  shape: readonly number[],
): Planned {
  if (!(dtype in ELEMENT_BYTES)) {
    throw new UnsupportedModelError(
      `Cannot write packed safetensors: ${shown(name)} must be F32, F16 or BF16: ` +
        `current value is ${dtype}`,
    );
  }
  const { byteLength: bytes } = checkpoint.tensors.get(name)!;
  async function* chunks() {
    for (const { first, count } of rowChunks(bytes, 1)) {
      yield await checkpoint.readRange(name, first, count);
    }
  }
  return { name, dtype, shape, bytes, chunks };
}

function linearTensors(
  source: Source,
  layer: number,
  name: LinearName,
  factors: Map<string, number>,
  { onMatrix }: SafetensorsOptions,
): Planned[] {
  const { config } = source;
  const { n, k } = linearShape(config.spec, name);
  const path = config.tensorNames.linear(layer, name);
  const shape = [Math.ceil(n / 4), k];
  const packed = async () => {
    const matrix = await ternaryMatrix(source, layer, name);
    onMatrix?.(matrix);
    factors.set(path, matrix.factors[0]);
    return packQuarters(matrix.codes, n, k);
  };
  const weight = {
    name: `${path}.weight`,
    dtype: "U8",
    shape,
    bytes: shape[0] * k,
    chunks: () => whole(packed()),
  };
  const factor = async () =>
    factors.get(path) ?? (await ternaryMatrix(source, layer, name)).factors[0];
  return [weight, scaleTensor(source, `${path}.weight_scale`, factor)];
}

/** What is there already stays, bit for bit. Else float32, as bfloat16 would round most factors. */
function scaleTensor(source: Source, name: string, factor: () => Promise<number>): Planned {
  const stored = source.checkpoint.tensors.get(name);
  if (isPacked(source.config.quantization) && stored !== undefined) {
    return copied(source, name, stored.dtype, stored.shape);
  }
  const divides = linearClassOf(source.config) === "bitlinear";
  const value = async () => {
    const scale = await factor();
    return floatsAs(Float32Array.of(divides ? 1 / scale : scale), "f32");
  };
  return { name, dtype: "F32", shape: [1], bytes: 4, chunks: () => whole(value()) };
}

// ---------------------------------------------------------------- files of weights

function weightFiles(tensors: readonly Planned[], most: number): PlannedFile[] {
  const shards = shardsOf(tensors, most);
  if (shards.length === 1) return [weightFile("model.safetensors", shards[0])];
  const five = (value: number) => String(value).padStart(5, "0");
  const names = shards.map((_, i) => `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`);
  const files = shards.map((shard, i) => weightFile(names[i], shard));
  return [indexFile(shards, names), ...files];
}

function shardsOf(tensors: readonly Planned[], most: number): Planned[][] {
  const shards: Planned[][] = [[]];
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

function indexFile(shards: readonly Planned[][], names: readonly string[]): PlannedFile {
  const total = shards.flat().reduce((sum, { bytes }) => sum + bytes, 0);
  const entries = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]]));
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(entries) };
  const text = `${JSON.stringify(index, null, 2)}\n`;
  return textFile("model.safetensors.index.json", new TextEncoder().encode(text));
}

/** Header and data as safetensors has them: no holes, and the data at a multiple of 8 bytes. */
function weightFile(name: string, tensors: readonly Planned[]): PlannedFile {
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
