import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { LINEAR_NAMES } from "../codegen/model_spec.ts";
import { fixturePath } from "../tests/fixtures.ts";
import { openCheckpoint } from "./checkpoint.ts";
import {
  type ConfigOptions,
  type ModelConfig,
  parseModelConfig,
  readModelConfig,
} from "./config.ts";
import { CheckpointError, NotTernaryError, UnsupportedModelError } from "./errors.ts";
import type { JsonObject } from "./json.ts";
import type { SafetensorsType } from "./safetensors.ts";

type Tensors = Map<string, { dtype: SafetensorsType; shape: number[] }>;

/** A small packed Llama, as transformers writes it. */
const LLAMA: JsonObject = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 32,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  max_position_embeddings: 64,
  hidden_act: "silu",
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: [2, 3],
  quantization_config: { quant_method: "bitnet" },
};

/** 1bitLLM's b1.58 reproduction. */
const ONE_BIT: JsonObject = {
  ...LLAMA,
  architectures: ["BitnetForCausalLM"],
  weight_bits: 1,
  input_bits: 8,
  num_key_value_heads: 4,
  tie_word_embeddings: true,
  quantization_config: null,
};

interface Layout {
  packed?: boolean;
  keyValues?: number;
  head?: boolean;
  subNorms?: [attn: string, ffn: string];
  floats?: SafetensorsType;
}

/** Tensors that `LLAMA` with this layout asks for. */
function tensorsOf(
  { packed = true, keyValues = 8, head = true, subNorms, floats = "BF16" }: Layout = {},
): Tensors {
  const tensors: Tensors = new Map();
  const float = (name: string, ...shape: number[]) => tensors.set(name, { dtype: floats, shape });
  float("model.embed_tokens.weight", 32, 16);
  float("model.norm.weight", 16);
  if (head) float("lm_head.weight", 32, 16);
  for (const layer of ["model.layers.0", "model.layers.1"]) {
    float(`${layer}.input_layernorm.weight`, 16);
    float(`${layer}.post_attention_layernorm.weight`, 16);
    if (subNorms) {
      float(`${layer}.self_attn.${subNorms[0]}.weight`, 16);
      float(`${layer}.mlp.${subNorms[1]}.weight`, 24);
    }
    const linears: [string, number, number][] = [
      ["self_attn.q_proj", 16, 16],
      ["self_attn.k_proj", keyValues, 16],
      ["self_attn.v_proj", keyValues, 16],
      ["self_attn.o_proj", 16, 16],
      ["mlp.gate_proj", 24, 16],
      ["mlp.up_proj", 24, 16],
      ["mlp.down_proj", 16, 24],
    ];
    for (const [path, n, k] of linears) {
      if (!packed) float(`${layer}.${path}.weight`, n, k);
      else {
        tensors.set(`${layer}.${path}.weight`, { dtype: "U8", shape: [n / 4, k] });
        float(`${layer}.${path}.weight_scale`, 1);
      }
    }
  }
  return tensors;
}

function parse(
  change: JsonObject = {},
  tensors: Tensors = tensorsOf(),
  options: ConfigOptions = {},
): ModelConfig {
  return parseModelConfig({ ...LLAMA, ...change }, tensors, options);
}

function refuses(
  message: RegExp,
  change: JsonObject,
  tensors: Tensors = tensorsOf(),
  type: new (...args: never[]) => Error = CheckpointError,
): void {
  assert.throws(() => parse(change, tensors), (error: Error) => {
    assert.ok(error instanceof type, `${error.name}: ${error.message}`);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

Deno.test("a packed Llama is read as it says", () => {
  const config = parse();
  assert.deepEqual(config.spec, {
    hiddenSize: 16,
    intermediateSize: 24,
    numHiddenLayers: 2,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 4,
    vocabSize: 32,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: false,
    linearNormEps: null,
    biases: [],
    tieWordEmbeddings: false,
    embeddingType: "bf16",
    headType: "bf16",
  });
  assert.deepEqual(config.quantization, {
    kind: "bitnet",
    linearClass: "bitlinear",
    mode: "offline",
    useRmsNorm: false,
  });
  assert.deepEqual([config.ropeTheta, config.ropeScaling], [500000, null]);
  assert.deepEqual([config.bosTokenId, config.eosTokenIds], [1, [2, 3]]);
  assert.equal(config.tensorNames.linear(1, "down"), "model.layers.1.mlp.down_proj");
});

Deno.test("all fixture models are read, the float one only when asked", async () => {
  const expected: Record<string, string> = {};
  for (const name of readdirSync(fixturePath("models"))) {
    await using checkpoint = await openCheckpoint(fixturePath(`models/${name}`));
    if (name === "llama-plain-bf16") {
      await assert.rejects(readModelConfig(checkpoint), NotTernaryError);
      await assert.rejects(readModelConfig(checkpoint), /--quantize absmean/);
    }
    const config = await readModelConfig(checkpoint, { quantize: "absmean" });
    assert.equal(config.name, name);
    const { quantization: q, spec } = config;
    const kind = q.kind === "bitnet" ? `${q.linearClass} ${q.mode}` : q.kind;
    expected[name] = `${kind} ${spec.hiddenAct} ${spec.subNorms} ${spec.linearNormEps}`;
  }
  assert.deepEqual(expected, {
    "bitnet-2b4t-bf16": "autobitlinear online relu2 true null",
    "bitnet-2b4t-packed": "autobitlinear offline relu2 true null",
    "bitnet-2b4t-packed-v5config": "autobitlinear offline relu2 true null",
    "bitnet-silu-packed": "autobitlinear offline silu true null",
    "falcon3-158-packed": "bitlinear offline silu false null",
    "llama-autobit-offline": "autobitlinear offline silu false null",
    "llama-online-rmsnorm": "autobitlinear online silu false 0.000001",
    "llama-packed-rmsnorm": "bitlinear offline silu false 0.000001",
    "llama-plain-bf16": "absmean silu false null",
    "llama3-158-packed": "bitlinear offline silu false null",
    "llama3-158-packed-sharded": "bitlinear offline silu false null",
    "llama31-158-packed-ropescaled": "bitlinear offline silu false null",
  });
});

Deno.test("RoPE settings are found where transformers 4 and 5 put them", async () => {
  await using v5 = await openCheckpoint(fixturePath("models/bitnet-2b4t-packed-v5config"));
  assert.equal((await readModelConfig(v5)).ropeTheta, 500000);
  await using scaled = await openCheckpoint(fixturePath("models/llama31-158-packed-ropescaled"));
  assert.deepEqual((await readModelConfig(scaled)).ropeScaling, {
    ropeType: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositionEmbeddings: 64,
  });
  const linear = { rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 7 } };
  const config = parse({ ...linear, rope_theta: 9 });
  assert.deepEqual([config.ropeTheta, config.ropeScaling], [7, { ropeType: "linear", factor: 2 }]);
  assert.deepEqual(parse({ rope_scaling: { type: "linear", factor: 2 } }).ropeScaling, {
    ropeType: "linear",
    factor: 2,
  });
  refuses(
    /"dynamic" is not known/,
    { rope_scaling: { type: "dynamic" } },
    undefined,
    UnsupportedModelError,
  );
  refuses(/rope_scaling of config.json: factor must be/, { rope_scaling: { type: "linear" } });
  refuses(/high_freq_factor/, {
    rope_scaling: { rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 4 },
  });
});

for (const floats of ["F32", "F16", "BF16"] as const) {
  Deno.test(`1bitLLM's masters in ${floats} are quantised online, with their own sub-norms`, () => {
    const tensors = tensorsOf({
      packed: false,
      keyValues: 16,
      head: false,
      subNorms: ["inner_attn_ln", "ffn_layernorm"],
      floats,
    });
    for (const model_type of ["llama", "bitnet"]) {
      const config = parseModelConfig({ ...ONE_BIT, model_type }, tensors);
      assert.equal(config.modelType, "bitnet");
      assert.equal(config.spec.subNorms, true);
      assert.equal(config.spec.hiddenAct, "silu");
      assert.equal(config.spec.embeddingType, floats.toLowerCase());
      assert.equal(config.quantization.kind === "bitnet" && config.quantization.mode, "online");
      assert.match(
        config.tensorNames.norm(1, "attnSub"),
        /layers.1.self_attn.inner_attn_ln.weight/,
      );
      assert.match(config.tensorNames.norm(1, "ffnSub"), /layers.1.mlp.ffn_layernorm.weight/);
    }
  });
}

Deno.test("transformers' defaults stand in for absent keys", () => {
  const config = parse({
    rms_norm_eps: null,
    rope_theta: null,
    max_position_embeddings: null,
    hidden_act: null,
    eos_token_id: null,
    bos_token_id: null,
  });
  assert.equal(config.spec.rmsNormEps, 1e-6);
  assert.equal(config.ropeTheta, 10000);
  assert.equal(config.maxPositionEmbeddings, 2048);
  assert.deepEqual([config.bosTokenId, config.eosTokenIds], [null, []]);
});

Deno.test("the head is tied or not by flag and tensors together", () => {
  const both = parse({ tie_word_embeddings: true });
  assert.equal(both.tensorNames.head, "model.embed_tokens.weight");
  assert.match(both.notes.join(), /lm_head.weight is not used/);
  const neither = parse({}, tensorsOf({ head: false }));
  assert.equal(neither.spec.tieWordEmbeddings, true);
  assert.match(neither.notes.join(), /lm_head.weight is missing/);
  const unsaid = parse({ tie_word_embeddings: null });
  assert.equal(unsaid.spec.tieWordEmbeddings, false);
  assert.deepEqual(unsaid.notes, []);
});

Deno.test("biases are what the tensors have", () => {
  const tensors = tensorsOf();
  for (const layer of [0, 1]) {
    tensors.set(`model.layers.${layer}.self_attn.q_proj.bias`, { dtype: "BF16", shape: [16] });
    tensors.set(`model.layers.${layer}.mlp.down_proj.bias`, { dtype: "BF16", shape: [16] });
  }
  assert.deepEqual(parse({ attention_bias: true }, tensors).spec.biases, ["q", "down"]);
  tensors.delete("model.layers.1.mlp.down_proj.bias");
  refuses(/lacks 1 of the tensors.*layers.1.mlp.down_proj.bias/, {}, tensors);
  tensors.delete("model.layers.0.mlp.down_proj.bias");
  tensors.set("model.layers.1.mlp.up_proj.bias", { dtype: "BF16", shape: [24] });
  refuses(/would not use model.layers.1.mlp.up_proj.bias/, {}, tensors, UnsupportedModelError);
});

Deno.test("head_dim may differ from hidden_size / heads", () => {
  const tensors = tensorsOf();
  for (const layer of [0, 1]) {
    const path = `model.layers.${layer}.self_attn`;
    tensors.set(`${path}.q_proj.weight`, { dtype: "U8", shape: [8, 16] });
    tensors.set(`${path}.k_proj.weight`, { dtype: "U8", shape: [4, 16] });
    tensors.set(`${path}.v_proj.weight`, { dtype: "U8", shape: [4, 16] });
    tensors.set(`${path}.o_proj.weight`, { dtype: "U8", shape: [4, 32] });
  }
  assert.equal(parse({ head_dim: 8 }, tensors).spec.headDim, 8);
  refuses(/o_proj.*shape must be \[4,16\]|shape must be/, {}, tensors);
});

const WRONG_VALUES = [0, -1, 1.5, 1e7 + 1, 2 ** 53, "16", true, [], {}, NaN] as const;
const DIMENSIONS = [
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "vocab_size",
  "head_dim",
];

for (const key of DIMENSIONS) {
  Deno.test(`a wrong ${key} is one error that names it and its value`, () => {
    for (const value of WRONG_VALUES) {
      const json = { [key]: value } as unknown as JsonObject;
      refuses(new RegExp(`config.json: ${key} must be .*: current value is .`), json);
    }
    if (key !== "head_dim" && key !== "num_key_value_heads") {
      refuses(new RegExp(`${key} must be .*: current value is null`), { [key]: null });
    }
  });
}

for (
  const [what, change, message] of [
    ["an odd head_dim", { head_dim: 3 }, /head_dim must be even/],
    ["heads that don't divide", { num_key_value_heads: 3 }, /a divisor of 4/],
    ["heads that don't divide hidden_size", { num_attention_heads: 3 }, /divisor/],
    ["too many features", { head_dim: 1e6, num_attention_heads: 4 }, /head_dim must be at most/],
    ["a text epsilon", { rms_norm_eps: "1e-5" }, /rms_norm_eps must be a number/],
    ["a negative theta", { rope_theta: -1 }, /rope_theta must be a number/],
    ["a flag that is text", { tie_word_embeddings: "yes" }, /tie_word_embeddings must be true/],
    ["a list of types", { model_type: ["llama"] }, /model_type must be a string/],
    ["an eos that is text", { eos_token_id: "</s>" }, /eos_token_id must be a token id/],
    ["an eos list of text", { eos_token_id: [1, "a"] }, /eos_token_id must be a token id/],
    ["a quantization that is text", { quantization_config: "bitnet" }, /must be an object/],
    ["an unknown linear class", {
      quantization_config: { quant_method: "bitnet", linear_class: "x" },
    }, /linear_class must be "bitlinear" or "autobitlinear"/],
    ["a layer that is missing", { num_hidden_layers: 3 }, /lacks 16 of the tensors.*layers\.2\./],
    ["10,000 layers", { num_hidden_layers: 10000 }, /lacks 1[0-9]{3} of the tensors/],
    ["a larger vocabulary", { vocab_size: 10_000_000 }, /shape must be \[10000000,16\]/],
    ["a larger ffn", { intermediate_size: 28 }, /gate_proj.* shape must be \[7,16\]/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a config with ${what} is refused`, () => refuses(message, change));
}

for (
  const [what, change, message] of [
    ["of another type", { model_type: "qwen2" }, /type "qwen2": this version runs bitnet, llama/],
    ["with another activation", { hidden_act: "gelu" }, /hidden_act .*"gelu"/],
    ["with partial rotary", { partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ["of another quantisation", { quantization_config: { quant_method: "gptq" } }, /"gptq"/],
    ["packed without a section", { quantization_config: null }, /no quantization_config/],
    ["packed but online", {
      quantization_config: { quant_method: "bitnet", quantization_mode: "online" },
    }, /"online", but its weights are packed/],
    ["with float linears", {
      quantization_config: {
        quant_method: "bitnet",
        modules_to_not_convert: ["lm_head", "model.layers.0.mlp.down_proj"],
      },
    }, /modules_to_not_convert has model.layers.0.mlp.down_proj/],
  ] as readonly (readonly [string, JsonObject, RegExp])[]
) {
  Deno.test(`a model ${what} is not run`, () => {
    refuses(message, change, tensorsOf(), UnsupportedModelError);
  });
}

for (const name of ["q_norm", "experts.0.up_proj", "block_sparse_moe.gate"]) {
  Deno.test(`a model with ${name} tensors is of another architecture`, () => {
    const tensors = tensorsOf();
    tensors.set(`model.layers.0.self_attn.${name}.weight`, { dtype: "BF16", shape: [4] });
    refuses(/another architecture: .*layers.0/, {}, tensors, UnsupportedModelError);
  });
}

Deno.test("tensors of unknown use are ignored, sub-norms that would go unused are not", () => {
  const tensors = tensorsOf();
  tensors.set("model.layers.0.self_attn.rotary_emb.inv_freq", { dtype: "F32", shape: [2] });
  parse({}, tensors);
  tensors.set("model.layers.1.mlp.ffn_sub_norm.weight", { dtype: "BF16", shape: [24] });
  refuses(/would not use model.layers.1.mlp.ffn_sub_norm/, {}, tensors, UnsupportedModelError);
});

Deno.test("weights of a wrong type are refused", () => {
  const tensors = tensorsOf();
  tensors.set("model.embed_tokens.weight", { dtype: "F64", shape: [32, 16] });
  refuses(/embed_tokens.* must be F32, F16 or BF16: .*F64/, {}, tensors, UnsupportedModelError);
  const mixed = tensorsOf();
  mixed.set("model.layers.1.mlp.up_proj.weight", { dtype: "I8", shape: [6, 16] });
  refuses(/up_proj.*must be U8: current value is I8/, {}, mixed, UnsupportedModelError);
});

Deno.test("a float model needs --quantize absmean, a ternary master does not", () => {
  const floats = tensorsOf({ packed: false });
  const plain = { quantization_config: null };
  refuses(/plain floating point.*--quantize absmean/, plain, floats, NotTernaryError);
  assert.deepEqual(parse(plain, floats, { quantize: "absmean" }).quantization, { kind: "absmean" });
  refuses(/weights are not packed.*--quantize absmean/, {}, floats, NotTernaryError);
  const online = { quant_method: "bitnet", quantization_mode: "online" };
  const config = parse({ quantization_config: online }, floats);
  assert.equal(config.quantization.kind === "bitnet" && config.quantization.mode, "online");
});

Deno.test("any change of a real config is an error of ours or a config that fits", async () => {
  const folder = fixturePath("models/llama-packed-rmsnorm");
  const sound = JSON.parse(readFileSync(`${folder}/config.json`, "utf8")) as JsonObject;
  await using checkpoint = await openCheckpoint(folder);
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(0, 1, 2, 4, 8, 256, 1e6, 2 ** 31, 2 ** 53, -1, 0.5),
    fc.constantFrom("llama", "bitnet", "relu2", "online", "autobitlinear"),
  );
  const keys = [...Object.keys(sound), "rope_parameters", "partial_rotary_factor", "__proto__"];
  const changes = fc.array(fc.tuple(fc.constantFrom(...keys), value), { maxLength: 3 });
  fc.assert(
    fc.property(changes, (list) => {
      const json = { ...sound, ...Object.fromEntries(list) } as JsonObject;
      try {
        const { spec } = parseModelConfig(json, checkpoint.tensors);
        assert.equal(spec.hiddenSize * spec.vocabSize, 256 * 512);
        assert.ok(spec.biases.every((name) => LINEAR_NAMES.includes(name)));
      } catch (error) {
        const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
        assert.ok(isOurs, String(error));
        assert.doesNotMatch(error.message, /\n/);
      }
    }),
    { numRuns: 1000 },
  );
});
