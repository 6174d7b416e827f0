import {
  KV_TYPES,
  type KvType,
  layerLinears,
  linearShape,
  type ModelSpec,
  ternaryWeights,
} from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import { loadChatTemplate } from "./chat_template.ts";
import { type Checkpoint, openCheckpoint } from "./checkpoint.ts";
import { isPacked, type ModelConfig, readModelConfig, ROWS_PER_BYTE } from "./config.ts";
import { embeddedModelFolder } from "./embedded.ts";
import { readPrompts } from "./embedding_prompts.ts";
import { readGenerationDefaults } from "./generation_config.ts";
import { kvBytesPerPosition } from "./kv_cache.ts";
import { memoryNeeded, type MemoryOptions } from "./memory_needed.ts";
import { normSize, normsOf } from "./norms.ts";
import type { InspectReport, TensorType } from "./reports.ts";
import { readTokenizer } from "./tokenizer.ts";
import type { GenerationDefaults, Tokenizer } from "./types.ts";

/**
 * What a model folder holds and what running it needs, from headers alone: no weights are read.
 *
 * @param options How it would be run, as far as memory depends on it.
 *
 * @throws As `loadModel` of a damaged or unsupported model; a plain float model is described too.
 */
export async function inspectModel(
  path?: string,
  options: MemoryOptions = {},
): Promise<InspectReport> {
  await using checkpoint = await openCheckpoint(path ?? embeddedModelFolder());
  const config = await readModelConfig(checkpoint, { quantize: "absmean" });
  const tokenizer = await readTokenizer(checkpoint.companions);
  const defaults = await readGenerationDefaults(checkpoint.companions, config, tokenizer);
  const template = await loadChatTemplate(checkpoint.companions);
  const { spec } = config;
  return {
    name: config.name,
    path: checkpoint.format === "safetensors" ? checkpoint.folder : checkpoint.files[0].path,
    architecture: architectureOf(config),
    quantize: config.quantization.kind === "absmean" ? "absmean" : null,
    parameters: parametersOf(spec),
    shapes: { ...spec },
    tensorTypes: tensorTypes(checkpoint, config),
    bitsPerWeight: planOf(spec).ternaryBytes * 8 / ternaryWeights(spec),
    tokenizer: { type: TOKENIZERS[checkpoint.format], ...tokenizerOf(tokenizer, defaults) },
    chatTemplate: template?.source ?? null,
    embedding: config.task === "embed"
      ? { ...config.embedding, prompts: await readPrompts(checkpoint.companions) }
      : null,
    contextSize: config.maxPositionEmbeddings,
    memory: memoryOf(config, { ...options, layout: checkpoint.packed?.layout.name }),
  };
}

/** Where each format has its tokenizer. */
const TOKENIZERS: Readonly<Record<Checkpoint["format"], string>> = {
  safetensors: "tokenizer.json",
  gguf: "tokenizer.ggml",
  packed: "in the file",
};

function architectureOf({ modelType, quantization }: ModelConfig): string {
  if (quantization.kind === "absmean") return `${modelType}, float: runs with --quantize absmean`;
  if (quantization.kind === "ternary") {
    return `${modelType}, ternary (a factor a ${quantization.scales})`;
  }
  const { linearClass, mode } = quantization;
  return `${modelType}, ternary (${linearClass}, ${mode})`;
}

/** Weights of all kinds. */
export function parametersOf(spec: ModelSpec): number {
  const { hiddenSize, headDim, experts } = spec;
  const matrices = (spec.tieWordEmbeddings ? 1 : 2) * spec.vocabSize * hiddenSize;
  const sum = (sizes: readonly number[]) => sizes.reduce((a, b) => a + b, 0);
  const inputs = spec.linearNormEps === null ? [] : layerLinears(spec);
  const layer = sum(normsOf(spec).map((which) => normSize(spec, which))) +
    sum(inputs.map((name) => linearShape(spec, name).k)) +
    (spec.qkNorm ? 2 * headDim : 0) + (experts?.numExperts ?? 0) * hiddenSize;
  return ternaryWeights(spec) + matrices + spec.numHiddenLayers * layer + hiddenSize;
}

/** Tensors by type; packed U8 tensors hold four weights a byte. */
function tensorTypes(checkpoint: Checkpoint, config: ModelConfig): TensorType[] {
  const types = new Map<string, TensorType>();
  for (const { dtype, shape, byteLength } of checkpoint.tensors.values()) {
    const elements = shape.reduce((product, size) => product * size, 1);
    const perElement = dtype === "U8" && isPacked(config.quantization) ? ROWS_PER_BYTE : 1;
    const entry = types.get(dtype) ?? { type: dtype, tensors: 0, weights: 0, bytes: 0 };
    entry.tensors++;
    entry.weights += elements * perElement;
    entry.bytes += byteLength;
    types.set(dtype, entry);
  }
  return [...types.values()].sort((a, b) => b.bytes - a.bytes);
}

function tokenizerOf(tokenizer: Tokenizer, defaults: GenerationDefaults) {
  const text = (id: number) => tokenizer.tokenText(id) ?? `id ${id}`;
  return {
    vocabSize: tokenizer.vocabSize,
    bosToken: defaults.bosTokenId === null ? null : text(defaults.bosTokenId),
    eosTokens: defaults.eosTokenIds.map(text),
  };
}

function memoryOf(config: ModelConfig, options: MemoryOptions) {
  return {
    ...memoryNeeded(config, options),
    kvBytesPerTokenByType: Object.fromEntries(
      KV_TYPES.map((kvType) => [kvType, kvBytesPerPosition(config.spec, kvType)]),
    ) as Record<KvType, number>,
  };
}
