/**
 * Shapes of models that no kernel finds convenient, and every optional part at least once: what all
 * kernels must compute to the same bits.
 */
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import { ReferenceStep } from "../codegen/step/reference.ts";
import { kernelName, kernelsFor, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { prefillBatch } from "./batches.ts";
import { randomPacked, someRope } from "./random_model.ts";

export interface OddModel {
  name: string;
  spec: ModelSpec;
  kvType: KvType;
}

const BASE: ModelSpec = {
  hiddenSize: 192,
  intermediateSize: 270,
  numHiddenLayers: 2,
  numAttentionHeads: 6,
  numKeyValueHeads: 2,
  headDim: 32,
  vocabSize: 77,
  rmsNormEps: 1e-5,
  hiddenAct: "relu2",
  subNorms: true,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "bf16",
  headType: "bf16",
};

/** Small relatives of BitNet 2B4T, of the 3B with heads of 100, of Falcon3, and of nothing at all. */
export const ODD_MODELS: readonly OddModel[] = [
  { name: "relu2, norms within, tied bf16", spec: BASE, kvType: "f32" },
  { name: "the same, f16 cache", spec: BASE, kvType: "f16" },
  { name: "the same, int8 cache", spec: BASE, kvType: "int8" },
  {
    name: "heads of 100, biases, f32 head, embeddings and outputs scaled",
    kvType: "f32",
    spec: {
      ...BASE,
      hiddenSize: 300,
      intermediateSize: 865,
      numAttentionHeads: 3,
      numKeyValueHeads: 3,
      headDim: 100,
      hiddenAct: "silu",
      subNorms: false,
      biases: ["q", "k", "v", "down"],
      tieWordEmbeddings: false,
      headType: "f32",
      embeddingScale: 12,
      residualScale: 1.4 / Math.sqrt(32),
    },
  },
  {
    name: "norms in linears, f16 matrices, f16 cache",
    kvType: "f16",
    spec: {
      ...BASE,
      hiddenSize: 100,
      intermediateSize: 33,
      numAttentionHeads: 5,
      numKeyValueHeads: 1,
      headDim: 18,
      hiddenAct: "silu",
      subNorms: false,
      linearNormEps: 1e-6,
      biases: ["o", "gate", "up"],
      tieWordEmbeddings: false,
      embeddingType: "f16",
      headType: "f16",
    },
  },
  {
    name: "a scale a row, biases, all layers turned, a window longer than any sequence",
    kvType: "f32",
    spec: {
      ...BASE,
      rowScales: true,
      biases: ["q", "o", "up", "down"],
      qkNorm: true,
      rotaryDim: 2,
      sliding: { window: 1000, layers: [true, false], fullLayersTurn: true },
    },
  },
  {
    name: "experts, norms of heads, some layers sliding and turned in part",
    kvType: "f16",
    spec: {
      ...BASE,
      hiddenSize: 100,
      intermediateSize: 40,
      numHiddenLayers: 4,
      headDim: 20,
      hiddenAct: "silu",
      subNorms: false,
      tieWordEmbeddings: false,
      rowScales: true,
      qkNorm: true,
      rotaryDim: 10,
      sliding: { window: 11, layers: [true, true, false, true], fullLayersTurn: false },
      experts: { numExperts: 10, numExpertsPerTok: 3, routerType: "bf16", swigluLimit: 0.75 },
    },
  },
  {
    name: "more experts a token than lanes, and than threads' parts of one",
    kvType: "f32",
    spec: {
      ...BASE,
      intermediateSize: 130,
      numHiddenLayers: 1,
      subNorms: false,
      rowScales: true,
      sliding: { window: 1, layers: [true], fullLayersTurn: false },
      experts: { numExperts: 20, numExpertsPerTok: 17, routerType: "f32", swigluLimit: null },
    },
  },
  {
    name: "norms of outputs, in linears and of heads, a table of sliding layers' own, GELU, scales",
    kvType: "f16",
    spec: {
      ...BASE,
      hiddenSize: 90,
      intermediateSize: 50,
      numHiddenLayers: 3,
      numAttentionHeads: 4,
      numKeyValueHeads: 1,
      headDim: 34,
      hiddenAct: "geluTanh",
      subNorms: false,
      linearNormEps: 1e-6,
      qkNorm: true,
      sliding: { window: 5, layers: [true, true, false], fullLayersTurn: true, localRope: true },
      embeddingScale: Math.sqrt(90),
      postNorms: true,
      residualScale: 0.75,
    },
  },
  {
    name: "one expert",
    kvType: "f32",
    spec: {
      ...BASE,
      hiddenSize: 17,
      subNorms: false,
      rowScales: true,
      experts: { numExperts: 1, numExpertsPerTok: 1, routerType: "f16", swigluLimit: 7 },
    },
  },
  {
    name: "groups with factors, norms of heads, a ternary head and embedding",
    kvType: "f32",
    spec: {
      ...BASE,
      vocabSize: 1050,
      tieWordEmbeddings: false,
      ternaryHead: true,
      ternaryEmbedding: true,
      hiddenAct: "silu",
      subNorms: false,
      qkNorm: true,
      groups: { size: 128, weightScales: true, scaleType: "f16" },
    },
  },
  {
    name: "groups of inputs alone, factors of rows, biases, norms in linears",
    kvType: "f32",
    spec: {
      ...BASE,
      hiddenSize: 100,
      intermediateSize: 33,
      numAttentionHeads: 5,
      numKeyValueHeads: 1,
      headDim: 18,
      subNorms: false,
      linearNormEps: 1e-6,
      biases: ["o", "gate"],
      rowScales: true,
      groups: { size: 32, weightScales: false },
    },
  },
  {
    name: "everything as small as can be",
    kvType: "f32",
    spec: {
      ...BASE,
      hiddenSize: 2,
      intermediateSize: 1,
      numHiddenLayers: 1,
      numAttentionHeads: 1,
      numKeyValueHeads: 1,
      headDim: 2,
      vocabSize: 3,
    },
  },
];

/** Of each kind one: where a kernel is slow to build or to run. */
export const FEW_ODD_MODELS: readonly OddModel[] = ODD_MODELS.filter(({ spec, kvType }, i) =>
  i === 0 || kvType === "int8" || spec.experts?.numExperts === 10 || spec.groups?.weightScales
);

/** The kernel of the same name for a model; undefined where its scheme can't do the model's groups. */
export function kernelFor({ spec }: OddModel, kernel: TernaryKernel): TernaryKernel | undefined {
  return kernelsFor(spec.groups).find((own) => kernelName(own) === kernelName(kernel));
}

const SEED = 20;
export const CONTEXT = 64;
export const KV_BLOCKS = 3 * CONTEXT / KV_BLOCK_POSITIONS;

/** Cosines and sines for all positions. */
export function ropeOf({ spec }: OddModel) {
  return someRope(spec, CONTEXT);
}

/** The model's packed weights: the same ones in every layout. */
export function packedOf({ spec }: OddModel, layout?: TernaryLayout) {
  return randomPacked(spec, SEED, layout);
}

/** Token sequences that cross the borders of KV blocks and of all token tiles. */
export function sequencesOf({ spec }: OddModel): number[][] {
  return [37, 1, 18].map((length, s) =>
    Array.from({ length }, (_, i) => (7 * i + 5 * s) % spec.vocabSize)
  );
}

/** The reference's logits of each sequence, (tokens, vocabSize) each. */
export async function expectedLogits(model: OddModel): Promise<Float32Array[]> {
  const packed = await packedOf(model);
  return sequencesOf(model).map((ids) =>
    new ReferenceStep(model.spec, packed, ropeOf(model), model.kvType).step(prefillBatch(ids))
  );
}

/** Index of the first value whose 32 bits differ, or -1. Lengths count as values. */
export function firstDifference(a: Float32Array, b: Float32Array): number {
  const [x, y] = [a, b].map(({ buffer, byteOffset, length }) =>
    new Uint32Array(buffer, byteOffset, length)
  );
  const shorter = Math.min(x.length, y.length);
  for (let i = 0; i < shorter; i++) if (x[i] !== y[i]) return i;
  return x.length === y.length ? -1 : shorter;
}
