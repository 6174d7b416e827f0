/**
 * What a checkpoint's config.json and tensor names say about the model, checked against the
 * tensors' real shapes, so that nothing is ever allocated from a number that a file only claims.
 * What architectures differ in is in `models/`, a file each.
 */
import { type HiddenAct, LINEAR_NAMES, type ModelSpec, rotaryDim } from "../codegen/model_spec.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { ConfigReader, MAX_LAYERS } from "./config_reader.ts";
import { CheckpointError, shown, shownList, UnsupportedModelError } from "./errors.ts";
import { checkTensors, isBlockType, matrixTypeOf } from "./expected_tensors.ts";
import { isJsonObject, type Json, parseJson } from "./json.ts";
import { architectureOf } from "./models/all.ts";
import {
  type Architecture,
  type Defaults,
  type Folds,
  type ModelShape,
  type ModelType,
  NO_FOLDS,
  type Rope,
  type Tensors,
} from "./models/architecture.ts";
import { POOLINGS, readPooling } from "./pooling.ts";
import {
  factorParts,
  isTernaryMaster,
  type Quantization,
  type QuantizationOptions,
  readInputGroup,
  readQuantization,
} from "./quantization.ts";
import { readRopeScaling, type RopeScaling } from "./rope_scaling.ts";
import { hasOwnNorms, type TensorNames, tensorNamesOf } from "./tensor_names.ts";
import { fitsGroups, ternaryGrain } from "./ternary_grain.ts";
import type { EmbeddingDefaults } from "./types.ts";

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
  /** How one vector is made of a text, unless the caller says otherwise. */
  embedding: EmbeddingDefaults;
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  /** The table of sliding layers, where they have one of their own. */
  localRope: Rope | null;
  /** Factors that reading puts into weights. */
  folds: Folds;
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
  /** Whether the model is a GGUF file. Default: whether its linears are of one of GGUF's types. */
  isGguf?: boolean;
  /** What sentence-transformers' files beside config.json say. */
  embedding?: EmbeddingDefaults | null;
}

const MAX_HIDDEN = 1_000_000;
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
  if (checkpoint.packed !== undefined) return checkpoint.packed.config;
  const json = parseJson(checkpoint.configText, "config.json");
  const grain = saysHowWeightsAre(json) ? null : await ternaryGrain(checkpoint);
  const config = parseModelConfig(json, checkpoint.tensors, {
    name: checkpoint.name,
    isGguf: checkpoint.format === "gguf",
    embedding: await readPooling(checkpoint.companions),
    grain,
    ...options,
  });
  return { ...config, spec: { ...config.spec, ...await ternaryEnds(checkpoint, config) } };
}

/** Embedding and head are packed as linears where they are ternary in the groups that linears have. */
async function ternaryEnds(
  checkpoint: Checkpoint,
  { spec: { groups, tieWordEmbeddings }, tensorNames }: ModelConfig,
): Promise<Pick<ModelSpec, "ternaryEmbedding" | "ternaryHead">> {
  if (!groups?.weightScales) return {};
  const embedding = await fitsGroups(checkpoint, tensorNames.embedding, groups);
  const head = tieWordEmbeddings
    ? embedding
    : await fitsGroups(checkpoint, tensorNames.head, groups);
  return {
    ...(embedding ? { ternaryEmbedding: true } : {}),
    ...(head ? { ternaryHead: true } : {}),
  };
}

/** Otherwise the weights themselves are asked. */
function saysHowWeightsAre(json: Json): boolean {
  return !isJsonObject(json) || new ConfigReader(json, "config.json").has("quantization_config");
}

function readerOf(json: Json): { config: ConfigReader; architecture: Architecture } {
  if (!isJsonObject(json)) {
    throw new CheckpointError("Cannot use config.json: it must be a JSON object");
  }
  const config = new ConfigReader(json, "config.json");
  return { config, architecture: architectureOf(config) };
}

/** As `readModelConfig`, from a parsed config.json and the header's tensors. */
export function parseModelConfig(
  json: Json,
  tensors: Tensors,
  options: ConfigOptions = {},
): ModelConfig {
  const { config, architecture } = readerOf(json);
  refuseOtherArchitectures(config, architecture, tensors);
  refuseBothWays(config);
  const notes: string[] = [];
  const tied = readTied(config, tensors, notes);
  const tensorNames = tensorNamesOf(architecture, tensors, tied);
  const quantization = readQuantization(config, tensors, tensorNames, options);
  const shape = readShape(config, architecture);
  const graph = architecture.graph?.({ config, tensors, shape, notes }) ?? {};
  const spec: ModelSpec = {
    ...shape,
    subNorms: architecture.subNorms ?? tensors.has(tensorNames.norm(0, "attnSub")),
    linearNormEps: readLinearNormEps(config, quantization, tensorNames, shape),
    biases: LINEAR_NAMES.filter((name) => tensors.has(`${tensorNames.linear(0, name)}.bias`)),
    tieWordEmbeddings: tied,
    embeddingType: matrixTypeOf(tensors, tensorNames.embedding),
    headType: matrixTypeOf(tensors, tensorNames.head),
    ...factorParts(quantization, {
      inputGroup: readInputGroup(config),
      hasExperts: graph.spec?.experts !== undefined,
      takesInt8: architecture.takesInt8 === true || hasOwnNorms(tensorNames) ||
        isTernaryMaster(config),
      isGguf: options.isGguf ?? isBlockType(tensors, `${tensorNames.linear(0, "q")}.weight`),
    }),
    ...graph.spec,
  };
  checkTensors(spec, quantization, tensorNames, tensors);
  return {
    spec,
    name: options.name ?? "model",
    modelType: architecture.modelType,
    ...readTask(config, tensorNames, options.embedding ?? null),
    ...readRope(config, architecture, spec, notes),
    localRope: graph.localRope ?? null,
    folds: { ...NO_FOLDS, ...graph.folds },
    quantization,
    tensorNames,
    bosTokenId: config.tokenIds("bos_token_id", spec.vocabSize)[0] ?? null,
    eosTokenIds: config.tokenIds("eos_token_id", spec.vocabSize),
    notes,
  };
}

/** Classes without a head give hidden states. */
const HEADLESS_CLASS = /^(Qwen3|Gemma3|Gemma3Text)Model$/;

/**
 * Embedding models are saved without their head, have linears that only Microsoft's have, or say how
 * they make one vector of many: a GGUF file by a key, a folder by files of sentence-transformers.
 */
function readTask(
  config: ConfigReader,
  names: TensorNames,
  files: EmbeddingDefaults | null,
): Pick<ModelConfig, "task" | "embedding"> {
  const said = config.has("pooling")
    ? { pooling: config.oneOf("pooling", POOLINGS), normalize: true }
    : files;
  const isHeadless = config.strings("architectures").some((name) => HEADLESS_CLASS.test(name));
  const isEmbedding = said !== null || isHeadless || hasOwnNorms(names);
  return {
    task: isEmbedding ? "embed" : "generate",
    embedding: said ?? { pooling: isEmbedding ? "last" : "mean", normalize: true },
  };
}

/** The kernels attend to earlier tokens only. */
function refuseBothWays(config: ConfigReader): void {
  const asks = config.has("use_bidirectional_attention") &&
    config.get("use_bidirectional_attention") !== false;
  const key = asks
    ? "use_bidirectional_attention"
    : config.has("is_causal") && config.get("is_causal") !== true
    ? "is_causal"
    : null;
  if (key === null) return;
  throw new UnsupportedModelError(
    `Cannot run this model: its tokens attend to later ones (${key} is ` +
      `${shown(config.get(key))}), here they attend to earlier ones only: use a decoder`,
  );
}

/** Tensors that some graphs have: one that does not would run wrongly. */
const FOREIGN_TENSOR =
  /\.(q_norm|k_norm|experts|block_sparse_moe|router|pre_feedforward_layernorm|post_feedforward_layernorm|rotary_emb\.(long|short)_factor|lora_A|lora_B)(\.|$)|_proj\.(qweight|qzeros|SCB|absmax)$/;

function refuseOtherArchitectures(
  config: ConfigReader,
  { ownTensors, turnsInPart }: Architecture,
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
  if (rotary !== 1 && !turnsInPart) {
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
  { defaults, intermediateKey = "intermediate_size" }: Architecture,
): ModelShape {
  const hiddenSize = config.count("hidden_size", MAX_HIDDEN);
  const numAttentionHeads = config.count("num_attention_heads", MAX_HEADS);
  const numKeyValueHeads = config.count("num_key_value_heads", MAX_HEADS, numAttentionHeads);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    config.fail("num_key_value_heads", `a divisor of ${numAttentionHeads}`, numKeyValueHeads);
  }
  return {
    hiddenSize,
    intermediateSize: config.count(intermediateKey, MAX_HIDDEN),
    numHiddenLayers: config.count("num_hidden_layers", MAX_LAYERS),
    numAttentionHeads,
    numKeyValueHeads,
    headDim: readHeadDim(config, defaults, hiddenSize, numAttentionHeads),
    vocabSize: config.count("vocab_size", MAX_VOCAB),
    rmsNormEps: config.number("rms_norm_eps", 0, 1, defaults.rmsNormEps),
    hiddenAct: readHiddenAct(config, defaults),
  };
}

function readHeadDim(
  config: ConfigReader,
  defaults: Defaults,
  hiddenSize: number,
  heads: number,
): number {
  const otherwise = defaults.headDim ?? hiddenSize / heads;
  if (!config.has("head_dim") && !Number.isInteger(otherwise)) {
    config.fail("num_attention_heads", `a divisor of hidden_size ${hiddenSize}`, heads);
  }
  const headDim = config.count("head_dim", MAX_HIDDEN, otherwise);
  if (headDim % 2 !== 0) config.fail("head_dim", "even, as RoPE turns pairs", headDim);
  if (headDim * heads > MAX_HIDDEN) {
    config.fail("head_dim", `at most ${MAX_HIDDEN} over all heads`, headDim * heads);
  }
  return headDim;
}

const HIDDEN_ACTS: Readonly<Record<string, HiddenAct>> = {
  relu2: "relu2",
  silu: "silu",
  swish: "silu",
  gelu_pytorch_tanh: "geluTanh",
};

function readHiddenAct(config: ConfigReader, defaults: Defaults): HiddenAct {
  // Gemma has both keys, of which its code reads the first.
  const name = config.string("hidden_activation") ?? config.string("hidden_act");
  if (name === null) return defaults.hiddenAct;
  if (Object.hasOwn(HIDDEN_ACTS, name)) return HIDDEN_ACTS[name];
  throw new UnsupportedModelError(
    `Cannot run this model: hidden_act must be one of ${Object.keys(HIDDEN_ACTS).join(", ")}: ` +
      `current value is ${shown(name)}`,
  );
}

function readLinearNormEps(
  config: ConfigReader,
  quantization: Quantization,
  names: TensorNames,
  { rmsNormEps }: ModelShape,
): number | null {
  if (hasOwnNorms(names)) return rmsNormEps;
  if (quantization.kind !== "bitnet" || !quantization.useRmsNorm) return null;
  return config.child("quantization_config")!.number("rms_norm_eps", 0, 1, 1e-6);
}

/** transformers 5 keeps rope_theta and the scaling together in rope_parameters. */
function readRope(
  config: ConfigReader,
  { defaults, ropeSection }: Architecture,
  spec: ModelSpec,
  notes: string[],
) {
  const all = config.child("rope_parameters");
  const parameters = (ropeSection === undefined ? null : all?.child(ropeSection)) ?? all;
  const holder = parameters?.has("rope_theta") ? parameters : config;
  const positions = config.count(
    "max_position_embeddings",
    MAX_POSITIONS,
    defaults.maxPositionEmbeddings ?? 2048,
  );
  const ropeTheta = holder.number("rope_theta", 1, 1e30, defaults.ropeTheta);
  const ropeScaling = readRopeScaling(parameters ?? config.child("rope_scaling"), positions);
  checkScaling(config, spec, { ropeTheta, ropeScaling });
  const most = ropeScaling?.ropeType === "longrope"
    ? ropeScaling.originalMaxPositionEmbeddings
    : null;
  if (most !== null && most < positions) {
    notes.push(`longrope's factors of more than ${most} positions are not used`);
  }
  return {
    ropeTheta,
    ropeScaling,
    maxPositionEmbeddings: Math.min(positions, most ?? positions),
  };
}

function checkScaling(config: ConfigReader, spec: ModelSpec, { ropeTheta, ropeScaling }: Rope) {
  if (ropeScaling?.ropeType === "yarn" && ropeTheta === 1) {
    config.fail("rope_theta", "above 1 where RoPE is scaled by yarn", ropeTheta);
  }
  const pairs = rotaryDim(spec) / 2;
  const factors = ropeScaling?.ropeType === "longrope"
    ? ropeScaling.shortFactor
    : ropeScaling?.ropeType === "divisors"
    ? ropeScaling.divisors
    : null;
  if (factors === null || factors.length === pairs) return;
  config.fail("rope_scaling", `of ${pairs} factors`, `${factors.length} factors`);
}
