import type { Architecture } from "./architecture.ts";

/**
 * Llama 3 at 1.58 bits, Falcon3 and Falcon-E, TriLM.
 *
 * Source: transformers' configuration_llama.py.
 */
export const LLAMA: Architecture = {
  modelType: "llama",
  defaults: { rmsNormEps: 1e-6, ropeTheta: 10000, hiddenAct: "silu" },
};
