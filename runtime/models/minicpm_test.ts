import assert from "node:assert/strict";
import type { JsonObject } from "../json.ts";
import { assertRefused, BY_ROW, headerOf, type HeaderOptions, mlp, parse } from "./test_helpers.ts";

const FACTORS = Array.from({ length: 64 }, (_, i) => 1 + i / 16);

/** BitCPM4 8B: the body of MiniCPM4. */
const BITCPM: JsonObject = {
  architectures: ["MiniCPMForCausalLM"],
  model_type: "minicpm",
  hidden_size: 4096,
  intermediate_size: 16384,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 2,
  hidden_act: "silu",
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  rope_scaling: {
    rope_type: "longrope",
    long_factor: FACTORS,
    short_factor: FACTORS,
    original_max_position_embeddings: 32768,
  },
  max_position_embeddings: 32768,
  scale_emb: 12,
  scale_depth: 1.4,
  dim_model_base: 256,
  tie_word_embeddings: false,
  vocab_size: 73448,
  bos_token_id: 1,
  eos_token_id: [2, 73440],
};

const HEADER: HeaderOptions = {
  layers: 32,
  hidden: 4096,
  queries: 4096,
  keys: 256,
  vocab: 73448,
  type: "BF16",
  head: true,
  layer: mlp(4096, 16384),
};

Deno.test("BitCPM4 is a minicpm: scaled embeddings, outputs and logits, longrope", () => {
  const config = parse(BITCPM, headerOf(HEADER), BY_ROW);
  assert.equal(config.modelType, "minicpm");
  const { spec } = config;
  assert.deepEqual([spec.embeddingScale, spec.residualScale], [12, 1.4 / Math.sqrt(32)]);
  assert.deepEqual(config.folds, { normOffset: 0, finalNorm: 1 / 16, queryNorm: 1 });
  assert.deepEqual([spec.rowScales, spec.groups], [true, { size: 128, weightScales: false }]);
  assert.deepEqual(config.ropeScaling, {
    ropeType: "longrope",
    shortFactor: FACTORS,
    originalMaxPositionEmbeddings: 32768,
    attentionFactor: 1,
  });
  assert.deepEqual(config.notes, []);
});

Deno.test("longrope reaches to the original context, and says that it stops there", () => {
  const config = parse({ ...BITCPM, max_position_embeddings: 131072 }, headerOf(HEADER), BY_ROW);
  assert.equal(config.maxPositionEmbeddings, 32768);
  assert.match(config.notes.join(), /factors of more than 32768 positions are not used/);
  const { ropeScaling } = config;
  const expected = Math.sqrt(1 + Math.log(4) / Math.log(32768));
  assert.ok(
    ropeScaling?.ropeType === "longrope" &&
      Math.abs(ropeScaling.attentionFactor - expected) < 1e-14,
  );
});

Deno.test("MiniCPM4's sparse attention is said to be off", () => {
  const config = parse({ ...BITCPM, sparse_config: { topk: 64 } }, headerOf(HEADER), BY_ROW);
  assert.match(config.notes.join(), /sparse_config is not used/);
});

for (
  const [what, change, message] of [
    ["no base", { dim_model_base: 0 }, /dim_model_base must be a number/],
    ["a scale of text", { scale_emb: "12" }, /scale_emb must be a number/],
    ["a negative depth", { scale_depth: -1.4 }, /scale_depth must be a number/],
    ["too few factors", {
      rope_scaling: { rope_type: "longrope", short_factor: [1, 2], long_factor: [1, 2] },
    }, /rope_scaling must be of 64 factors: current value is .*2 factors/],
    [
      "no short factors",
      { rope_scaling: { rope_type: "longrope" } },
      /short_factor must be a list/,
    ],
    ["factors of 0", {
      rope_scaling: { rope_type: "longrope", short_factor: FACTORS.map(() => 0) },
    }, /short_factor must be a list of numbers from/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a minicpm with ${what} is refused`, () => {
    assertRefused({ ...BITCPM, ...change }, headerOf(HEADER), message, BY_ROW);
  });
}
