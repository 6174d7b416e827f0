/** The catalogue with the sizes that follow from the models' shapes. */
import { type ModelSpec, ternaryWeights } from "../../codegen/model_spec.ts";
import { planOf } from "../../codegen/plan.ts";
import { DEFAULT_KV_TYPE, kvBytesPerPosition } from "../kv_cache.ts";
import { SHAPES } from "../shapes.ts";
import { CATALOGUE, type FileBits } from "./catalogue.ts";

export interface RemoteModel {
  name: string;
  repo: string;
  /** Which GGUF file of the repository; null where it has safetensors. */
  file: string | null;
  /** A commit whose files somebody has checked, or null. */
  revision: string | null;
  licence: string;
  /** Of its weights alone; computed from the shape where no exact size is known. */
  downloadBytes: number | null;
  /** Packed weights, and keys and values of so many tokens. */
  memoryBytes: number | null;
  contextSize: number | null;
  note: string | null;
}

/** A conversation of ordinary length. */
const CONTEXT_TOKENS = 4096;
const FALCON3: ModelSpec = SHAPES["falcon3-10b"];
const FALCON_E: ModelSpec = {
  ...FALCON3,
  hiddenSize: 2048,
  numAttentionHeads: 16,
  numKeyValueHeads: 2,
  headDim: 128,
  vocabSize: 32_768,
  tieWordEmbeddings: true,
};

const EMBEDDING: Pick<
  ModelSpec,
  | "rmsNormEps"
  | "hiddenAct"
  | "subNorms"
  | "linearNormEps"
  | "biases"
  | "tieWordEmbeddings"
  | "embeddingType"
  | "headType"
  | "qkNorm"
> = {
  rmsNormEps: 1e-6,
  hiddenAct: "silu",
  subNorms: false,
  linearNormEps: 1e-6,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "f16",
  headType: "f16",
  qkNorm: true,
};

/** Beside those of `bench --shape`. Sources: the models' config.json files and cards. */
const MORE_SHAPES: Readonly<Record<string, ModelSpec>> = {
  "falcon3-1b": {
    ...FALCON3,
    hiddenSize: 2048,
    intermediateSize: 8192,
    numHiddenLayers: 18,
    numAttentionHeads: 8,
  },
  "falcon3-3b": { ...FALCON3, intermediateSize: 9216, numHiddenLayers: 22 },
  "falcon3-7b": { ...FALCON3, numHiddenLayers: 28 },
  "falcon-e-1b": { ...FALCON_E, intermediateSize: 9216, numHiddenLayers: 24 },
  "falcon-e-3b": { ...FALCON_E, intermediateSize: 13_312, numHiddenLayers: 32 },
  "bitnet-embedding-0.6b": {
    ...EMBEDDING,
    hiddenSize: 1024,
    intermediateSize: 3072,
    numHiddenLayers: 28,
    numAttentionHeads: 16,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 151_936,
  },
  "bitnet-embedding-270m": {
    ...EMBEDDING,
    hiddenSize: 640,
    intermediateSize: 2048,
    numHiddenLayers: 18,
    numAttentionHeads: 4,
    numKeyValueHeads: 1,
    headDim: 256,
    vocabSize: 262_144,
    hiddenAct: "geluTanh",
    postNorms: true,
  },
};

export function remoteModels(): RemoteModel[] {
  return CATALOGUE.map(({ shape, weightBytes, bits, ...entry }) => {
    const spec = shape === null ? undefined : SHAPES[shape] ?? MORE_SHAPES[shape];
    return {
      ...entry,
      downloadBytes: weightBytes ?? (spec && bits ? downloadOf(spec, bits) : null),
      memoryBytes: spec === undefined ? null : memoryOf(spec, entry.contextSize),
    };
  });
}

/** Norms are too small to count. */
function downloadOf(spec: ModelSpec, { linears, ends }: FileBits): number {
  const matrices = spec.tieWordEmbeddings ? 1 : 2;
  const bits = ternaryWeights(spec) * linears + matrices * spec.vocabSize * spec.hiddenSize * ends;
  return Math.ceil(bits / 8);
}

function memoryOf(spec: ModelSpec, contextSize: number | null): number {
  const tokens = Math.min(CONTEXT_TOKENS, contextSize ?? CONTEXT_TOKENS);
  return planOf(spec).totalBytes + tokens * kvBytesPerPosition(spec, DEFAULT_KV_TYPE);
}
