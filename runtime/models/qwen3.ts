import type { Architecture, Facts } from "./architecture.ts";
import { slidingLayers } from "./layer_types.ts";

const MAX_WINDOW = 2 ** 31 - 1;

/**
 * A llama whose query and key heads are normed: Ternary-Bonsai, Microsoft's BitNet-embedding 0.6B.
 *
 * Source: transformers' configuration_qwen3.py and modeling_qwen3.py.
 */
export const QWEN3: Architecture = {
  modelType: "qwen3",
  defaults: {
    rmsNormEps: 1e-6,
    ropeTheta: 10000,
    hiddenAct: "silu",
    headDim: 128,
    maxPositionEmbeddings: 32768,
  },
  ownTensors: /\.(q_norm|k_norm)\.weight$/,
  graph: (facts) => ({ spec: { qkNorm: true, ...slidingOf(facts) } }),
};

/** Layers below max_window_layers see all positions where layer_types says nothing. */
function slidingOf({ config, shape: { numHiddenLayers } }: Facts) {
  if (!config.flag("use_sliding_window", false)) return {};
  const window = config.count("sliding_window", MAX_WINDOW, 4096);
  const first = config.has("max_window_layers")
    ? config.number("max_window_layers", 0, MAX_WINDOW)
    : 28;
  const layers = config.has("layer_types")
    ? slidingLayers(config, numHiddenLayers, 1)
    : Array.from({ length: numHiddenLayers }, (_, layer) => layer >= first);
  return { sliding: { window, layers, fullLayersTurn: true } };
}
