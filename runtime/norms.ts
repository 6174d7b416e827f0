/** The norms of a layer. */
import { linearShape, type ModelSpec } from "../codegen/model_spec.ts";
import type { NormName } from "./weights.ts";

/** Norms that a layer of this model has. */
export function normsOf({ subNorms, postNorms }: ModelSpec): readonly NormName[] {
  return [
    "input",
    "postAttention",
    ...(subNorms ? ["attnSub", "ffnSub"] as const : []),
    ...(postNorms ? ["attentionOut", "mlpOut"] as const : []),
  ];
}

/** Features that a norm works on. */
export function normSize(spec: ModelSpec, which: NormName): number {
  if (which === "attnSub") return linearShape(spec, "o").k;
  return which === "ffnSub" ? spec.intermediateSize : spec.hiddenSize;
}
