/**
 * A model's keys in a GGUF file.
 *
 * Sources: the gguf package's constants.py for names; llama.cpp's src/models/*.cpp for which each
 * architecture reads.
 */
import { type ModelSpec, rotaryDim } from "../../codegen/model_spec.ts";
import type { ModelConfig } from "../config.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import { GGUF_INPUT_GROUP_KEY } from "../gguf/config.ts";
import type { Pooling } from "../pooling.ts";
import type { TernaryType } from "./formats.ts";
import type { GgufArchitecture } from "./gguf_architectures.ts";
import type { GgufValue } from "./gguf_file.ts";
import { type ArchitectureKey, contextLength, ropeKeys } from "./gguf_rope.ts";
import { ggufTokenizer } from "./gguf_tokenizer.ts";
import type { Source } from "./source.ts";

/** general.file_type, where the type's owner has a number. 40 is microsoft/BitNet's for I2_S. */
const FILE_TYPES: Readonly<Partial<Record<TernaryType, number>>> = {
  tq1_0: 36,
  tq2_0: 37,
  q2_0: 41,
  i2_s: 40,
};

const POOLING_TYPES: Partial<Record<Pooling, number>> = { mean: 1, cls: 2, last: 3 };

export async function ggufKeys(
  source: Source,
  { name: arch }: GgufArchitecture,
  type: TernaryType,
  pre?: string,
): Promise<GgufValue[]> {
  const { checkpoint: { companions, configText }, config, tokenizer, defaults } = source;
  const fileType = FILE_TYPES[type];
  const keys: ArchitectureKey[] = [
    ...shapeKeys(config, configText),
    ["rope.freq_base", "float32", config.ropeTheta],
    ["attention.layer_norm_rms_epsilon", "float32", config.spec.rmsNormEps],
    ...ropeKeys(config),
    ...OWN_KEYS[arch]?.(config) ?? [],
    ...poolingKeys(config),
  ];
  const { vocabSize } = config.spec;
  return [
    ["general.architecture", "string", arch],
    ["general.type", "string", "model"],
    ["general.name", "string", config.name],
    ...(fileType === undefined ? [] : [["general.file_type", "uint32", fileType] as const]),
    ["general.quantization_version", "uint32", 2],
    ...inputKeys(config.spec),
    ...keys.map(([key, kind, value]): GgufValue => [`${arch}.${key}`, kind, value]),
    ...await ggufTokenizer({ companions, tokenizer, defaults, vocabSize, pre }),
  ];
}

/** How inputs are rounded does not follow from weights. */
function inputKeys({ groups }: ModelSpec): GgufValue[] {
  return groups?.weightScales ? [] : [[GGUF_INPUT_GROUP_KEY, "uint32", groups?.size ?? 0]];
}

function shapeKeys(config: ModelConfig, configText: string): ArchitectureKey[] {
  const { spec } = config;
  const counts: Record<string, number> = {
    block_count: spec.numHiddenLayers,
    context_length: contextLength(config, configText),
    embedding_length: spec.hiddenSize,
    ...(spec.experts === undefined
      ? { feed_forward_length: spec.intermediateSize }
      : { expert_feed_forward_length: spec.intermediateSize }),
    "attention.head_count": spec.numAttentionHeads,
    "attention.head_count_kv": spec.numKeyValueHeads,
    "attention.key_length": spec.headDim,
    "attention.value_length": spec.headDim,
    vocab_size: spec.vocabSize,
    "rope.dimension_count": rotaryDim(spec),
  };
  return Object.entries(counts).map(([key, count]) => [key, "uint32", count]);
}

/** No key says whether vectors have length 1: that is up to those who ask for them. */
function poolingKeys({ task, embedding }: ModelConfig): ArchitectureKey[] {
  if (task !== "embed") return [];
  const type = POOLING_TYPES[embedding.pooling];
  if (type !== undefined) return [["pooling_type", "uint32", type]];
  throw new UnsupportedModelError(
    `Cannot write this model as GGUF, which has no pooling ${shown(embedding.pooling)}: write ` +
      "safetensors, or a .trilith file",
  );
}

/** What an architecture has beyond the keys of all. */
const OWN_KEYS: Partial<
  Record<GgufArchitecture["name"], (config: ModelConfig) => ArchitectureKey[]>
> = {
  gemma3({ spec, localRope }) {
    const { window, layers } = spec.sliding!;
    if (!layers.includes(true)) return [];
    const period = periodOf(layers);
    return [
      ["attention.sliding_window", "uint32", window],
      period === null
        ? ["attention.sliding_window_pattern", "bool", layers]
        : ["attention.sliding_window_pattern", "uint32", period],
      ["rope.freq_base_swa", "float32", localRope!.ropeTheta],
    ];
  },
  minicpm({ spec }) {
    return [
      ["embedding_scale", "float32", spec.embeddingScale ?? 1],
      ["residual_scale", "float32", spec.residualScale ?? 1],
      // The final norm's weights have the factor of logits in them.
      ["logit_scale", "float32", 1],
    ];
  },
  maple: ({ spec }) => mapleKeys(spec),
};

function mapleKeys({ experts, sliding, numHiddenLayers }: ModelSpec): ArchitectureKey[] {
  const { numExperts, numExpertsPerTok, swigluLimit } = experts!;
  return [
    ["expert_count", "uint32", numExperts],
    ["expert_used_count", "uint32", numExpertsPerTok],
    ["attention.sliding_window", "uint32", sliding!.window],
    ["attention.sliding_window_pattern", "bool", sliding!.layers],
    // 0 is no limit.
    ["swiglu_clamp_exp", "float32", new Array(numHiddenLayers).fill(swigluLimit ?? 0)],
  ];
}

/** The p of which every pth layer sees all positions and no other, or null. */
function periodOf(layers: readonly boolean[]): number | null {
  const period = layers.indexOf(false) + 1 || layers.length + 1;
  return layers.every((slides, layer) => slides === ((layer + 1) % period !== 0)) ? period : null;
}
