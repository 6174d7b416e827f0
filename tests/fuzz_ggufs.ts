/** Small sound GGUF models of all architectures and types, for tests that damage them. */
import { bytesOf, layoutsOf } from "../runtime/gguf/ggml_types.ts";
import {
  f32Bytes,
  type GgufParts,
  ggufParts,
  type TestFile,
  type TestTensor,
  type TestValue,
} from "./gguf_builder.ts";

/** Numbers of types in files. */
const TYPE = { F32: 0, F16: 1, Q4_0: 2, Q5_0: 6, Q8_0: 8, Q4_K: 12, Q6_K: 14, BF16: 30 } as const;
const TERNARY = { TQ1_0: 34, TQ2_0: 35, I2_S: 36, Q2_0: 42, PQ2_0: 142, PTQ1_0: 143 } as const;
type TypeName = keyof typeof TYPE | keyof typeof TERNARY;

/**
 * A byte of which all types make sound values: a small positive factor in all float types, and codes
 * -1, 0, 1.
 */
const SOUND_BYTE = 0x24;

function tensor(name: TypeName, ...dims: number[]): TestTensor {
  const type = { ...TYPE, ...TERNARY }[name];
  const layouts = layoutsOf(type);
  const layout = layouts.find(({ dtype }) => dtype === name) ?? layouts[0];
  const bytes = bytesOf(layout, dims.reduce((product, dim) => product * dim, 1))!;
  return { dims, type, bytes: new Uint8Array(bytes).fill(SOUND_BYTE) };
}

/** Divisors of RoPE's frequencies. */
function ones(count: number): TestTensor {
  return { dims: [count], type: TYPE.F32, bytes: f32Bytes(Array(count).fill(1)) };
}

interface Model {
  arch: string;
  version?: 2 | 3;
  alignment?: number;
  linears: TypeName;
  embedding: TypeName;
  /** Untied where there is one. */
  head?: TypeName;
  hidden: number;
  values?: Readonly<Record<string, TestValue>>;
  /** Beside embedding, head and linears: shapes by what `model` lacks. */
  tensors?: (model: Model) => Record<string, TestTensor>;
  /** Instead of gate, up and down. */
  mlp?: (model: Model) => Record<string, TestTensor>;
  tokenizer: Readonly<Record<string, TestValue>>;
}

/** Two heads, one of keys and values. */
const HEADS = 2;
const TOKENS = ["a", "b", "ab", "<s>", "<|im_end|>", "c", "d", "e"];

const GPT2: Model["tokenizer"] = {
  model: ["string", "gpt2"],
  pre: ["string", "qwen2"],
  tokens: ["string", TOKENS],
  token_type: ["i32", [1, 1, 1, 3, 3, 1, 4, 1]],
  merges: ["string", ["a b"]],
  bos_token_id: ["u32", 3],
  eos_token_id: ["u16", 4],
  add_bos_token: ["bool", true],
};
const SENTENCE_PIECE: Model["tokenizer"] = {
  model: ["string", "llama"],
  tokens: ["string", ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"]],
  scores: ["f32", [0, 0, 0, -1, -2, -3, -1, -0.5]],
  token_type: ["u32", [2, 3, 3, 1, 1, 1, 1, 1]],
  bos_token_id: ["u8", 1],
  eos_token_id: ["i8", 2],
  eot_token_id: ["i16", 2],
  unknown_token_id: ["i32", 0],
  padding_token_id: ["u64", 2],
  add_eos_token: ["bool", false],
  add_space_prefix: ["bool", true],
};

function modelFile(model: Model): TestFile {
  const { arch, version, alignment, values, tokenizer, embedding, head, hidden } = model;
  const prefixed = (prefix: string, values: Readonly<Record<string, TestValue>>) =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [prefix + key, value]));
  return {
    version,
    alignment,
    values: {
      "general.architecture": ["string", arch],
      ...(alignment === undefined ? {} : { "general.alignment": ["u32", alignment] }),
      ...prefixed(`${arch}.`, {
        block_count: ["u32", 1],
        embedding_length: ["u32", hidden],
        feed_forward_length: ["u32", hidden],
        context_length: ["u32", 64],
        "attention.head_count": ["u32", HEADS],
        "attention.head_count_kv": ["u32", 1],
        "attention.layer_norm_rms_epsilon": ["f32", 1e-5],
        "rope.freq_base": ["f32", 10000],
        ...values,
      }),
      ...prefixed("tokenizer.ggml.", tokenizer),
      "tokenizer.chat_template": [
        "string",
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
      ],
    },
    tensors: {
      "token_embd.weight": tensor(embedding, hidden, TOKENS.length),
      ...(head === undefined ? {} : { "output.weight": tensor(head, hidden, TOKENS.length) }),
      "output_norm.weight": tensor("F32", hidden),
      ...inLayer(layerTensors(model)),
    },
  };
}

function inLayer(tensors: Readonly<Record<string, TestTensor>>): Record<string, TestTensor> {
  return Object.fromEntries(
    Object.entries(tensors).map((
      [name, each],
    ) => [/\./.test(name) ? name : `blk.0.${name}.weight`, each]),
  );
}

function layerTensors(model: Model): Record<string, TestTensor> {
  const { linears, hidden, tensors, mlp = plainMlp } = model;
  return {
    attn_norm: tensor("F32", hidden),
    ffn_norm: tensor("F32", hidden),
    attn_q: tensor(linears, hidden, hidden),
    attn_k: tensor(linears, hidden, hidden / HEADS),
    attn_v: tensor(linears, hidden, hidden / HEADS),
    attn_output: tensor(linears, hidden, hidden),
    ...mlp(model),
    ...tensors?.(model),
  };
}

function plainMlp({ linears, hidden }: Model): Record<string, TestTensor> {
  const names = ["ffn_gate", "ffn_up", "ffn_down"];
  return Object.fromEntries(names.map((name) => [name, tensor(linears, hidden, hidden)]));
}

const headNorms = ({ hidden }: Model) => ({
  attn_q_norm: tensor("F32", hidden / HEADS),
  attn_k_norm: tensor("F32", hidden / HEADS),
});

const MODELS: Readonly<Record<string, Model>> = {
  "llama v2, SentencePiece, I2_S": {
    arch: "llama",
    version: 2,
    linears: "I2_S",
    embedding: "Q8_0",
    head: "Q6_K",
    hidden: 256,
    tokenizer: SENTENCE_PIECE,
    values: { "rope.dimension_count": ["u64", 128], vocab_size: ["i64", 8] },
    tensors: ({ hidden }) => ({
      "rope_freqs.weight": ones(hidden / HEADS / 2),
      "blk.0.attn_q.bias": tensor("F32", hidden),
    }),
  },
  "bitnet-b1.58 v3, TQ2_0, aligned to 64": {
    arch: "bitnet-b1.58",
    alignment: 64,
    linears: "TQ2_0",
    embedding: "F16",
    hidden: 256,
    tokenizer: GPT2,
    values: {
      "rope.scaling.type": ["string", "yarn"],
      "rope.scaling.factor": ["f64", 2],
      "rope.scaling.original_context_length": ["u32", 32],
    },
    tensors: ({ hidden }) => ({
      attn_sub_norm: tensor("F32", hidden),
      ffn_sub_norm: tensor("F32", hidden),
    }),
  },
  "qwen3 v3, PQ2_0": {
    arch: "qwen3",
    linears: "PQ2_0",
    embedding: "PTQ1_0",
    head: "Q2_0",
    hidden: 128,
    tokenizer: GPT2,
    values: {
      "attention.key_length": ["u32", 64],
      "attention.value_length": ["u32", 64],
      pooling_type: ["u32", 3],
    },
    tensors: headNorms,
  },
  "maple v3, TQ1_0": {
    arch: "maple",
    linears: "TQ1_0",
    embedding: "BF16",
    head: "Q4_K",
    hidden: 256,
    tokenizer: GPT2,
    values: {
      expert_count: ["u32", 3],
      expert_used_count: ["u32", 2],
      expert_feed_forward_length: ["u32", [256]],
      "attention.sliding_window": ["u32", 16],
      "attention.sliding_window_pattern": ["bool", [true]],
      swiglu_clamp_exp: ["f32", [7]],
      "rope.dimension_count": ["u32", 64],
    },
    tensors: headNorms,
    mlp: ({ hidden }) => ({
      ffn_gate_inp: tensor("F32", hidden, 3),
      ffn_gate_exps: tensor("TQ1_0", hidden, 256, 3),
      ffn_up_exps: tensor("TQ1_0", hidden, 256, 3),
      ffn_down_exps: tensor("TQ1_0", 256, hidden, 3),
    }),
  },
  "gemma3 v3, Q2_0, with norms behind": {
    arch: "gemma3",
    linears: "Q2_0",
    embedding: "Q4_0",
    hidden: 64,
    tokenizer: { ...SENTENCE_PIECE, pre: ["string", "default"] },
    values: {
      "attention.sliding_window": ["u32", 16],
      "rope.freq_base_swa": ["f32", 1000],
      "attention.key_length": ["u32", 32],
    },
    tensors: (model) => ({
      ...headNorms(model),
      post_attention_norm: tensor("F32", model.hidden),
      post_ffw_norm: tensor("F32", model.hidden),
    }),
  },
  "minicpm v3, floats, tables of RoPE": {
    arch: "minicpm",
    linears: "F16",
    embedding: "Q5_0",
    hidden: 64,
    tokenizer: SENTENCE_PIECE,
    values: {
      embedding_scale: ["f32", 12],
      residual_scale: ["f32", 0.25],
      logit_scale: ["f32", 10],
      "rope.scaling.attn_factor": ["f32", 1],
      "rope.scaling.original_context_length": ["u32", 32],
    },
    tensors: ({ hidden }) => ({
      "rope_factors_long.weight": ones(hidden / HEADS / 2),
      "rope_factors_short.weight": ones(hidden / HEADS / 2),
    }),
  },
};

/** Files of a model that is split: the first has the keys, each some of the tensors. */
export const SPLIT_COUNT = 3;

/** Files of one model, in their order. */
export function soundSplit(): GgufParts[] {
  const { values, tensors } = modelFile(MODELS["qwen3 v3, PQ2_0"]);
  const all = Object.entries(tensors!);
  const perFile = Math.ceil(all.length / SPLIT_COUNT);
  return Array.from({ length: SPLIT_COUNT }, (_, i) =>
    ggufParts({
      values: {
        ...(i === 0 ? values : {}),
        "split.no": ["u16", i],
        "split.count": ["u16", SPLIT_COUNT],
        "split.tensors.count": ["i32", all.length],
      },
      tensors: Object.fromEntries(all.slice(i * perFile, (i + 1) * perFile)),
    }));
}

/** A header that is longer than what is read of it at first, and at second: its template is. */
export function longGguf(): GgufParts {
  const file = modelFile(MODELS["gemma3 v3, Q2_0, with norms behind"]);
  const template: TestValue = ["string", "x".repeat(LONG_TEXT)];
  return ggufParts({ ...file, values: { "tokenizer.chat_template": template, ...file.values } });
}
const LONG_TEXT = 600_000;

/** Sound models by what they are. */
export function soundGgufs(): Map<string, GgufParts> {
  return new Map(
    Object.entries(MODELS).map(([name, model]) => [name, ggufParts(modelFile(model))]),
  );
}
