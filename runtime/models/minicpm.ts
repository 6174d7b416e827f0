import type { Architecture, Facts, Graph } from "./architecture.ts";

/**
 * MiniCPM and MiniCPM4, and so BitCPM4: a llama whose embeddings, outputs and logits are scaled.
 *
 * Source: OpenBMB's configuration_minicpm.py and modeling_minicpm.py.
 */
export const MINICPM: Architecture = {
  modelType: "minicpm",
  defaults: { rmsNormEps: 1e-6, ropeTheta: 10000, hiddenAct: "silu" },
  graph,
};

function graph({ config, shape, notes }: Facts): Graph {
  const embeddingScale = config.number("scale_emb", 1e-6, 1e6, 1);
  const depth = config.number("scale_depth", 1e-6, 1e6, 1);
  const base = config.number("dim_model_base", 1e-6, 1e6, 1);
  if (config.has("sparse_config")) {
    notes.push("sparse_config is not used: all positions are attended to, as without it");
  }
  return {
    spec: { embeddingScale, residualScale: depth / Math.sqrt(shape.numHiddenLayers) },
    folds: { finalNorm: base / shape.hiddenSize },
  };
}
