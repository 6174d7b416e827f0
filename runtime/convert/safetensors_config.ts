/**
 * The config.json of a packed model, as transformers reads it.
 *
 * Source: transformers' utils/quantization_config.py and integrations/bitnet.py.
 */
import type { ModelConfig } from "../config.ts";
import { isJsonObject, type JsonObject, parseJson } from "../json.ts";
import { INPUT_GROUP_KEY } from "../quantization.ts";
import type { Source } from "./source.ts";

/** `bitlinear` divides by weight_scale and `autobitlinear` multiplies, a bias too. */
type LinearClass = "bitlinear" | "autobitlinear";

/**
 * Whether tensors are made anew from what their model means by them: GGUF and packed files have norms
 * with factors of the graph in them, and no names or types that are worth keeping.
 */
export function isRebuilt({ checkpoint }: Source): boolean {
  return checkpoint.format !== "safetensors";
}

export function linearClassOf(source: Source): LinearClass {
  const { quantization, spec } = source.config;
  if (!isRebuilt(source) && quantization.kind === "bitnet" && quantization.mode === "offline") {
    return quantization.linearClass;
  }
  return spec.biases.length > 0 ? "bitlinear" : "autobitlinear";
}

/** The float32 whose reciprocal is the factor, where there is one; else the nearest. */
export function reciprocalOf(factor: number): number {
  const words = Uint32Array.of(0);
  const floats = new Float32Array(words.buffer);
  floats[0] = 1 / factor;
  const nearest = words[0];
  for (const word of [nearest, nearest - 1, nearest + 1]) {
    words[0] = word;
    if (Math.fround(1 / floats[0]) === factor) return floats[0];
  }
  return Math.fround(1 / factor);
}

/** What is left of a factor: not all are reciprocals of float32 numbers. */
export function writtenScale(source: Source, factor: number): number {
  if (linearClassOf(source) === "autobitlinear") return factor;
  return Math.fround(1 / reciprocalOf(factor));
}

export async function packedConfigText(source: Source): Promise<string> {
  const { checkpoint, config } = source;
  const json = parseJson(checkpoint.configText, "config.json") as JsonObject;
  const before = isJsonObject(json.quantization_config ?? null)
    ? json.quantization_config as JsonObject
    : {};
  const { linearNormEps } = config.spec;
  const norms = linearNormEps === null ? {} : { use_rms_norm: true, rms_norm_eps: linearNormEps };
  const quantization = {
    quant_method: "bitnet",
    linear_class: linearClassOf(source),
    quantization_mode: "offline",
    modules_to_not_convert: before.modules_to_not_convert ?? ["lm_head"],
    ...norms,
  };
  const written = {
    ...withKnownRope(isRebuilt(source) ? rebuilt(json, config) : json),
    ...inputParts(config),
    ...await taskParts(source, json),
    quantization_config: quantization,
  };
  return `${JSON.stringify(written, null, 2)}\n`;
}

/** Keys of what is in the norms' weights already are set to what changes nothing. */
function rebuilt(json: JsonObject, { modelType, spec }: ModelConfig): JsonObject {
  const { i2s_layout: _, norm_weights_include_one: __, ...kept } = json;
  return {
    ...kept,
    tie_word_embeddings: spec.tieWordEmbeddings,
    ...(modelType === "gemma3" ? { query_pre_attn_scalar: spec.headDim } : {}),
    ...(modelType === "minicpm" ? { dim_model_base: spec.hiddenSize } : {}),
  };
}

/** How inputs are rounded, where it is not as transformers does it: a key that it passes over. */
function inputParts({ spec: { groups } }: ModelConfig): JsonObject {
  return groups === undefined ? {} : { [INPUT_GROUP_KEY]: groups.size };
}

/**
 * That a model is for embeddings, as a key of ours: Microsoft's name for norms of linears says it as well,
 * and they have transformers' here.
 */
async function taskParts(source: Source, json: JsonObject): Promise<JsonObject> {
  const { checkpoint: { companions }, config: { task, embedding } } = source;
  if (task !== "embed" || json.pooling !== undefined) return {};
  const hasFiles = await companions.text("modules.json") !== null;
  return hasFiles ? {} : { pooling: embedding.pooling };
}

/**
 * What a GGUF file divides frequencies by, as a type of transformers: "longrope" with one table for
 * short and long contexts, and no change of the attention.
 */
function withKnownRope(json: JsonObject): JsonObject {
  const scaling = json.rope_scaling ?? null;
  if (!isJsonObject(scaling) || scaling.rope_type !== "divisors") return json;
  const rope = {
    rope_type: "longrope",
    short_factor: scaling.divisors,
    long_factor: scaling.divisors,
    original_max_position_embeddings: json.max_position_embeddings,
    attention_factor: 1,
  };
  return { ...json, rope_scaling: rope };
}
