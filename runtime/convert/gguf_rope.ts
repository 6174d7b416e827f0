/**
 * How a GGUF file says that RoPE's frequencies are scaled: by keys, or by tables of what each is divided
 * by.
 *
 * Source: llama.cpp's src/llama-model.cpp and src/llama-context.cpp for what readers make of them.
 */
import { rotaryDim } from "../../codegen/model_spec.ts";
import type { ModelConfig, RopeScaling } from "../config.ts";
import { exactLog } from "../exact_math.ts";
import { ROPE_FACTORS } from "../gguf/names.ts";
import { isJsonObject, type JsonObject, parseJson } from "../json.ts";
import { type ArchitectureName, cannot } from "./gguf_architectures.ts";
import type { GgufValue } from "./gguf_file.ts";

/** A key behind the architecture's name. */
export type ArchitectureKey = GgufValue;

export function ropeKeys({ ropeScaling: scaling, localRope }: ModelConfig): ArchitectureKey[] {
  if (localRope !== null && localRope.ropeScaling !== null) {
    throw cannot(
      "the RoPE of its sliding layers is scaled, which readers do not do: use --to packed",
    );
  }
  const type = (name: string): ArchitectureKey => ["rope.scaling.type", "string", name];
  switch (scaling?.ropeType) {
    case "linear":
      return [type("linear"), ["rope.scaling.factor", "float32", scaling.factor]];
    case "yarn":
      return [type("yarn"), ...yarnKeys(scaling)];
    case "longrope":
      return [
        type("longrope"),
        [
          "rope.scaling.original_context_length",
          "uint32",
          scaling.originalMaxPositionEmbeddings,
        ],
        ["rope.scaling.attn_factor", "float32", scaling.attentionFactor],
      ];
    default:
      return [];
  }
}

const YARN = { betaFast: 32, betaSlow: 1 };

function yarnKeys(yarn: Extract<RopeScaling, { ropeType: "yarn" }>): ArchitectureKey[] {
  const { factor, betaFast, betaSlow, originalMaxPositionEmbeddings: original } = yarn;
  const attention = factor <= 1 ? 1 : 0.1 * exactLog(factor) + 1;
  if (!yarn.truncate || Math.fround(yarn.attentionFactor) !== Math.fround(attention)) {
    throw cannot("readers have yarn with its own attention factor only: use --to packed");
  }
  return [
    ["rope.scaling.factor", "float32", factor],
    ["rope.scaling.original_context_length", "uint32", original],
    ...(betaFast === YARN.betaFast
      ? []
      : [["rope.scaling.yarn_beta_fast", "float32", betaFast] as const]),
    ...(betaSlow === YARN.betaSlow
      ? []
      : [["rope.scaling.yarn_beta_slow", "float32", betaSlow] as const]),
  ];
}

/**
 * Positions for which a model is made: with longrope those of its longer table.
 *
 * @param configText The model's config.json.
 */
export function contextLength(config: ModelConfig, configText: string): number {
  const { maxPositionEmbeddings } = config;
  if (config.ropeScaling?.ropeType !== "longrope") return maxPositionEmbeddings;
  const positions = configJson(configText).max_position_embeddings;
  return typeof positions === "number" ? positions : maxPositionEmbeddings;
}

/** Tables by their names, each of a float for each pair of features. */
export function ropeTables(
  config: ModelConfig,
  arch: ArchitectureName,
  configText: string,
): [name: string, values: Float32Array][] {
  const { ropeScaling: scaling, ropeTheta, spec } = config;
  if (scaling?.ropeType === "longrope") {
    if (arch !== "minicpm") {
      throw cannot(`readers' arch ${arch} has no longrope: use --to packed`);
    }
    return [
      [ROPE_FACTORS.long, longFactors(configText, spec.headDim / 2)],
      [ROPE_FACTORS.short, Float32Array.from(scaling.shortFactor)],
    ];
  }
  const divisors = ropeDivisors(ropeTheta, rotaryDim(spec), scaling);
  if (divisors === null) return [];
  if (arch !== "llama" && arch !== "minicpm") {
    throw cannot(`readers' arch ${arch} has no table of RoPE's factors: use --to packed`);
  }
  return [[ROPE_FACTORS.all, divisors]];
}

/** Those of longer contexts, which are not used here. */
function longFactors(configText: string, pairs: number): Float32Array {
  const json = configJson(configText);
  const sections = [json.rope_parameters, json.rope_scaling].filter((each) =>
    isJsonObject(each ?? null)
  ) as JsonObject[];
  const factors = sections.map(({ long_factor }) => long_factor).find(Array.isArray);
  if (factors?.length === pairs && factors.every((factor) => Number(factor) > 0)) {
    return Float32Array.from(factors, Number);
  }
  throw cannot(`long_factor must be a list of ${pairs} positive numbers: use --to packed`);
}

function configJson(configText: string): JsonObject {
  return parseJson(configText, "config.json") as JsonObject;
}

/**
 * What each pair's frequency is divided by, as llama.cpp keeps it in rope_freqs.weight; null where
 * keys say it all.
 *
 * Source: transformers' modeling_rope_utils.py, _compute_llama3_parameters.
 */
function ropeDivisors(
  theta: number,
  features: number,
  scaling: RopeScaling | null,
): Float32Array | null {
  if (scaling?.ropeType === "divisors") return Float32Array.from(scaling.divisors);
  if (scaling?.ropeType !== "llama3") return null;
  const { factor, lowFreqFactor: low, highFreqFactor: high } = scaling;
  const original = scaling.originalMaxPositionEmbeddings;
  return Float32Array.from({ length: features / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** (2 * i / features);
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return factor;
    const smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
