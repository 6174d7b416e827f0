import type { ConfigReader } from "../config_reader.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import { readRopeScaling } from "../rope_scaling.ts";
import type { Architecture, Facts, Graph } from "./architecture.ts";
import { slidingLayers } from "./layer_types.ts";

const MAX_WINDOW = 2 ** 31 - 1;

/**
 * Gemma 3: outputs are normed before they are added, five of six layers slide and turn by a table of
 * their own, weights of norms are what is added to 1. Microsoft's BitNet-embedding 270M.
 *
 * Source: transformers' configuration_gemma3.py and modeling_gemma3.py.
 */
export const GEMMA3: Architecture = {
  modelType: "gemma3",
  aliases: ["gemma3_text"],
  defaults: {
    rmsNormEps: 1e-6,
    ropeTheta: 1e6,
    hiddenAct: "geluTanh",
    headDim: 256,
    maxPositionEmbeddings: 131072,
  },
  ropeSection: "full_attention",
  ownTensors: /\.(q_norm|k_norm|pre_feedforward_layernorm|post_feedforward_layernorm)\.weight$/,
  norms: {
    attentionOut: "post_attention_layernorm.weight",
    postAttention: "pre_feedforward_layernorm.weight",
    mlpOut: "post_feedforward_layernorm.weight",
  },
  graph,
};

function graph({ config, shape }: Facts): Graph {
  refuseOthers(config);
  const { hiddenSize, headDim, numHiddenLayers } = shape;
  const scalar = config.number("query_pre_attn_scalar", 1e-6, 1e6, 256);
  const period = config.count("sliding_window_pattern", MAX_WINDOW, 6);
  const window = config.count("sliding_window", MAX_WINDOW, 4096);
  const layers = slidingLayers(config, numHiddenLayers, period);
  return {
    spec: {
      qkNorm: true,
      postNorms: true,
      embeddingScale: Math.sqrt(hiddenSize),
      sliding: { window, layers, fullLayersTurn: true, localRope: true },
    },
    folds: {
      normOffset: config.flag("norm_weights_include_one", false) ? 0 : 1,
      // Attention divides scores by sqrt(headDim), Gemma by sqrt(query_pre_attn_scalar).
      queryNorm: Math.sqrt(headDim / scalar),
    },
    localRope: localRope(config),
  };
}

/** Parts of some Gemmas that have no ternary model, and no code here. */
function refuseOthers(config: ConfigReader): void {
  for (const key of ["attn_logit_softcapping", "final_logit_softcapping"]) {
    if (!config.has(key)) continue;
    throw new UnsupportedModelError(
      `Cannot run this model: ${key} must be null: current value is ${shown(config.get(key))}`,
    );
  }
}

function localRope(config: ConfigReader) {
  const section = config.child("rope_parameters")?.child("sliding_attention") ?? null;
  const holder = section?.has("rope_theta") ? section : null;
  return {
    ropeTheta: holder?.number("rope_theta", 1, 1e30) ??
      config.number("rope_local_base_freq", 1, 1e30, 10000),
    ropeScaling: readRopeScaling(section, MAX_WINDOW),
  };
}
