/**
 * What a checkpoint's config.json and tensor names say about the model, checked against the
 * tensors' real shapes, so that nothing is ever allocated from a number that a file only claims.
 *
 * Sources: transformers' configuration_llama.py, configuration_bitnet.py, integrations/bitnet.py;
 * 1bitLLM's configuration_bitnet.py (weight_bits, input_bits).
 */
import {
  type FloatType,
  type HiddenAct,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../codegen/model_spec.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { ConfigReader } from "./config_reader.ts";
import {
  CheckpointError,
  NotTernaryError,
  shown,
  shownList,
  UnsupportedModelError,
} from "./errors.ts";
import { isJsonObject, type Json, parseJson } from "./json.ts";
import { readRopeScaling, type RopeScaling } from "./rope_scaling.ts";
import type { TensorInfo } from "./tensors.ts";
import type { NormName } from "./weights.ts";

export type { RopeScaling } from "./rope_scaling.ts";

/**
 * How linears are kept. `bitnet` is transformers' quant_method of that name: `offline` weights are
 * packed codes (U8), `online` ones float masters that are ternarised when read. `absmean` is a
 * float model that the caller asked to ternarise. `ternary` weights are ternary as they stand: GGUF's
 * types for them, or floats of which every matrix, row or group has one magnitude.
 */
export type Quantization =
  | {
    kind: "bitnet";
    /** `bitlinear` divides by weight_scale, `autobitlinear` multiplies: same tensor, reciprocal. */
    linearClass: "bitlinear" | "autobitlinear";
    mode: "offline" | "online";
    useRmsNorm: boolean;
  }
  | { kind: "absmean" }
  | {
    kind: "ternary";
    /** What has a factor of its own. */
    scales: "matrix" | "row" | "group";
    /** Features of a group of weights; null where those have none. */
    groupSize: number | null;
  };

/** Names of the tensors of a checkpoint; `layer` counts from 0. */
export interface TensorNames {
  embedding: string;
  finalNorm: string;
  /** Equal to `embedding` when tied. */
  head: string;
  /** Name of a linear without its last part, for example `model.layers.0.mlp.up_proj`. */
  linear(layer: number, name: LinearName): string;
  norm(layer: number, which: NormName): string;
}

const NORM_NAMES = ["input", "postAttention", "attnSub", "ffnSub"] as const;

export interface ModelConfig {
  spec: ModelSpec;
  /** For people: the folder's name. */
  name: string;
  modelType: "bitnet" | "llama";
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

export interface ConfigOptions {
  /** Accept a plain float model and ternarise its linears. */
  quantize?: "absmean";
  name?: string;
}

type Tensors = ReadonlyMap<string, Pick<TensorInfo, "dtype" | "shape">>;

const MODEL_TYPES = ["bitnet", "llama"] as const;
const MAX_HIDDEN = 1_000_000;
const MAX_LAYERS = 10_000;
const MAX_VOCAB = 10_000_000;
const MAX_HEADS = 100_000;
const MAX_POSITIONS = 2 ** 31 - 1;
/** Packed codes: four output rows to a byte. */
export const ROWS_PER_BYTE = 4;

/** Class defaults of transformers, for keys that a config.json leaves out. */
const DEFAULTS = {
  bitnet: { rmsNormEps: 1e-5, ropeTheta: 500000, hiddenAct: "relu2" },
  llama: { rmsNormEps: 1e-6, ropeTheta: 10000, hiddenAct: "silu" },
} as const;

/**
 * @throws {CheckpointError} If config.json is malformed or does not fit the tensors.
 * @throws {UnsupportedModelError} If the model is of a kind that this version does not run.
 * @throws {NotTernaryError} If it is a plain float model and `quantize` is not set.
 */
// deno-lint-ignore require-await -- whether floats are ternary is to be seen in the weights.
export async function readModelConfig(
  checkpoint: Checkpoint,
  options: ConfigOptions = {},
): Promise<ModelConfig> {
  const json = parseJson(checkpoint.configText, "config.json");
  return parseModelConfig(json, checkpoint.tensors, { name: checkpoint.name, ...options });
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
  const modelType = readModelType(config);
  refuseOtherArchitectures(config, tensors);
  const notes: string[] = [];
  const tied = readTied(config, tensors, notes);
  const tensorNames = tensorNamesOf(tensors, tied);
  const quantization = readQuantization(config, tensors, tensorNames, options);
  const spec: ModelSpec = {
    ...readShape(config, modelType),
    subNorms: modelType === "bitnet" || tensors.has(tensorNames.norm(0, "attnSub")),
    linearNormEps: readLinearNormEps(config, quantization),
    biases: LINEAR_NAMES.filter((name) => tensors.has(`${tensorNames.linear(0, name)}.bias`)),
    tieWordEmbeddings: tied,
    embeddingType: floatTypeOf(tensors, tensorNames.embedding),
    headType: floatTypeOf(tensors, tensorNames.head),
  };
  checkTensors(spec, quantization, tensorNames, tensors);
  return {
    spec,
    name: options.name ?? "model",
    modelType,
    task: "generate",
    ...readRope(config, modelType),
    quantization,
    tensorNames,
    bosTokenId: config.tokenIds("bos_token_id", spec.vocabSize)[0] ?? null,
    eosTokenIds: config.tokenIds("eos_token_id", spec.vocabSize),
    notes,
  };
}

function readModelType(config: ConfigReader): ModelConfig["modelType"] {
  const modelType = config.string("model_type");
  const isBitnet = config.strings("architectures").some((name) =>
    /^bitnetforcausallm$/i.test(name)
  );
  if (isBitnet) return "bitnet";
  const known = MODEL_TYPES.find((each) => each === modelType);
  if (known !== undefined) return known;
  throw new UnsupportedModelError(
    `Cannot run a model of type ${shown(modelType)}: this version runs ${MODEL_TYPES.join(", ")}`,
  );
}

/** Tensors that only graphs have which we would run wrongly. */
const FOREIGN_TENSOR =
  /\.(q_norm|k_norm|experts|block_sparse_moe|router|pre_feedforward_layernorm|post_feedforward_layernorm|rotary_emb\.(long|short)_factor|lora_A|lora_B)(\.|$)|_proj\.(qweight|qzeros|SCB|absmax)$/;

function refuseOtherArchitectures(config: ConfigReader, tensors: Tensors): void {
  const foreign = [...tensors.keys()].filter((name) => FOREIGN_TENSOR.test(name));
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

/** Where checkpoints keep a layer's linears, as Hugging Face names them. */
export const LINEAR_PATHS: Readonly<Record<LinearName, string>> = {
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.o_proj",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
};

/** Microsoft's and transformers' names, and those of 1bitLLM's b1.58 reproduction. */
const SUB_NORM_PATHS = [
  { attnSub: "self_attn.attn_sub_norm.weight", ffnSub: "mlp.ffn_sub_norm.weight" },
  { attnSub: "self_attn.inner_attn_ln.weight", ffnSub: "mlp.ffn_layernorm.weight" },
] as const;

function tensorNamesOf(tensors: Tensors, tied: boolean): TensorNames {
  const layers = "model.layers";
  const subNorms = SUB_NORM_PATHS.find(({ attnSub }) => tensors.has(`${layers}.0.${attnSub}`)) ??
    SUB_NORM_PATHS[0];
  const norms: Record<NormName, string> = {
    input: "input_layernorm.weight",
    postAttention: "post_attention_layernorm.weight",
    ...subNorms,
    attentionOut: "",
    mlpOut: "",
  };
  const embedding = "model.embed_tokens.weight";
  return {
    embedding,
    finalNorm: "model.norm.weight",
    head: tied ? embedding : "lm_head.weight",
    linear: (layer, name) => `${layers}.${layer}.${LINEAR_PATHS[name]}`,
    norm: (layer, which) => `${layers}.${layer}.${norms[which]}`,
  };
}

function readQuantization(
  config: ConfigReader,
  tensors: Tensors,
  names: TensorNames,
  options: ConfigOptions,
): Quantization {
  const quantization = config.child("quantization_config");
  if (quantization !== null) return readBitnet(quantization, tensors, names, options);
  const isPacked = tensors.get(`${names.linear(0, "q")}.weight`)?.dtype === "U8";
  if (isPacked) {
    // Without the section, nothing says whether weight_scale multiplies or divides.
    throw new UnsupportedModelError(
      "Cannot run this model: its weights are packed, but config.json has no " +
        'quantization_config: add {"quant_method": "bitnet", "linear_class": ...} as its maker says',
    );
  }
  if (options.quantize === "absmean") return { kind: "absmean" };
  if (isTernaryMaster(config)) {
    return { kind: "bitnet", linearClass: "autobitlinear", mode: "online", useRmsNorm: false };
  }
  throw notTernaryError("its linears are plain floating point");
}

/** 1bitLLM's masters, ternarised at each call by their own code; others say is_bitnet_config. */
function isTernaryMaster(config: ConfigReader): boolean {
  const isOneBit = config.get("weight_bits") === 1 && config.get("input_bits") === 8;
  return isOneBit || config.flag("is_bitnet_config", false);
}

function notTernaryError(reason: string): NotTernaryError {
  return new NotTernaryError(
    `Cannot run this model as ternary: ${reason}: pass --quantize absmean to round its weights, ` +
      "which a model that was not trained for it does not survive well",
  );
}

function readBitnet(
  quantization: ConfigReader,
  tensors: Tensors,
  names: TensorNames,
  options: ConfigOptions,
): Quantization {
  const method = quantization.string("quant_method");
  if (method !== "bitnet") {
    throw new UnsupportedModelError(
      `Cannot run this model: quant_method must be "bitnet": current value is ${shown(method)}`,
    );
  }
  refuseFloatLinears(quantization.strings("modules_to_not_convert"));
  const linearClass = quantization.oneOf(
    "linear_class",
    ["bitlinear", "autobitlinear"],
    "bitlinear",
  );
  const mode = quantization.oneOf("quantization_mode", ["offline", "online"], "offline");
  const useRmsNorm = quantization.flag("use_rms_norm", false);
  const isPacked = tensors.get(`${names.linear(0, "q")}.weight`)?.dtype === "U8";
  if (mode === "offline" && !isPacked && tensors.has(`${names.linear(0, "q")}.weight`)) {
    if (options.quantize !== "absmean") {
      throw notTernaryError('quantization_mode is "offline", but its weights are not packed');
    }
    return { kind: "bitnet", linearClass, mode: "online", useRmsNorm };
  }
  if (mode === "online" && isPacked) {
    throw new UnsupportedModelError(
      'Cannot run this model: quantization_mode is "online", but its weights are packed: ' +
        'set it to "offline" if its maker says so',
    );
  }
  return { kind: "bitnet", linearClass, mode, useRmsNorm };
}

/** Last parts of module names that stand for ternary linears or for something around them. */
const TERNARY_MODULE = /^(model|layers|self_attn|mlp|\d+|[qkvo]_proj|gate_proj|up_proj|down_proj)$/;

function refuseFloatLinears(notConverted: readonly string[]): void {
  const floats = notConverted.filter((name) => TERNARY_MODULE.test(name.split(".").at(-1)!));
  if (floats.length === 0) return;
  throw new UnsupportedModelError(
    `Cannot run this model: all linears of its layers must be ternary, but ` +
      `modules_to_not_convert has ${shownList(floats)}`,
  );
}

type ShapeKeys =
  | "hiddenSize"
  | "intermediateSize"
  | "numHiddenLayers"
  | "numAttentionHeads"
  | "numKeyValueHeads"
  | "headDim"
  | "vocabSize"
  | "rmsNormEps"
  | "hiddenAct";

function readShape(
  config: ConfigReader,
  modelType: ModelConfig["modelType"],
): Pick<ModelSpec, ShapeKeys> {
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
    rmsNormEps: config.number("rms_norm_eps", 0, 1, DEFAULTS[modelType].rmsNormEps),
    hiddenAct: readHiddenAct(config, modelType),
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

function readHiddenAct(config: ConfigReader, modelType: ModelConfig["modelType"]): HiddenAct {
  const name = config.string("hidden_act") ?? DEFAULTS[modelType].hiddenAct;
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
function readRope(config: ConfigReader, modelType: ModelConfig["modelType"]) {
  const parameters = config.child("rope_parameters");
  const holder = parameters?.has("rope_theta") ? parameters : config;
  const maxPositionEmbeddings = config.count("max_position_embeddings", MAX_POSITIONS, 2048);
  return {
    ropeTheta: holder.number("rope_theta", 1, 1e30, DEFAULTS[modelType].ropeTheta),
    ropeScaling: readRopeScaling(parameters ?? config.child("rope_scaling"), maxPositionEmbeddings),
    maxPositionEmbeddings,
  };
}

const FLOAT_TYPES: Readonly<Record<string, FloatType>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** The type of a float tensor. @throws If it is missing or of a type that is no model's. */
export function floatTypeOf(tensors: Tensors, name: string): FloatType {
  const dtype = tensors.get(name)?.dtype;
  if (dtype === undefined) throw missingTensorsError([name]);
  const type = FLOAT_TYPES[dtype];
  if (type !== undefined) return type;
  throw new UnsupportedModelError(
    `Cannot run this model: ${shown(name)} must be F32, F16 or BF16: current value is ${dtype}`,
  );
}

function missingTensorsError(names: readonly string[]): CheckpointError {
  return new CheckpointError(
    `Cannot use the checkpoint: it lacks ${names.length} of the tensors that config.json asks ` +
      `for: ${shownList(names)}`,
  );
}

interface ExpectedTensor {
  name: string;
  shapes: readonly (readonly number[])[];
  types: readonly string[];
}

const FLOATS = Object.keys(FLOAT_TYPES);

function checkTensors(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  tensors: Tensors,
): void {
  const missing: string[] = [];
  for (const expected of expectedTensors(spec, quantization, names)) {
    const tensor = tensors.get(expected.name);
    if (tensor === undefined) missing.push(expected.name);
    else checkTensor(expected, tensor);
    // A config may claim thousands of layers that are not there: enough was seen.
    if (missing.length >= 1000) break;
  }
  if (missing.length > 0) throw missingTensorsError(missing);
  checkNothingElse(spec, quantization, names, tensors);
}

function checkTensor(
  { name, shapes, types }: ExpectedTensor,
  tensor: Pick<TensorInfo, "dtype" | "shape">,
) {
  if (!types.includes(tensor.dtype)) {
    throw new UnsupportedModelError(
      `Cannot use tensor ${shown(name)}: its type must be ${types.join(", ")}: ` +
        `current value is ${tensor.dtype}`,
    );
  }
  if (shapes.some((shape) => isSameShape(shape, tensor.shape))) return;
  throw new CheckpointError(
    `Cannot use tensor ${shown(name)}: by config.json its shape must be ` +
      `${shown(shapes[0])}: current value is ${shown(tensor.shape)}`,
  );
}

function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function* expectedTensors(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
): Generator<ExpectedTensor> {
  const matrix = [[spec.vocabSize, spec.hiddenSize]];
  yield { name: names.embedding, shapes: matrix, types: FLOATS };
  if (!spec.tieWordEmbeddings) yield { name: names.head, shapes: matrix, types: FLOATS };
  yield { name: names.finalNorm, shapes: [[spec.hiddenSize]], types: FLOATS };
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const which of normsOf(spec)) {
      yield { name: names.norm(layer, which), shapes: [[normSize(spec, which)]], types: FLOATS };
    }
    for (const name of LINEAR_NAMES) {
      yield* expectedOfLinear(spec, quantization, names.linear(layer, name), name);
    }
  }
}

/** Norms that a layer of this model has, in the order in which it uses them. */
export function normsOf(spec: ModelSpec): readonly NormName[] {
  return spec.subNorms ? NORM_NAMES : ["input", "postAttention"];
}

/** Features that a norm works on. */
export function normSize(spec: ModelSpec, which: NormName): number {
  if (which === "attnSub") return linearShape(spec, "o").k;
  return which === "ffnSub" ? spec.intermediateSize : spec.hiddenSize;
}

function* expectedOfLinear(
  spec: ModelSpec,
  quantization: Quantization,
  path: string,
  name: LinearName,
): Generator<ExpectedTensor> {
  const { n, k } = linearShape(spec, name);
  if (isPacked(quantization)) {
    const rows = Math.ceil(n / ROWS_PER_BYTE);
    yield { name: `${path}.weight`, shapes: [[rows, k]], types: ["U8"] };
    yield { name: `${path}.weight_scale`, shapes: [[1], []], types: FLOATS };
  } else {
    yield { name: `${path}.weight`, shapes: [[n, k]], types: FLOATS };
  }
  if (spec.biases.includes(name)) yield { name: `${path}.bias`, shapes: [[n]], types: FLOATS };
  if (spec.linearNormEps !== null) {
    yield { name: `${path}.rms_norm.weight`, shapes: [[k]], types: FLOATS };
  }
}

/** True when linears are stored as packed codes with a weight_scale. */
export function isPacked(quantization: Quantization): boolean {
  return quantization.kind === "bitnet" && quantization.mode === "offline";
}

/**
 * Tensors of a layer's linears and sub-norms that the graph as read would leave out: running
 * without them gives words that mean nothing, so that is an error. Other extras are harmless.
 */
function checkNothingElse(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  tensors: Tensors,
): void {
  const expected = new Set<string>();
  for (const { name } of expectedTensors(spec, quantization, names)) expected.add(name);
  const relevant =
    /_proj\.(bias|rms_norm\.weight|norm\.weight|weight_scale)$|\.(attn_sub_norm|ffn_sub_norm|inner_attn_ln|ffn_layernorm)\.weight$/;
  const unused = [...tensors.keys()].filter((name) => relevant.test(name) && !expected.has(name));
  if (unused.length === 0) return;
  throw new UnsupportedModelError(
    `Cannot run this model: by config.json it would not use ${shownList(unused)}: ` +
      "config.json is not that of this checkpoint",
  );
}
