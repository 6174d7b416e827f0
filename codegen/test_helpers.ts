/** Helpers of codegen's tests. */
import type { ModelSpec } from "./model_spec.ts";

export { randomOf } from "./random.ts";

/** A small model; tests replace what they look at. */
export const SMALL_SPEC: ModelSpec = {
  hiddenSize: 64,
  intermediateSize: 96,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 16,
  vocabSize: 50,
  rmsNormEps: 1e-5,
  hiddenAct: "relu2",
  subNorms: true,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "bf16",
  headType: "bf16",
};

/** Odd sizes, silu, untied head, biases and norms of linears: the optional parts that SMALL_SPEC lacks. */
export const ODD_SPEC: ModelSpec = {
  ...SMALL_SPEC,
  hiddenSize: 100,
  intermediateSize: 140,
  headDim: 10,
  numAttentionHeads: 3,
  numKeyValueHeads: 1,
  subNorms: false,
  hiddenAct: "silu",
  tieWordEmbeddings: false,
  headType: "f32",
  embeddingType: "f16",
  biases: ["q", "down"],
  linearNormEps: 1e-6,
};

/** A mixture of experts, a scale a row, norms of heads, layers of two kinds. */
export const EXPERTS_SPEC: ModelSpec = {
  ...SMALL_SPEC,
  intermediateSize: 40,
  hiddenAct: "silu",
  subNorms: false,
  qkNorm: true,
  rotaryDim: 8,
  sliding: { window: 5, layers: [true, false], fullLayersTurn: false },
  rowScales: true,
  experts: { numExperts: 8, numExpertsPerTok: 3, routerType: "bf16", swigluLimit: 7 },
};

/** Floats in [-size, size). */
export function randomFloats(random: () => number, count: number, size = 1): Float32Array {
  return Float32Array.from({ length: count }, () => (2 * random() - 1) * size);
}

/** Codes 0, 1, 2 of ternary weights. */
export function randomCodes(random: () => number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => Math.floor(random() * 3));
}

/** int8 activations, -128 included. */
export function randomActivations(random: () => number, count: number): Int8Array {
  return Int8Array.from({ length: count }, () => Math.floor(random() * 256) - 128);
}
