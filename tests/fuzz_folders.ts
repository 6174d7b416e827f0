/** Small sound model folders of safetensors files, for tests that damage them. */
import type { Json, JsonObject } from "../runtime/json.ts";

/** A safetensors file in parts: its header as JSON, and the bytes behind. */
export interface SafetensorsParts {
  header: JsonObject;
  data: Uint8Array;
}

/** A folder: JSON files, and safetensors files. */
export interface FolderParts {
  json: Record<string, Json>;
  weights: Record<string, SafetensorsParts>;
}

/** A small positive float of all types, and four codes that are -1, 0 or 1. */
const SOUND_BYTE = 0x24;
const BYTES: Readonly<Record<string, number>> = { U8: 1, BF16: 2, F16: 2, F32: 4, U32: 4 };
/** The sign bit of a little-endian number of 16 bits is in its second byte. */
const NEGATIVE_BYTE = SOUND_BYTE | 0x80;

type Tensors = Record<string, readonly [dtype: string, ...shape: number[]]>;

function safetensors(tensors: Tensors): SafetensorsParts {
  const header: JsonObject = { __metadata__: { format: "pt" } };
  const negative: [from: number, end: number][] = [];
  let end = 0;
  for (const [name, [dtype, ...shape]] of Object.entries(tensors)) {
    const bytes = shape.reduce((product, size) => product * size, BYTES[dtype]);
    header[name] = { dtype, shape, data_offsets: [end, end += bytes] };
    // MLX's are the opposites of its scales.
    if (name.endsWith(".biases")) negative.push([end - bytes, end]);
  }
  const data = new Uint8Array(end).fill(SOUND_BYTE);
  for (const [from, to] of negative) {
    for (let at = from + 1; at < to; at += 2) data[at] = NEGATIVE_BYTE;
  }
  return { header, data };
}

const [HIDDEN, HEADS, HEAD_DIM, VOCABULARY] = [16, 2, 8, 8];
const CONFIG: JsonObject = {
  hidden_size: HIDDEN,
  intermediate_size: HIDDEN,
  num_hidden_layers: 1,
  num_attention_heads: HEADS,
  num_key_value_heads: 1,
  vocab_size: VOCABULARY,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 64,
  bos_token_id: 3,
  eos_token_id: [4],
};

const LAYER = "model.layers.0";
const ATTENTION: Readonly<Record<string, readonly [number, number]>> = {
  q: [HEADS * HEAD_DIM, HIDDEN],
  k: [HEAD_DIM, HIDDEN],
  v: [HEAD_DIM, HIDDEN],
  o: [HIDDEN, HEADS * HEAD_DIM],
};

function attention(dtype: string, divisor = 1): Tensors {
  return Object.fromEntries(
    Object.entries(ATTENTION).map(([name, [rows, columns]]) => [
      `${LAYER}.self_attn.${name}_proj.weight`,
      [dtype, rows / divisor, columns],
    ]),
  );
}

function mlp(dtype: string, divisor = 1): Tensors {
  const names = ["gate", "up", "down"].map((name) => `${LAYER}.mlp.${name}_proj.weight`);
  return Object.fromEntries(names.map((name) => [name, [dtype, HIDDEN / divisor, HIDDEN]]));
}

const AROUND: Tensors = {
  "model.embed_tokens.weight": ["BF16", VOCABULARY, HIDDEN],
  "model.norm.weight": ["F32", HIDDEN],
  [`${LAYER}.input_layernorm.weight`]: ["BF16", HIDDEN],
  [`${LAYER}.post_attention_layernorm.weight`]: ["BF16", HIDDEN],
};
const HEAD_NORMS: Tensors = {
  [`${LAYER}.self_attn.q_norm.weight`]: ["BF16", HEAD_DIM],
  [`${LAYER}.self_attn.k_norm.weight`]: ["BF16", HEAD_DIM],
};

const special = (id: number, content: string): Json => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

const POST_PROCESSOR: JsonObject = {
  type: "TemplateProcessing",
  single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
  special_tokens: { "<s>": { id: "<s>", ids: [3], tokens: ["<s>"] } },
};
const BPE: JsonObject = {
  type: "BPE",
  dropout: null,
  unk_token: "c",
  fuse_unk: true,
  byte_fallback: false,
  ignore_merges: false,
  vocab: { a: 0, b: 1, ab: 2, "<s>": 3, "<|im_end|>": 4, c: 5 },
  merges: ["a b"],
};
const ADDED = [special(3, "<s>"), special(4, "<|im_end|>")];

const BYTE_LEVEL: JsonObject = {
  version: "1.0",
  added_tokens: ADDED,
  normalizer: { type: "NFC" },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "\\p{N}| ?\\p{L}+" },
        behavior: "Isolated",
        invert: false,
      },
      { type: "Digits", individual_digits: true },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: POST_PROCESSOR,
  decoder: { type: "ByteLevel", add_prefix_space: true },
  model: BPE,
};
const SENTENCE_PIECE: JsonObject = {
  added_tokens: ADDED,
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "\u2581" },
      { type: "Replace", pattern: { String: " " }, content: "\u2581" },
    ],
  },
  pre_tokenizer: null,
  post_processor: { type: "Sequence", processors: [{ type: "ByteLevel" }, POST_PROCESSOR] },
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "\u2581" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  model: { ...BPE, merges: [["a", "b"]], byte_fallback: true },
};
const TOKENIZER_CONFIG: JsonObject = {
  tokenizer_class: "LlamaTokenizer",
  add_bos_token: true,
  bos_token: { content: "<s>" },
  eos_token: "<|im_end|>",
  chat_template: [{ name: "default", template: "{{ messages[0].content }}" }],
};
const GENERATION: JsonObject = {
  eos_token_id: [4],
  bos_token_id: 3,
  do_sample: true,
  temperature: 0.5,
  top_k: 20,
  top_p: 0.9,
  repetition_penalty: 1.1,
};

function folder(
  config: JsonObject,
  tensors: Tensors,
  more: Record<string, Json> = {},
): FolderParts {
  return {
    json: { "config.json": { ...CONFIG, ...config }, "tokenizer.json": BYTE_LEVEL, ...more },
    weights: { "model.safetensors": safetensors({ ...AROUND, ...tensors }) },
  };
}

function packedBitNet(): FolderParts {
  const scales = Object.keys({ ...attention("U8"), ...mlp("U8") })
    .map((name): [string, readonly [string, number]] => [`${name}_scale`, ["BF16", 1]]);
  return folder(
    {
      model_type: "bitnet",
      hidden_act: "relu2",
      tie_word_embeddings: true,
      rope_parameters: { rope_type: "default", rope_theta: 500000 },
      quantization_config: {
        quant_method: "bitnet",
        linear_class: "autobitlinear",
        quantization_mode: "offline",
      },
    },
    {
      ...attention("U8", 4),
      ...mlp("U8", 4),
      ...Object.fromEntries(scales),
      [`${LAYER}.self_attn.attn_sub_norm.weight`]: ["BF16", HIDDEN],
      [`${LAYER}.mlp.ffn_sub_norm.weight`]: ["BF16", HIDDEN],
    },
    { "tokenizer_config.json": TOKENIZER_CONFIG, "generation_config.json": GENERATION },
  );
}

function embeddingQwen(): FolderParts {
  const modules = ["Transformer", "Pooling", "Normalize"].map((name, idx) => ({
    idx,
    path: idx === 0 ? "" : `${idx}_${name}`,
    type: `sentence_transformers.models.${name}`,
  }));
  return folder(
    {
      model_type: "qwen3",
      architectures: ["Qwen3ForCausalLM"],
      hidden_act: "silu",
      head_dim: HEAD_DIM,
      rope_theta: 1000000,
      rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 },
    },
    {
      ...attention("F16"),
      ...mlp("F16"),
      ...HEAD_NORMS,
      "lm_head.weight": ["F16", VOCABULARY, HIDDEN],
    },
    {
      "modules.json": modules,
      "1_Pooling/config.json": {
        word_embedding_dimension: HIDDEN,
        pooling_mode_mean_tokens: false,
        pooling_mode_lasttoken: true,
      },
    },
  );
}

/** An expert a tensor, in two shards. */
function shardedMaple(): FolderParts {
  const layer: Tensors = { ...attention("F32"), ...HEAD_NORMS };
  layer[`${LAYER}.mlp.gate.weight`] = ["F32", 2, HIDDEN];
  for (const expert of [0, 1]) {
    for (const name of ["gate", "up", "down"]) {
      layer[`${LAYER}.mlp.experts.${expert}.${name}_proj.weight`] = ["F32", HIDDEN, HIDDEN];
    }
  }
  const parts = folder({
    model_type: "maple",
    hidden_act: "silu",
    head_dim: HEAD_DIM,
    num_experts: 2,
    num_experts_per_tok: 1,
    moe_intermediate_size: HIDDEN,
    norm_topk_prob: true,
    sliding_window: 16,
    layer_types: ["sliding_attention"],
    partial_rotary_factor: 0.5,
    swiglu_limit: 7,
    tie_word_embeddings: true,
  }, {});
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const names = [Object.keys(AROUND), Object.keys(layer)];
  return {
    json: {
      ...parts.json,
      "tokenizer.json": SENTENCE_PIECE,
      "model.safetensors.index.json": {
        metadata: { total_size: 1 },
        weight_map: Object.fromEntries(
          names.flatMap((own, i) => own.map((name) => [name, shards[i]])),
        ),
      },
    },
    weights: { [shards[0]]: safetensors(AROUND), [shards[1]]: safetensors(layer) },
  };
}

/** Words of MLX: linears with scales and biases or a factor a row, an embedding of 4 bits. */
function mlxQwen(): FolderParts {
  const [hidden, group] = [128, 128];
  const settings = { group_size: group, bits: 2 };
  const linears = ["q", "k", "v", "o"].map((name) => `self_attn.${name}_proj`)
    .concat(["gate", "up", "down"].map((name) => `mlp.${name}_proj`));
  const tensors: Tensors = {
    "model.embed_tokens.weight": ["U32", VOCABULARY, hidden / 8],
    "model.embed_tokens.scales": ["BF16", VOCABULARY, 2],
    "model.embed_tokens.biases": ["BF16", VOCABULARY, 2],
    "model.norm.weight": ["F16", hidden],
    [`${LAYER}.input_layernorm.weight`]: ["F16", hidden],
    [`${LAYER}.post_attention_layernorm.weight`]: ["F16", hidden],
    [`${LAYER}.self_attn.q_norm.weight`]: ["F16", hidden / HEADS],
    [`${LAYER}.self_attn.k_norm.weight`]: ["F16", hidden / HEADS],
  };
  for (const path of linears) {
    const rows = /[kv]_proj/.test(path) ? hidden / HEADS : hidden;
    tensors[`${LAYER}.${path}.weight`] = ["U32", rows, hidden / 16];
    if (path.startsWith("mlp.")) tensors[`${LAYER}.${path}.row_alpha`] = ["BF16", rows];
    else {
      tensors[`${LAYER}.${path}.scales`] = ["F16", rows, hidden / group];
      tensors[`${LAYER}.${path}.biases`] = ["F16", rows, hidden / group];
    }
  }
  const { json } = folder({
    model_type: "qwen3",
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: hidden,
    head_dim: hidden / HEADS,
    tie_word_embeddings: true,
    quantization: { ...settings, "model.embed_tokens": { group_size: 64, bits: 4 } },
    quantization_config: settings,
  }, {});
  return { json, weights: { "model.safetensors": safetensors(tensors) } };
}

/** Sound folders by what they are. */
export function soundFolders(): Map<string, FolderParts> {
  return new Map([
    ["packed BitNet", packedBitNet()],
    ["Qwen3 that embeds, of floats", embeddingQwen()],
    ["Maple in two shards", shardedMaple()],
    ["Qwen3 of MLX's words", mlxQwen()],
  ]);
}
