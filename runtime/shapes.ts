import type { ModelSpec } from "../codegen/model_spec.ts";

const COMMON = {
  linearNormEps: null,
  biases: [],
  embeddingType: "bf16",
  headType: "bf16",
} as const;

/**
 * Shapes of published models, and of one as large as a server holds, for benchmarks with made-up
 * weights. Sources: the models' config.json files.
 */
export const SHAPES: Readonly<Record<string, ModelSpec>> = {
  "bitnet-2b-4t": {
    ...COMMON,
    hiddenSize: 2560,
    intermediateSize: 6912,
    numHiddenLayers: 30,
    numAttentionHeads: 20,
    numKeyValueHeads: 5,
    headDim: 128,
    vocabSize: 128256,
    rmsNormEps: 1e-5,
    hiddenAct: "relu2",
    subNorms: true,
    tieWordEmbeddings: true,
  },
  "bitnet-700m": {
    ...COMMON,
    hiddenSize: 1536,
    intermediateSize: 4096,
    numHiddenLayers: 24,
    numAttentionHeads: 16,
    numKeyValueHeads: 16,
    headDim: 96,
    vocabSize: 32002,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: true,
    tieWordEmbeddings: true,
  },
  "bitnet-3b": {
    ...COMMON,
    hiddenSize: 3200,
    intermediateSize: 8640,
    numHiddenLayers: 26,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    headDim: 100,
    vocabSize: 32002,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: true,
    tieWordEmbeddings: true,
  },
  "llama3-8b": {
    ...COMMON,
    hiddenSize: 4096,
    intermediateSize: 14336,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 128256,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: false,
    tieWordEmbeddings: false,
  },
  "falcon3-10b": {
    ...COMMON,
    hiddenSize: 3072,
    intermediateSize: 23040,
    numHiddenLayers: 40,
    numAttentionHeads: 12,
    numKeyValueHeads: 4,
    headDim: 256,
    vocabSize: 131072,
    rmsNormEps: 1e-6,
    hiddenAct: "silu",
    subNorms: false,
    tieWordEmbeddings: false,
  },
  // 3 layers of 512 positions, then one of all, in which nothing is turned.
  "maple-20b-a1b": {
    ...COMMON,
    hiddenSize: 2048,
    intermediateSize: 512,
    numHiddenLayers: 24,
    numAttentionHeads: 16,
    numKeyValueHeads: 4,
    headDim: 128,
    vocabSize: 151936,
    rmsNormEps: 1e-6,
    hiddenAct: "silu",
    subNorms: false,
    tieWordEmbeddings: false,
    qkNorm: true,
    rotaryDim: 64,
    sliding: {
      window: 513,
      layers: Array.from({ length: 24 }, (_, layer) => layer % 4 !== 3),
      fullLayersTurn: false,
    },
    rowScales: true,
    experts: { numExperts: 256, numExpertsPerTok: 8, routerType: "bf16", swigluLimit: 7 },
  },
  ...bonsaiShapes(),
  "trilm-3.9b": {
    ...COMMON,
    embeddingType: "f16",
    headType: "f16",
    hiddenSize: 3072,
    intermediateSize: 9216,
    numHiddenLayers: 30,
    numAttentionHeads: 24,
    numKeyValueHeads: 24,
    headDim: 128,
    vocabSize: 50688,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: false,
    tieWordEmbeddings: false,
    rowScales: true,
    groups: { size: 128, weightScales: false },
  },
  "100b": {
    ...COMMON,
    hiddenSize: 10240,
    intermediateSize: 36864,
    numHiddenLayers: 74,
    numAttentionHeads: 80,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 32000,
    rmsNormEps: 1e-5,
    hiddenAct: "silu",
    subNorms: true,
    tieWordEmbeddings: true,
  },
};

/** Qwen3's bodies in ternary, with f16 factors of 128 features, the embedding and head too. */
function bonsaiShapes(): Record<string, ModelSpec> {
  const common = {
    ...COMMON,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 151936,
    rmsNormEps: 1e-6,
    hiddenAct: "silu",
    subNorms: false,
    qkNorm: true,
    groups: { size: 128, weightScales: true, scaleType: "f16" },
    ternaryHead: true,
    ternaryEmbedding: true,
  } as const;
  const sizes = { numHiddenLayers: 36, numAttentionHeads: 32 };
  return {
    "bonsai-1.7b": {
      ...common,
      hiddenSize: 2048,
      intermediateSize: 6144,
      numHiddenLayers: 28,
      numAttentionHeads: 16,
      tieWordEmbeddings: true,
    },
    "bonsai-4b": {
      ...common,
      ...sizes,
      hiddenSize: 2560,
      intermediateSize: 9728,
      tieWordEmbeddings: true,
    },
    "bonsai-8b": {
      ...common,
      ...sizes,
      hiddenSize: 4096,
      intermediateSize: 12288,
      tieWordEmbeddings: false,
    },
  };
}

/** @throws {RangeError} If there is no such shape. */
export function shapeOf(name: string): ModelSpec {
  const spec = Object.hasOwn(SHAPES, name) ? SHAPES[name] : undefined;
  if (spec !== undefined) return spec;
  throw new RangeError(
    `Cannot use shape ${JSON.stringify(name)}: give one of ${Object.keys(SHAPES).join(", ")}`,
  );
}
