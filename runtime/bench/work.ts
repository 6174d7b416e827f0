import {
  type Experts,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import { type PackedPlan, regionOf } from "../../codegen/plan.ts";
import type { StepPhase } from "../../codegen/step/phases.ts";

/** What some steps have done. */
export interface StepCounts {
  steps: number;
  /** Of all steps. */
  tokens: number;
  /** Rows of logits. */
  logitRows: number;
  /** Rows of the head that were scored exactly after its sketch; absent where the full head ran. */
  rescoredRows?: number;
  /** Positions that all tokens have looked back on. */
  positionsSeen: number;
  /** Positions whose keys and values came from memory: once a sequence and step. */
  positionsRead: number;
}

/** Bytes that come from memory, and multiply-adds. */
export interface Work {
  bytes: number;
  macs: number;
}

/** Ternary linears of each phase that has any. */
const LINEARS: Partial<Record<StepPhase, readonly LinearName[]>> = {
  qkv: ["q", "k", "v"],
  o: ["o"],
  gateUp: ["gate", "up"],
  down: ["down"],
};

/** Norm weights of each phase that has any. */
const NORMS: Partial<Record<StepPhase, string>> = {
  inputNorm: "input_norm",
  outputNorm: "attn_sub_norm",
  mlpNorm: "post_attention_norm",
  activation: "ffn_sub_norm",
};

function macsOf(spec: ModelSpec, name: LinearName): number {
  const { n, k } = linearShape(spec, name);
  return n * k;
}

/** What a phase of these steps has read and multiplied. Weights are read once a step. */
export function workOf(
  phase: StepPhase,
  spec: ModelSpec,
  plan: PackedPlan,
  kvBytesPerPosition: number,
  counts: StepCounts,
): Work {
  const { steps, tokens } = counts;
  const layers = spec.numHiddenLayers;
  const names = LINEARS[phase];
  if (spec.experts !== undefined) {
    const work = expertWork(phase, spec, plan, spec.experts, counts);
    if (work !== null) return work;
  }
  if (names !== undefined) {
    const bytes = names.reduce((sum, name) => sum + linearBytes(spec, plan, name), 0);
    const macs = names.reduce((sum, name) => sum + macsOf(spec, name), 0);
    return { bytes: layers * bytes * steps, macs: layers * macs * tokens };
  }
  if (phase === "attention") return attentionWork(spec, kvBytesPerPosition, counts);
  if (phase === "head") return headWork(spec, plan, counts);
  if (phase === "sketch") {
    if (counts.rescoredRows === undefined) return { bytes: 0, macs: 0 };
    return { bytes: plan.sketchBytes * steps, macs: sketchMacs(spec) * counts.logitRows };
  }
  if (phase === "embedding") return { bytes: embeddingRowBytes(spec, plan) * tokens, macs: 0 };
  const norm = plan.layer.find(({ name }) => name === NORMS[phase]);
  return { bytes: norm === undefined ? 0 : layers * norm.bytes * steps, macs: 0 };
}

/** Bytes of a linear's codes and of the factors of its groups. */
function linearBytes({ groups }: ModelSpec, plan: PackedPlan, name: LinearName): number {
  const { bytes } = regionOf(plan.layer, `${name}_codes`);
  return bytes + (groups?.weightScales ? regionOf(plan.layer, `${name}_factors`).bytes : 0);
}

/** Multiply-adds of the head's sketch for a row of logits: two ternary rows for each row of the head. */
export function sketchMacs({ vocabSize, hiddenSize }: ModelSpec): number {
  return 2 * vocabSize * hiddenSize;
}

function headWork(spec: ModelSpec, plan: PackedPlan, counts: StepCounts): Work {
  const { steps, logitRows, rescoredRows } = counts;
  if (rescoredRows === undefined) {
    const macs = spec.vocabSize * spec.hiddenSize * logitRows;
    return { bytes: logitRows === 0 ? 0 : plan.headBytes * steps, macs };
  }
  return { bytes: plan.headRowBytes * rescoredRows, macs: spec.hiddenSize * rescoredRows };
}

/**
 * Experts whose weights a step of so many tokens reads in a layer, on average, where all are picked
 * equally often: exact for one token.
 */
export function expertsRead({ numExperts, numExpertsPerTok }: Experts, tokens: number): number {
  return numExperts * (1 - (1 - numExpertsPerTok / numExperts) ** tokens);
}

/** The phases of a mixture of experts; null if this is not one. */
function expertWork(
  phase: StepPhase,
  spec: ModelSpec,
  plan: PackedPlan,
  experts: Experts,
  { steps, tokens }: StepCounts,
): Work | null {
  const layers = spec.numHiddenLayers;
  const picks = experts.numExpertsPerTok * tokens;
  if (phase === "router") {
    const macs = layers * experts.numExperts * spec.hiddenSize * tokens;
    return { bytes: layers * regionOf(plan.layer, "router").bytes * steps, macs };
  }
  if (phase !== "gateUp" && phase !== "down") return null;
  const bytes = regionOf(plan.expert, phase === "down" ? "down_codes" : "gate_up_codes").bytes;
  const macs = (phase === "down" ? 1 : 2) * spec.hiddenSize * spec.intermediateSize;
  const read = steps * expertsRead(experts, tokens / steps);
  return { bytes: layers * bytes * read, macs: layers * macs * picks };
}

/** Scores and weighted values: headDim each for every query head and position. */
function attentionWork(
  spec: ModelSpec,
  kvBytesPerPosition: number,
  { positionsSeen, positionsRead }: StepCounts,
): Work {
  const { numHiddenLayers, numAttentionHeads, headDim } = spec;
  const macs = 2 * numHiddenLayers * numAttentionHeads * headDim * positionsSeen;
  return { bytes: kvBytesPerPosition * positionsRead, macs };
}

function embeddingRowBytes(spec: ModelSpec, plan: PackedPlan): number {
  // A ternary one has as many as the head.
  if (spec.ternaryEmbedding) return plan.headRowBytes;
  return regionOf(plan.globals, "embedding").bytes / spec.vocabSize;
}
