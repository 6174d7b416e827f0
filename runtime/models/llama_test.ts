import assert from "node:assert/strict";
import type { JsonObject } from "../json.ts";
import { assertRefused, BY_ROW, headerOf, mlp, parse } from "./test_helpers.ts";

/** TriLM 3.9B: unpacked f16 weights that are ternary as they stand. */
const TRILM: JsonObject = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 3072,
  intermediate_size: 9216,
  num_hidden_layers: 30,
  num_attention_heads: 24,
  num_key_value_heads: 24,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
  vocab_size: 50688,
};

const header = (linears: "F16" | "I2_S") =>
  headerOf({
    layers: 30,
    hidden: 3072,
    queries: 3072,
    keys: 3072,
    vocab: 50688,
    type: "F16",
    linears,
    head: true,
    layer: mlp(3072, 9216),
  });

Deno.test("TriLM is a llama with factors of rows, whose inputs are rounded by groups", () => {
  const { spec, quantization } = parse(TRILM, header("F16"), BY_ROW);
  assert.deepEqual(quantization, {
    kind: "ternary",
    scales: "row",
    groupSize: null,
    scaleType: "bf16",
  });
  assert.deepEqual(
    [spec.rowScales, spec.groups, spec.headDim, spec.embeddingType],
    [true, { size: 128, weightScales: false }, 128, "f16"],
  );
});

Deno.test("a factor a matrix needs none of rows; GGUF's types then have inputs rounded by token", () => {
  const byMatrix = { grain: "matrix", scaleType: "f16" } as const;
  const floats = parse(TRILM, header("F16"), byMatrix).spec;
  assert.deepEqual([floats.rowScales, floats.groups], [undefined, {
    size: 128,
    weightScales: false,
  }]);
  const stored = parse(TRILM, header("I2_S"), byMatrix).spec;
  assert.deepEqual([stored.rowScales, stored.groups], [undefined, undefined]);
});

Deno.test("a converted model says how inputs are rounded, whatever its weights would say", () => {
  const byMatrix = { grain: "matrix", scaleType: "f16" } as const;
  const groups = (input_group_size: number, type: "F16" | "I2_S") =>
    parse({ ...TRILM, input_group_size }, header(type), byMatrix).spec.groups;
  assert.equal(groups(0, "F16"), undefined);
  assert.deepEqual(groups(64, "I2_S"), { size: 64, weightScales: false });
  for (const size of [33, -32, 1 << 20]) {
    const json = { ...TRILM, input_group_size: size };
    assertRefused(json, header("F16"), /input_group_size must be a multiple of 32/, byMatrix);
  }
});
