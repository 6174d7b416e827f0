import type { ConfigReader } from "../config_reader.ts";
import { UnsupportedModelError } from "../errors.ts";
import { floatTypeOf } from "../expected_tensors.ts";
import type { Architecture, Facts, Graph } from "./architecture.ts";
import { slidingLayers } from "./layer_types.ts";

const MAX_WINDOW = 2 ** 31 - 2;
const MAX_EXPERTS = 65536;
/** The model's own code has this number in it: a config.json need not say it. 0: not clamped. */
const SWIGLU_LIMIT = 7;

/**
 * DeepGrove's Maple: every layer is a mixture of experts; three of four layers slide, and only these
 * turn their heads, in part. Linears and experts are floats with one magnitude a row.
 *
 * The model's own code gives FlashAttention the window (sliding_window, 0), which counts the positions
 * before a token: it sees one more than that. llama.cpp's key counts all.
 *
 * Sources: the model's own modeling_maple.py, as ports to vLLM and others describe it, and llama.cpp's
 * converter and graph of `maple`.
 */
export const MAPLE: Architecture = {
  modelType: "maple",
  defaults: { rmsNormEps: 1e-6, ropeTheta: 10000, hiddenAct: "silu", headDim: 128 },
  intermediateKey: "moe_intermediate_size",
  turnsInPart: true,
  // No kernel has experts and groups; see the README for what that costs.
  takesInt8: true,
  ownTensors: /\.(q_norm|k_norm)\.weight$|\.mlp\.experts\./,
  graph,
};

/** partial_rotary_factor of a head's features, as transformers rounds it. */
function rotaryFeatures(config: ConfigReader, headDim: number): number {
  const holder = config.child("rope_parameters") ?? config;
  const share = (holder.has("partial_rotary_factor") ? holder : config)
    .number("partial_rotary_factor", 0, 1, 0.5);
  const turned = Math.floor(headDim * share);
  if (turned < 2 || turned % 2 !== 0) {
    config.fail("partial_rotary_factor", "such that it turns pairs of features", share);
  }
  return turned;
}

function graph({ config, tensors, shape }: Facts): Graph {
  const numExperts = config.count("num_experts", MAX_EXPERTS);
  const numExpertsPerTok = config.count("num_experts_per_tok", numExperts);
  if (!config.flag("norm_topk_prob", true)) {
    throw new UnsupportedModelError(
      "Cannot run this model: norm_topk_prob must be true: current value is false",
    );
  }
  for (const key of ["num_shared_experts", "first_k_dense_replace"]) {
    const count = config.has(key) ? config.number(key, 0, MAX_EXPERTS) : 0;
    if (count === 0) continue;
    throw new UnsupportedModelError(
      `Cannot run this model: ${key} must be 0: current value is ${count}`,
    );
  }
  const turned = rotaryFeatures(config, shape.headDim);
  const limit = config.number("swiglu_limit", 0, 1e6, SWIGLU_LIMIT);
  return {
    spec: {
      qkNorm: true,
      rowScales: true,
      ...(turned === shape.headDim ? {} : { rotaryDim: turned }),
      sliding: {
        window: config.count("sliding_window", MAX_WINDOW) + 1,
        layers: slidingLayers(config, shape.numHiddenLayers, 4),
        fullLayersTurn: !config.flag("nope_on_global_attention", true),
      },
      experts: {
        numExperts,
        numExpertsPerTok,
        routerType: floatTypeOf(tensors, "model.layers.0.mlp.gate.weight"),
        swigluLimit: limit === 0 ? null : limit,
      },
    },
  };
}
