/**
 * A Hugging Face config.json from a GGUF file's keys.
 *
 * Sources: the gguf package's constants.py (names of keys); llama.cpp's converters for what each is
 * made from, and its loaders for what is meant where a key is missing; transformers' configurations.
 */
import { MAX_LAYERS } from "../config_reader.ts";
import { CheckpointError, shown, UnsupportedModelError } from "../errors.ts";
import type { Json, JsonObject } from "../json.ts";
import { INPUT_GROUP_KEY } from "../quantization.ts";
import { KeyReader, shortest } from "./keys.ts";
import type { Metadata } from "./values.ts";

/** What else a config.json is made from. */
export interface ConfigInput {
  metadata: Metadata;
  /** By Hugging Face's names. */
  tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  /** Values of the tables that divide RoPE's frequencies, where the file has them. */
  ropeFactors: Partial<Record<"all" | "long" | "short", number[]>>;
}

/** A key of ours: how inputs are rounded to int8, of which other readers have ways of their own. */
export const GGUF_INPUT_GROUP_KEY = `trilith.${INPUT_GROUP_KEY}`;

type Adds = (keys: KeyReader, config: JsonObject, input: ConfigInput) => JsonObject;

interface Architecture {
  modelType: string;
  /** What the architecture has beyond the keys of all. */
  adds: Adds;
  /** Whether rows of query and key heads are those of neighbouring pairs. */
  hasTurnedRows?: boolean;
  /** RoPE's base in files that lack the key. Default: 10,000. */
  ropeTheta?: number;
}

/** Microsoft's: where files have floats, they are masters. Old converters missed transformers 5's rope_theta. */
const BITNET: Architecture = {
  modelType: "bitnet",
  adds: (_, config, { metadata }) => ({
    hidden_act: isOneBit(config, metadata) ? "silu" : "relu2",
    is_bitnet_config: true,
  }),
  ropeTheta: 500000,
};

/**
 * bitnet.cpp's present converter gives 1bitLLM's models Microsoft's architecture, which differs in its
 * activation alone; they have Llama 2's vocabulary and base of RoPE.
 */
function isOneBit({ rope_theta }: JsonObject, metadata: Metadata): boolean {
  return rope_theta === 10000 && metadata.get("tokenizer.ggml.model") === "llama";
}

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  "bitnet-b1.58": BITNET,
  "bitnet-25": BITNET,
  // 1bitLLM's reproduction.
  bitnet: { modelType: "bitnet", adds: () => ({ hidden_act: "silu", is_bitnet_config: true }) },
  llama: {
    modelType: "llama",
    adds: () => ({ hidden_act: "silu" }),
    hasTurnedRows: true,
  },
  qwen3: { modelType: "qwen3", adds: () => ({ hidden_act: "silu" }) },
  gemma3: { modelType: "gemma3_text", adds: gemma },
  "gemma-embedding": { modelType: "gemma3_text", adds: gemma },
  minicpm: { modelType: "minicpm", adds: miniCpm, hasTurnedRows: true },
  maple: { modelType: "maple", adds: maple },
};

/** What a file's general.architecture is. @throws {UnsupportedModelError} If it is none we know. */
export function architectureName(metadata: Metadata): string {
  const keys = new KeyReader(metadata);
  const type = keys.string("general.type") ?? "model";
  if (type !== "model") {
    throw new UnsupportedModelError(
      `Cannot run this GGUF file as it holds no model: its general.type is ${
        shown(type)
      }: give the ` +
        "model that it belongs to",
    );
  }
  const name = keys.string("general.architecture");
  if (name !== null && Object.hasOwn(ARCHITECTURES, name)) return name;
  throw new UnsupportedModelError(
    `Cannot run a GGUF model of architecture ${shown(name)}: this version runs ` +
      Object.keys(ARCHITECTURES).join(", "),
  );
}

/** Whether converters of this architecture reorder rows of query and key heads. */
export function hasTurnedRows(architecture: string): boolean {
  return ARCHITECTURES[architecture].hasTurnedRows === true;
}

/** Heads and their features, which reordering rows needs. @throws {CheckpointError} If malformed. */
export function headsOf(metadata: Metadata): { query: number; key: number; headDim: number } {
  const keys = new KeyReader(metadata, `${architectureName(metadata)}.`);
  const query = positive(keys, "attention.head_count");
  const hidden = positive(keys, "embedding_length");
  const headDim = keys.count("attention.key_length") ?? hidden / query;
  if (!Number.isInteger(headDim) || headDim < 2 || headDim % 2 !== 0) {
    return keys.fail("attention.head_count", "such that heads have an even size", query);
  }
  return { query, key: keys.same("attention.head_count_kv") ?? query, headDim };
}

/** Weights that only fit inputs turned by the same rotation: Bonsai 2's. Without it they write noise. */
const ROTATED = "prism.hadamard.";

function checkBasis(metadata: Metadata): void {
  const key = [...metadata.keys()].find((key) => key.startsWith(ROTATED));
  if (key === undefined) return;
  throw new UnsupportedModelError(
    `Cannot run this GGUF file: by ${shown(key)} its weights are in a rotated basis, which this ` +
      "version does not turn inputs to: get a file of the same model without these keys",
  );
}

function positive(keys: KeyReader, key: string): number {
  const value = keys.same(key);
  return value !== null && Number.isSafeInteger(value) && value >= 1
    ? value
    : keys.fail(key, "a positive integer", value);
}

/** Lists of this length are made of the number, so that it is not believed as it stands. */
function layersOf(keys: KeyReader): number {
  const layers = positive(keys, "block_count");
  return layers <= MAX_LAYERS ? layers : keys.fail("block_count", `at most ${MAX_LAYERS}`, layers);
}

/**
 * @returns config.json.
 * @throws {CheckpointError} If keys are missing or malformed.
 * @throws {UnsupportedModelError} If the model is of a kind that this version does not run.
 */
export function configOf(input: ConfigInput): JsonObject {
  const { metadata, tensors } = input;
  checkBasis(metadata);
  const name = architectureName(metadata);
  const { modelType, adds, ropeTheta = 10000 } = ARCHITECTURES[name];
  const keys = new KeyReader(metadata, `${name}.`);
  const { query, key, headDim } = headsOf(metadata);
  const embedding = tensors.get("model.embed_tokens.weight");
  if (embedding === undefined) {
    throw new CheckpointError(
      "Cannot use the GGUF file: it has no token_embd.weight: it holds a vocabulary alone, " +
        "or is one part of a split model",
    );
  }
  const config: JsonObject = {
    model_type: modelType,
    hidden_size: positive(keys, "embedding_length"),
    intermediate_size: keys.same("feed_forward_length") ?? 0,
    num_hidden_layers: layersOf(keys),
    num_attention_heads: query,
    num_key_value_heads: key,
    head_dim: headDim,
    vocab_size: embedding.shape[0],
    max_position_embeddings: keys.count("context_length") ?? 2048,
    rms_norm_eps: shortest(keys.number("attention.layer_norm_rms_epsilon") ?? 1e-5),
    tie_word_embeddings: !tensors.has("lm_head.weight"),
    ...rope(keys, { headDim, ropeTheta }, input),
    ...tokens(metadata),
    ...pooling(keys),
    ...optional(INPUT_GROUP_KEY, inputGroup(metadata)),
    ...(attendsBothWays(name, keys) ? { use_bidirectional_attention: true } : {}),
  };
  checkValueLength(keys, headDim);
  return { ...config, ...adds(keys, config, input) };
}

/** Tokenizers of TriLM, whose smaller models have one factor a matrix as BitNets have, but float inputs. */
const FLOAT_INPUT_WORDS = ["olmo", "gpt-neox"];
const FLOAT_INPUT_GROUP = 128;

/** Null where the file does not say, and nothing hints at it. */
function inputGroup(metadata: Metadata): number | null {
  const keys = new KeyReader(metadata);
  const words = keys.string("tokenizer.ggml.pre") ?? "";
  return keys.count(GGUF_INPUT_GROUP_KEY) ??
    (FLOAT_INPUT_WORDS.includes(words) ? FLOAT_INPUT_GROUP : null);
}

function checkValueLength(keys: KeyReader, headDim: number): void {
  const length = keys.count("attention.value_length") ?? headDim;
  if (length !== headDim) keys.fail("attention.value_length", `${headDim}, as keys have`, length);
}

/** Tables win over formulas, as they are what the formulas give. */
function rope(
  keys: KeyReader,
  { headDim, ropeTheta }: { headDim: number; ropeTheta: number },
  input: ConfigInput,
): JsonObject {
  const turned = rotaryFeatures(keys) ?? headDim;
  for (const table of Object.values(input.ropeFactors)) checkFactors(table, turned / 2);
  const scaling = ropeScaling(keys, input);
  return {
    rope_theta: shortest(keys.number("rope.freq_base") ?? ropeTheta),
    ...(turned === headDim ? {} : { partial_rotary_factor: turned / headDim }),
    ...(scaling === null ? {} : { rope_scaling: scaling }),
  };
}

function checkFactors({ length }: readonly number[], pairs: number): void {
  if (length === pairs) return;
  throw new CheckpointError(
    `Cannot use the GGUF file: a table of RoPE's factors must have ${pairs}, one for each pair of ` +
      `features: current value is ${length}`,
  );
}

/** An early converter of Maple wrote 0 and the number for sliding layers. */
function rotaryFeatures(keys: KeyReader): number | null {
  return keys.count("rope.dimension_count") || keys.count("rope.dimension_count_swa");
}

function ropeScaling(keys: KeyReader, { ropeFactors }: ConfigInput): JsonObject | null {
  const { all, long, short } = ropeFactors;
  if (all !== undefined) return { rope_type: "divisors", divisors: all };
  const original = keys.count("rope.scaling.original_context_length");
  const originalLength = optional("original_max_position_embeddings", original);
  if (long !== undefined && short !== undefined) {
    return {
      rope_type: "longrope",
      long_factor: long,
      short_factor: short,
      ...originalLength,
      ...optional("attention_factor", keys.number("rope.scaling.attn_factor")),
    };
  }
  const type = keys.string("rope.scaling.type") ?? "none";
  const factor = keys.number("rope.scaling.factor") ?? 1;
  // Converters write a linear scaling of 1 for none.
  if (type === "none" || type === "longrope" || (type === "linear" && factor === 1)) return null;
  return { rope_type: type, factor: shortest(factor), ...originalLength, ...yarn(keys) };
}

function yarn(keys: KeyReader): JsonObject {
  return {
    ...optional("attention_factor", keys.number("rope.scaling.yarn_attn_factor")),
    ...optional("beta_fast", keys.number("rope.scaling.yarn_beta_fast")),
    ...optional("beta_slow", keys.number("rope.scaling.yarn_beta_slow")),
  };
}

function optional(name: string, value: number | null): JsonObject {
  return value === null ? {} : { [name]: shortest(value) };
}

function tokens(metadata: Metadata): JsonObject {
  const keys = new KeyReader(metadata, "tokenizer.ggml.");
  const bos = keys.count("bos_token_id");
  const eos = keys.count("eos_token_id");
  return {
    ...(bos === null ? {} : { bos_token_id: bos }),
    ...(eos === null ? {} : { eos_token_id: eos }),
  };
}

const POOLING: Readonly<Record<number, string>> = { 1: "mean", 2: "cls", 3: "last" };

/** How an embedding model makes one vector of many: a key of ours, as config.json has none. */
function pooling(keys: KeyReader): JsonObject {
  const type = keys.count("pooling_type") ?? 0;
  if (type === 0) return {};
  const name = POOLING[type] ??
    keys.fail("pooling_type", "0 (none), 1 (mean), 2 (cls) or 3 (last)", type);
  return { pooling: name };
}

/** llama.cpp runs this architecture so whatever the key says. */
function attendsBothWays(architecture: string, keys: KeyReader): boolean {
  return architecture === "gemma-embedding" || keys.flag("attention.causal") === false;
}

// ---------------------------------------------------------------- architectures

/** Every sixth layer of Gemma sees all positions where the file does not say which. */
const GEMMA_PATTERN = 6;

function gemma(keys: KeyReader, config: JsonObject): JsonObject {
  const window = keys.count("attention.sliding_window") ?? 0;
  const layers = Number(config.num_hidden_layers);
  return {
    hidden_activation: "gelu_pytorch_tanh",
    rope_theta: shortest(keys.number("rope.freq_base") ?? 1e6),
    rope_local_base_freq: shortest(keys.number("rope.freq_base_swa") ?? 10000),
    query_pre_attn_scalar: Number(config.head_dim),
    // llama.cpp's converters add 1 to weights of norms, which Gemma's own code adds when it runs.
    norm_weights_include_one: true,
    ...(window === 0
      ? { layer_types: Array(layers).fill("full_attention") }
      : { sliding_window: window, layer_types: layerTypes(keys, layers, GEMMA_PATTERN) }),
  };
}

/** A list of what slides, or the number n of which every nth layer does not. */
function layerTypes(keys: KeyReader, layers: number, otherwise: number): Json[] {
  const key = "attention.sliding_window_pattern";
  const isNumber = typeof keys.metadata.get(keys.nameOf(key)) === "number";
  const pattern = isNumber ? keys.count(key)! : keys.list(key) ?? otherwise;
  const slides = (layer: number) =>
    typeof pattern === "number" ? (layer + 1) % pattern !== 0 : pattern[layer];
  if (typeof pattern !== "number" && pattern.length < layers) {
    keys.fail(key, `a list of ${layers}, one for each layer`, `a list of ${pattern.length}`);
  }
  return Array.from(
    { length: layers },
    (_, layer) => slides(layer) ? "sliding_attention" : "full_attention",
  );
}

/** Class defaults of MiniCPM, for files that are older than the keys. */
const MINICPM = { embeddingScale: 12, scaleDepth: 1.4, dimModelBase: 256 };

function miniCpm(keys: KeyReader, config: JsonObject): JsonObject {
  const residual = keys.number("residual_scale");
  const logits = keys.number("logit_scale");
  const depth = Math.sqrt(Number(config.num_hidden_layers));
  return {
    hidden_act: "silu",
    scale_emb: shortest(keys.number("embedding_scale") ?? MINICPM.embeddingScale),
    scale_depth: residual === null ? MINICPM.scaleDepth : shortest(residual * depth),
    dim_model_base: logits === null || logits === 0
      ? MINICPM.dimModelBase
      : shortest(Number(config.hidden_size) / logits),
  };
}

function maple(keys: KeyReader, config: JsonObject): JsonObject {
  const layers = Number(config.num_hidden_layers);
  const limit = keys.same("swiglu_clamp_exp");
  return {
    hidden_act: "silu",
    num_experts: positive(keys, "expert_count"),
    num_experts_per_tok: positive(keys, "expert_used_count"),
    moe_intermediate_size: positive(keys, "expert_feed_forward_length"),
    norm_topk_prob: keys.flag("expert_weights_norm") ?? true,
    // Of a token's own and those before it; config.json counts those before.
    sliding_window: positive(keys, "attention.sliding_window") - 1,
    layer_types: layerTypes(keys, layers, 4),
    ...(limit === null ? {} : { swiglu_limit: shortest(limit) }),
  };
}
