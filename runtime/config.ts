/**
 * What a checkpoint's config.json and tensor names say about the model, checked against the
 * tensors' real shapes, so that nothing is ever allocated from a number that a file only claims.
 * What architectures differ in is in `models/`, a file each.
 */
import { type HiddenAct, LINEAR_NAMES, type ModelSpec } from "../codegen/model_spec.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { ConfigReader } from "./config_reader.ts";
import { CheckpointError, shown, shownList, UnsupportedModelError } from "./errors.ts";
import { checkTensors, matrixTypeOf } from "./expected_tensors.ts";
import { isJsonObject, type Json, parseJson } from "./json.ts";
import { architectureOf } from "./models/all.ts";
import type {
  Architecture,
  Defaults,
  ModelShape,
  ModelType,
  Tensors,
} from "./models/architecture.ts";
import {
  factorParts,
  isTernaryMaster,
  type Quantization,
  type QuantizationOptions,
  readQuantization,
} from "./quantization.ts";
import { readRopeScaling, type RopeScaling } from "./rope_scaling.ts";
import { type TensorNames, tensorNamesOf } from "./tensor_names.ts";
import { ternaryGrain } from "./ternary_grain.ts";

export type { RopeScaling } from "./rope_scaling.ts";
export type { TensorNames } from "./tensor_names.ts";
export { floatTypeOf } from "./expected_tensors.ts";
export { isPacked, type Quantization, ROWS_PER_BYTE } from "./quantization.ts";

export interface ModelConfig {
  spec: ModelSpec;
  /** For people: the folder's name. */
  name: string;
  modelType: ModelType;
  /** What the model is for: to continue texts, or to give their embeddings. */
  task: "generate" | "embed";
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  maxPositionEmbeddings: number;
  quantization: Quantization;
  tensorNames: TensorNames;
  /** bos_token_id and eos_token_id of config.json; generation_config.json may say more. */
  bosTokenId: number | null;
  eosTokenIds: number[];
  /** Oddities that a person may want to know, one sentence each. */
  notes: string[];
}

export interface ConfigOptions extends QuantizationOptions {
  name?: string;
}

const MAX_HIDDEN = 1_000_000;
const MAX_LAYERS = 10_000;
const MAX_VOCAB = 10_000_000;
const MAX_HEADS = 100_000;
const MAX_POSITIONS = 2 ** 31 - 1;

/**
 * @throws {CheckpointError} If config.json is malformed or does not fit the tensors.
 * @throws {UnsupportedModelError} If the model is of a kind that this version does not run.
 * @throws {NotTernaryError} If it is a plain float model and `quantize` is not set.
 */
export async function readModelConfig(
  checkpoint: Checkpoint,
  options: ConfigOptions = {},
): Promise<ModelConfig> {
  const json = parseJson(checkpoint.configText, "config.json");
  const grain = saysHowWeightsAre(json) ? null : await ternaryGrain(checkpoint);
  return parseModelConfig(json, checkpoint.tensors, { name: checkpoint.name, grain, ...options });
}

/** Otherwise the weights themselves are asked. */
function saysHowWeightsAre(json: Json): boolean {
  if (!isJsonObject(json)) return true;
  const config = new ConfigReader(json, "config.json");
  return config.has("quantization_config") || isTernaryMaster(config);
}

/** As `readModelConfig`, from a parsed config.json and the header's tensors. */
export function parseModelConfig(
  json: Json,
  tensors: Tensors,
  options: ConfigOptions = {},
): ModelConfig {
  if (!isJsonObject(json)) {
    throw new CheckpointError("Cannot use config.json: it must be a JSON object");
  }
  const config = new ConfigReader(json, "config.json");
  const architecture = architectureOf(config);
  refuseOtherArchitectures(config, architecture, tensors);
  const notes: string[] = [];
  const tied = readTied(config, tensors, notes);
  const tensorNames = tensorNamesOf(architecture, tensors, tied);
  const quantization = readQuantization(config, tensors, tensorNames, options);
  const shape = readShape(config, architecture.defaults);
  const spec: ModelSpec = {
    ...shape,
    subNorms: architecture.subNorms ?? tensors.has(tensorNames.norm(0, "attnSub")),
    linearNormEps: readLinearNormEps(config, quantization),
    biases: LINEAR_NAMES.filter((name) => tensors.has(`${tensorNames.linear(0, name)}.bias`)),
    tieWordEmbeddings: tied,
    embeddingType: matrixTypeOf(tensors, tensorNames.embedding),
    headType: matrixTypeOf(tensors, tensorNames.head),
    ...architecture.graph?.({ config, tensors, shape }),
  };
  Object.assign(spec, factorParts(quantization, spec.experts !== undefined));
  checkTensors(spec, quantization, tensorNames, tensors);
  return {
    spec,
    name: options.name ?? "model",
    modelType: architecture.modelType,
    task: "generate",
    ...readRope(config, architecture.defaults),
    quantization,
    tensorNames,
    bosTokenId: config.tokenIds("bos_token_id", spec.vocabSize)[0] ?? null,
    eosTokenIds: config.tokenIds("eos_token_id", spec.vocabSize),
    notes,
  };
}

/** Tensors that some graphs have: one that does not would run wrongly. */
const FOREIGN_TENSOR =
  /\.(q_norm|k_norm|experts|block_sparse_moe|router|pre_feedforward_layernorm|post_feedforward_layernorm|rotary_emb\.(long|short)_factor|lora_A|lora_B)(\.|$)|_proj\.(qweight|qzeros|SCB|absmax)$/;

function refuseOtherArchitectures(
  config: ConfigReader,
  { ownTensors }: Architecture,
  tensors: Tensors,
): void {
  const foreign = [...tensors.keys()].filter((name) =>
    FOREIGN_TENSOR.test(name) && !ownTensors?.test(name)
  );
  if (foreign.length > 0) {
    throw new UnsupportedModelError(
      `Cannot run this model: it has tensors of another architecture: ${shownList(foreign)}`,
    );
  }
  const rotary = config.number("partial_rotary_factor", 0, 1, 1);
  if (rotary !== 1) {
    throw new UnsupportedModelError(
      `Cannot run this model: partial_rotary_factor must be 1: current value is ${rotary}`,
    );
  }
}

/** The tensors decide: a head that is there but tied goes unused, one that is missing is tied. */
function readTied(config: ConfigReader, tensors: Tensors, notes: string[]): boolean {
  const hasHead = tensors.has("lm_head.weight");
  const tied = config.flag("tie_word_embeddings", !hasHead);
  if (tied && hasHead) {
    notes.push("config.json ties the head to the embedding, so lm_head.weight is not used");
  }
  if (!tied && !hasHead) {
    notes.push("lm_head.weight is missing, so the head is tied to the embedding");
  }
  return tied || !hasHead;
}

function readShape(
  config: ConfigReader,
  defaults: Defaults,
): ModelShape {
  const hiddenSize = config.count("hidden_size", MAX_HIDDEN);
  const numAttentionHeads = config.count("num_attention_heads", MAX_HEADS);
  const numKeyValueHeads = config.count("num_key_value_heads", MAX_HEADS, numAttentionHeads);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    config.fail("num_key_value_heads", `a divisor of ${numAttentionHeads}`, numKeyValueHeads);
  }
  return {
    hiddenSize,
    intermediateSize: config.count("intermediate_size", MAX_HIDDEN),
    numHiddenLayers: config.count("num_hidden_layers", MAX_LAYERS),
    numAttentionHeads,
    numKeyValueHeads,
    headDim: readHeadDim(config, hiddenSize, numAttentionHeads),
    vocabSize: config.count("vocab_size", MAX_VOCAB),
    rmsNormEps: config.number("rms_norm_eps", 0, 1, defaults.rmsNormEps),
    hiddenAct: readHiddenAct(config, defaults),
  };
}

function readHeadDim(config: ConfigReader, hiddenSize: number, heads: number): number {
  if (!config.has("head_dim") && hiddenSize % heads !== 0) {
    config.fail("num_attention_heads", `a divisor of hidden_size ${hiddenSize}`, heads);
  }
  const headDim = config.count("head_dim", MAX_HIDDEN, hiddenSize / heads);
  if (headDim % 2 !== 0) config.fail("head_dim", "even, as RoPE turns pairs", headDim);
  if (headDim * heads > MAX_HIDDEN) {
    config.fail("head_dim", `at most ${MAX_HIDDEN} over all heads`, headDim * heads);
  }
  return headDim;
}

function readHiddenAct(config: ConfigReader, defaults: Defaults): HiddenAct {
  const name = config.string("hidden_act") ?? defaults.hiddenAct;
  if (name === "relu2") return "relu2";
  if (name === "silu" || name === "swish") return "silu";
  throw new UnsupportedModelError(
    `Cannot run this model: hidden_act must be "relu2" or "silu": current value is ${shown(name)}`,
  );
}

function readLinearNormEps(config: ConfigReader, quantization: Quantization): number | null {
  if (quantization.kind !== "bitnet" || !quantization.useRmsNorm) return null;
  return config.child("quantization_config")!.number("rms_norm_eps", 0, 1, 1e-6);
}

/** transformers 5 keeps rope_theta and the scaling together in rope_parameters. */
function readRope(config: ConfigReader, defaults: Defaults) {
  const parameters = config.child("rope_parameters");
  const holder = parameters?.has("rope_theta") ? parameters : config;
  const maxPositionEmbeddings = config.count("max_position_embeddings", MAX_POSITIONS, 2048);
  return {
    ropeTheta: holder.number("rope_theta", 1, 1e30, defaults.ropeTheta),
    ropeScaling: readRopeScaling(parameters ?? config.child("rope_scaling"), maxPositionEmbeddings),
    maxPositionEmbeddings,
  };
}
