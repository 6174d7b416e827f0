import assert from "node:assert/strict";
import { parseModelConfig } from "../config.ts";
import type { JsonObject } from "../json.ts";
import {
  assertRefused,
  BY_GROUP,
  headerOf,
  type HeaderOptions,
  headNorms,
  inputNorms,
  mlp,
  parse,
} from "./test_helpers.ts";

/** Ternary-Bonsai 8B. */
const BONSAI: JsonObject = {
  architectures: ["Qwen3ForCausalLM"],
  model_type: "qwen3",
  hidden_size: 4096,
  intermediate_size: 12288,
  num_hidden_layers: 36,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 128,
  hidden_act: "silu",
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16384 },
  max_position_embeddings: 65536,
  sliding_window: null,
  use_sliding_window: false,
  max_window_layers: 36,
  tie_word_embeddings: false,
  vocab_size: 151936,
  bos_token_id: 151643,
  eos_token_id: 151645,
};

const BONSAI_HEADER: HeaderOptions = {
  layers: 36,
  hidden: 4096,
  queries: 4096,
  keys: 1024,
  vocab: 151936,
  type: "BF16",
  head: true,
  layer: { ...mlp(4096, 12288), ...headNorms(128) },
};

/** Microsoft's BitNet-embedding 0.6B. */
const EMBEDDING: JsonObject = {
  architectures: ["Qwen3Model"],
  model_type: "qwen3",
  hidden_size: 1024,
  intermediate_size: 3072,
  num_hidden_layers: 28,
  num_attention_heads: 16,
  num_key_value_heads: 8,
  head_dim: 128,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  max_position_embeddings: 32768,
  tie_word_embeddings: true,
  vocab_size: 151936,
  eos_token_id: 151643,
};

const EMBEDDING_HEADER: HeaderOptions = {
  layers: 28,
  hidden: 1024,
  queries: 2048,
  keys: 1024,
  vocab: 151936,
  type: "BF16",
  prefix: "",
  layer: { ...mlp(1024, 3072), ...headNorms(128), ...inputNorms(1024, 2048, 3072) },
};

Deno.test("Ternary-Bonsai is a qwen3 with head norms, factors of groups and yarn", () => {
  const config = parse(BONSAI, headerOf(BONSAI_HEADER), BY_GROUP);
  assert.deepEqual(config.spec, {
    hiddenSize: 4096,
    intermediateSize: 12288,
    numHiddenLayers: 36,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 151936,
    rmsNormEps: 1e-6,
    hiddenAct: "silu",
    subNorms: false,
    linearNormEps: null,
    biases: [],
    tieWordEmbeddings: false,
    embeddingType: "bf16",
    headType: "bf16",
    groups: { size: 128, weightScales: true, scaleType: "bf16" },
    qkNorm: true,
  });
  assert.deepEqual(config.ropeScaling, {
    ropeType: "yarn",
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    originalMaxPositionEmbeddings: 16384,
    attentionFactor: 0.1 * Math.log(4) + 1,
  });
  assert.deepEqual([config.task, config.maxPositionEmbeddings], ["generate", 65536]);
});

Deno.test("Ternary-Bonsai as a GGUF file has the factors' type that was seen", () => {
  const header = headerOf({ ...BONSAI_HEADER, linears: "PQ2_0" });
  const config = parse(BONSAI, header, { ...BY_GROUP, scaleType: "f16" });
  assert.deepEqual(config.spec.groups, { size: 128, weightScales: true, scaleType: "f16" });
});

Deno.test("BitNet-embedding 0.6B has norms in linears, and is for embeddings", () => {
  const config = parse(EMBEDDING, headerOf(EMBEDDING_HEADER));
  assert.equal(config.task, "embed");
  const { linearNormEps, qkNorm, tieWordEmbeddings, groups, headDim } = config.spec;
  assert.deepEqual(
    { linearNormEps, qkNorm, tieWordEmbeddings, groups, headDim },
    { linearNormEps: 1e-6, qkNorm: true, tieWordEmbeddings: true, groups: undefined, headDim: 128 },
  );
  assert.deepEqual(config.quantization, {
    kind: "bitnet",
    linearClass: "autobitlinear",
    mode: "online",
    useRmsNorm: false,
  });
  const { tensorNames } = config;
  assert.equal(tensorNames.inputNorm(3, "o"), "layers.3.self_attn.o_proj.norm.weight");
  assert.equal(tensorNames.headNorm(0, "key"), "layers.0.self_attn.k_norm.weight");
  assert.equal(tensorNames.embedding, "embed_tokens.weight");
});

Deno.test("a qwen3's head_dim is 128 where it is not said", () => {
  const config = parse({ ...EMBEDDING, head_dim: null }, headerOf(EMBEDDING_HEADER));
  assert.equal(config.spec.headDim, 128);
});

Deno.test("a qwen3 slides where it says so, by layer_types or from max_window_layers on", () => {
  const sliding = { ...BONSAI, use_sliding_window: true, sliding_window: 4096 };
  const spec = (change: JsonObject) =>
    parse({ ...sliding, ...change }, headerOf(BONSAI_HEADER), BY_GROUP).spec;
  const counted = spec({ max_window_layers: 30 }).sliding!;
  assert.deepEqual(
    [counted.window, counted.fullLayersTurn, counted.layers.indexOf(true)],
    [4096, true, 30],
  );
  const types = Array.from(
    { length: 36 },
    (_, i) => i === 5 ? "sliding_attention" : "full_attention",
  );
  assert.deepEqual(
    spec({ layer_types: types }).sliding!.layers,
    types.map((type) => type === "sliding_attention"),
  );
  const header = headerOf(BONSAI_HEADER);
  assertRefused(
    { ...sliding, layer_types: types.slice(1) },
    header,
    /layer_types must be a list of 36/,
    BY_GROUP,
  );
});

const BONSAI_ROPE = { rope_scaling: BONSAI.rope_scaling };

for (
  const [what, change, message] of [
    [
      "a window of text",
      { use_sliding_window: true, sliding_window: "4096" },
      /sliding_window must be/,
    ],
    ["a yarn that shrinks", { rope_scaling: { rope_type: "yarn", factor: 0.5 } }, /factor must be/],
    ["a yarn of no base", { rope_theta: 1 }, /rope_theta must be above 1/],
    ["a yarn whose borders cross", {
      rope_scaling: { rope_type: "yarn", factor: 4, beta_fast: 1, beta_slow: 32 },
    }, /beta_fast must be above beta_slow 32/],
    ["a partial RoPE", { partial_rotary_factor: 0.5 }, /partial_rotary_factor must be 1/],
    ["another head_dim", { head_dim: 64 }, /shape must be/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a qwen3 with ${what} is refused`, () => {
    assertRefused({ ...EMBEDDING, ...BONSAI_ROPE, ...change }, headerOf(EMBEDDING_HEADER), message);
  });
}

Deno.test("a qwen3 without its head norms, or with tensors of others, is refused", () => {
  const without = headerOf(EMBEDDING_HEADER);
  without.delete("layers.27.self_attn.k_norm.weight");
  assertRefused(EMBEDDING, without, /lacks 1 of the tensors.*27.self_attn.k_norm/);
  const others = headerOf(EMBEDDING_HEADER);
  others.set("layers.0.mlp.experts.0.up_proj.weight", { dtype: "BF16", shape: [1, 1] });
  assertRefused(EMBEDDING, others, /another architecture/);
});

Deno.test("an embedding model's vectors are the last token's unless a key or files say otherwise", () => {
  const header = headerOf(EMBEDDING_HEADER);
  const { task, embedding } = parse(EMBEDDING, header);
  assert.deepEqual({ task, embedding }, {
    task: "embed",
    embedding: { pooling: "last", normalize: true },
  });
  const files = { pooling: "cls", normalize: false } as const;
  assert.deepEqual(parseModelConfig(EMBEDDING, header, { embedding: files }).embedding, files);
  for (const pooling of ["mean", "cls", "last"]) {
    const { embedding } = parse({ ...EMBEDDING, pooling }, header);
    assert.deepEqual(embedding, { pooling, normalize: true });
  }
  assertRefused(
    { ...EMBEDDING, pooling: "median" },
    header,
    /pooling must be "mean" or "cls" or "last".*"median"/,
  );
});

Deno.test("attention to later tokens is refused whatever key asks for it", () => {
  const header = headerOf(EMBEDDING_HEADER);
  for (
    const [key, value] of [["is_causal", false], ["use_bidirectional_attention", "all"]] as const
  ) {
    assertRefused({ ...EMBEDDING, [key]: value }, header, /its tokens attend to later ones/);
  }
  const causal = { is_causal: true, use_bidirectional_attention: false };
  assert.equal(parse({ ...EMBEDDING, ...causal }, header).task, "embed");
});
