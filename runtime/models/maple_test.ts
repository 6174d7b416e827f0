import assert from "node:assert/strict";
import type { JsonObject } from "../json.ts";
import { shapeOf } from "../shapes.ts";
import {
  assertRefused,
  BY_ROW,
  headerOf,
  type HeaderOptions,
  headNorms,
  parse,
} from "./test_helpers.ts";

const LAYER_TYPES = Array.from(
  { length: 24 },
  (_, i) => i % 4 === 3 ? "full_attention" : "sliding_attention",
);

const MAPLE: JsonObject = {
  architectures: ["MapleForCausalLM"],
  model_type: "maple",
  hidden_size: 2048,
  moe_intermediate_size: 512,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  head_dim: 128,
  hidden_act: "silu",
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  partial_rotary_factor: 0.5,
  sliding_window: 512,
  layer_types: LAYER_TYPES,
  num_experts: 256,
  num_experts_per_tok: 8,
  norm_topk_prob: true,
  swiglu_limit: 7,
  max_position_embeddings: 128000,
  tie_word_embeddings: false,
  vocab_size: 151936,
  eos_token_id: 151645,
};

const STACKED = {
  "mlp.experts.gate_proj.weight": [256, 512, 2048],
  "mlp.experts.up_proj.weight": [256, 512, 2048],
  "mlp.experts.down_proj.weight": [256, 2048, 512],
};

const APART = Object.fromEntries(
  Array.from({ length: 256 }, (_, e) => [
    [`mlp.experts.${e}.gate_proj.weight`, [512, 2048]],
    [`mlp.experts.${e}.up_proj.weight`, [512, 2048]],
    [`mlp.experts.${e}.down_proj.weight`, [2048, 512]],
  ]).flat() as [string, number[]][],
);

function header(experts: HeaderOptions["layer"], more: HeaderOptions["layer"] = {}) {
  return headerOf({
    layers: 24,
    hidden: 2048,
    queries: 2048,
    keys: 512,
    vocab: 151936,
    type: "BF16",
    head: true,
    layer: { ...experts, "mlp.gate.weight": [256, 2048], ...headNorms(128), ...more },
  });
}

Deno.test("Maple 20B-A1B is the shape that is benchmarked", () => {
  const config = parse(MAPLE, header(STACKED), BY_ROW);
  assert.deepEqual(config.spec, shapeOf("maple-20b-a1b"));
  assert.deepEqual(config.maxPositionEmbeddings, 128000);
  assert.deepEqual(config.tensorNames.expert(3, 200, "down"), {
    path: "model.layers.3.mlp.experts.down_proj",
    stacked: true,
  });
});

Deno.test("gates are clamped at 7 unless config.json says another limit, or 0 for none", () => {
  const limit = (swiglu_limit: number | null) =>
    parse({ ...MAPLE, swiglu_limit }, header(STACKED), BY_ROW).spec.experts!.swigluLimit;
  assert.deepEqual([limit(null), limit(0.75), limit(0)], [7, 0.75, null]);
});

Deno.test("experts may be tensors of their own", () => {
  const config = parse(MAPLE, header(APART), BY_ROW);
  assert.deepEqual(config.spec, shapeOf("maple-20b-a1b"));
  assert.deepEqual(config.tensorNames.expert(3, 200, "down"), {
    path: "model.layers.3.mlp.experts.200.down_proj",
    stacked: false,
  });
  const lacking = header(APART);
  lacking.delete("model.layers.23.mlp.experts.255.up_proj.weight");
  assertRefused(MAPLE, lacking, /lacks 1 of .*23.mlp.experts.255.up_proj/, BY_ROW);
});

Deno.test("the published names and keys: word_embeddings, and which layers do not turn", () => {
  const tensors = header(APART);
  tensors.set("model.word_embeddings.weight", tensors.get("model.embed_tokens.weight")!);
  tensors.delete("model.embed_tokens.weight");
  const published = { ...MAPLE, num_shared_experts: 0, nope_on_global_attention: true };
  const config = parse(published, tensors, BY_ROW);
  assert.deepEqual(config.spec, shapeOf("maple-20b-a1b"));
  assert.equal(config.tensorNames.embedding, "model.word_embeddings.weight");
  const turned = parse({ ...published, nope_on_global_attention: false }, tensors, BY_ROW);
  assert.equal(turned.spec.sliding!.fullLayersTurn, true);
});

for (
  const [what, change, message] of [
    ["no experts", { num_experts: 0 }, /num_experts must be an integer/],
    [
      "more picks than experts",
      { num_experts_per_tok: 257 },
      /per_tok must be an integer from 1 to 256/,
    ],
    ["another number of experts", { num_experts: 128 }, /shape must be \[128,2048\]/],
    ["weights that are not normalised", { norm_topk_prob: false }, /norm_topk_prob must be true/],
    ["shared experts", { num_shared_experts: 1 }, /num_shared_experts must be 0/],
    ["layers without experts", { first_k_dense_replace: 2 }, /first_k_dense_replace must be 0/],
    ["a limit below 0", { swiglu_limit: -7 }, /swiglu_limit must be a number/],
    ["no window", { sliding_window: null }, /sliding_window must be an integer/],
    ["a part of a pair turned", { partial_rotary_factor: 0.01 }, /turns pairs of features/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a maple with ${what} is refused`, () => {
    assertRefused({ ...MAPLE, ...change }, header(STACKED), message, BY_ROW);
  });
}
