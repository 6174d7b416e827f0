import assert from "node:assert/strict";
import type { JsonObject } from "../json.ts";
import {
  assertRefused,
  headerOf,
  type HeaderOptions,
  headNorms,
  inputNorms,
  mlp,
  parse,
} from "./test_helpers.ts";

const LAYER_TYPES = Array.from(
  { length: 18 },
  (_, i) => (i + 1) % 6 === 0 ? "full_attention" : "sliding_attention",
);

/** Microsoft's BitNet-embedding 270M. */
const EMBEDDING: JsonObject = {
  architectures: ["Gemma3TextModel"],
  model_type: "gemma3_text",
  hidden_size: 640,
  intermediate_size: 2048,
  num_hidden_layers: 18,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 256,
  hidden_activation: "gelu_pytorch_tanh",
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  rope_local_base_freq: 10000,
  query_pre_attn_scalar: 256,
  sliding_window: 512,
  layer_types: LAYER_TYPES,
  attn_logit_softcapping: null,
  final_logit_softcapping: null,
  use_bidirectional_attention: false,
  max_position_embeddings: 32768,
  tie_word_embeddings: true,
  vocab_size: 262144,
  bos_token_id: 2,
  eos_token_id: 1,
};

const HEADER: HeaderOptions = {
  layers: 18,
  hidden: 640,
  queries: 1024,
  keys: 256,
  vocab: 262144,
  type: "BF16",
  prefix: "",
  layer: {
    ...mlp(640, 2048),
    ...headNorms(256),
    ...inputNorms(640, 1024, 2048),
    "pre_feedforward_layernorm.weight": [640],
    "post_feedforward_layernorm.weight": [640],
  },
};

Deno.test("BitNet-embedding 270M is a gemma3 with norms in linears", () => {
  const config = parse(EMBEDDING, headerOf(HEADER));
  assert.deepEqual([config.modelType, config.task], ["gemma3", "embed"]);
  const { spec } = config;
  assert.deepEqual(
    [spec.hiddenAct, spec.qkNorm, spec.postNorms, spec.linearNormEps, spec.embeddingScale],
    ["geluTanh", true, true, 1e-6, Math.sqrt(640)],
  );
  assert.deepEqual(spec.sliding, {
    window: 512,
    layers: LAYER_TYPES.map((type) => type === "sliding_attention"),
    fullLayersTurn: true,
    localRope: true,
  });
  assert.deepEqual(config.localRope, { ropeTheta: 10000, ropeScaling: null });
  assert.deepEqual(config.folds, { normOffset: 1, finalNorm: 1, queryNorm: 1 });
  assert.deepEqual(
    (["input", "attentionOut", "postAttention", "mlpOut"] as const).map((which) =>
      config.tensorNames.norm(0, which)
    ),
    ["input", "post_attention", "pre_feedforward", "post_feedforward"].map((name) =>
      `layers.0.${name}_layernorm.weight`
    ),
  );
});

Deno.test("a gemma3's RoPE tables are found where transformers 5 puts them", () => {
  const config = parse({
    ...EMBEDDING,
    rope_theta: null,
    rope_local_base_freq: null,
    rope_parameters: {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 500000 },
      sliding_attention: { rope_type: "default", rope_theta: 20000 },
    },
  }, headerOf(HEADER));
  assert.deepEqual([config.ropeTheta, config.ropeScaling], [500000, {
    ropeType: "linear",
    factor: 8,
  }]);
  assert.deepEqual(config.localRope, { ropeTheta: 20000, ropeScaling: null });
});

Deno.test("a gemma3's layers follow sliding_window_pattern, each sixth without it", () => {
  const layers = (change: JsonObject) =>
    parse({ ...EMBEDDING, layer_types: null, ...change }, headerOf(HEADER)).spec.sliding!.layers;
  assert.deepEqual(layers({}), LAYER_TYPES.map((type) => type === "sliding_attention"));
  assert.equal(layers({ sliding_window_pattern: 3 }).filter((slides) => !slides).length, 6);
});

Deno.test("query_pre_attn_scalar goes into the query norm, norms of GGUF files have their 1", () => {
  const change = { query_pre_attn_scalar: 64, norm_weights_include_one: true };
  const config = parse({ ...EMBEDDING, ...change }, headerOf(HEADER));
  assert.deepEqual(config.folds, { normOffset: 0, finalNorm: 1, queryNorm: 2 });
});

for (
  const [what, change, message] of [
    ["caps of scores", { attn_logit_softcapping: 50 }, /attn_logit_softcapping must be null/],
    ["caps of logits", { final_logit_softcapping: 30 }, /final_logit_softcapping must be null/],
    [
      "attention both ways",
      { use_bidirectional_attention: true },
      /attend to later ones \(use_bidirectional_attention is true\)/,
    ],
    ["unknown layers", { layer_types: LAYER_TYPES.map(() => "linear") }, /layer_types must be of/],
    ["too few layer types", { layer_types: [] }, /layer_types must be a list of 18/],
    ["a scalar of 0", { query_pre_attn_scalar: 0 }, /query_pre_attn_scalar must be a number/],
    ["another GELU", { hidden_activation: "gelu" }, /hidden_act must be one of/],
    ["a window of 0", { sliding_window: 0 }, /sliding_window must be an integer/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a gemma3 with ${what} is refused`, () => {
    assertRefused({ ...EMBEDDING, ...change }, headerOf(HEADER), message);
  });
}
