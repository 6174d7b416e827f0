import type { Architecture } from "./architecture.ts";

/**
 * BitNet b1.58: Microsoft's, and 1bitLLM's reproduction of it, whose class is BitnetForCausalLM and
 * whose model_type is sometimes "llama".
 *
 * Source: transformers' configuration_bitnet.py.
 */
export const BITNET: Architecture = {
  modelType: "bitnet",
  classNames: /^bitnetforcausallm$/i,
  defaults: { rmsNormEps: 1e-5, ropeTheta: 500000, hiddenAct: "relu2" },
  subNorms: true,
  takesInt8: true,
};
