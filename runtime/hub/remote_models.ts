/** The catalogue with the sizes that follow from the models' shapes. */
import { type ModelSpec, ternaryWeights } from "../../codegen/model_spec.ts";
import { planOf } from "../../codegen/plan.ts";
import { DEFAULT_KV_TYPE, kvBytesPerPosition } from "../kv_cache.ts";
import { SHAPES } from "../shapes.ts";
import { CATALOGUE, type CatalogueEntry } from "./catalogue.ts";

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
const BF16_BYTES = 2;
/** Two bits a code, in U8 tensors. */
const CODES_PER_BYTE = 4;

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
};

export function remoteModels(): RemoteModel[] {
  return CATALOGUE.map(({ shape, weightBytes, ...entry }) => {
    const spec = shape === null ? undefined : SHAPES[shape] ?? MORE_SHAPES[shape];
    return {
      ...entry,
      downloadBytes: weightBytes ?? downloadOf(entry, spec),
      memoryBytes: spec === undefined ? null : memoryOf(spec, entry.contextSize),
    };
  });
}

/** Of codes in U8 and the rest in bf16, as transformers packs them; norms are too small to count. */
function downloadOf(
  { note }: Pick<CatalogueEntry, "note">,
  spec: ModelSpec | undefined,
): number | null {
  if (spec === undefined || note?.includes("masters")) return null;
  const matrices = spec.tieWordEmbeddings ? 1 : 2;
  return ternaryWeights(spec) / CODES_PER_BYTE +
    matrices * spec.vocabSize * spec.hiddenSize * BF16_BYTES;
}

function memoryOf(spec: ModelSpec, contextSize: number | null): number {
  const tokens = Math.min(CONTEXT_TOKENS, contextSize ?? CONTEXT_TOKENS);
  return planOf(spec).totalBytes + tokens * kvBytesPerPosition(spec, DEFAULT_KV_TYPE);
}
