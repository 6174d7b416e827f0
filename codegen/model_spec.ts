import { paddedRows } from "./layouts/layout.ts";

/** A ternary matrix: n outputs, k inputs. */
export interface Shape {
  /** Output features. */
  n: number;
  /** Input features. */
  k: number;
}

/** Element types in which unquantised matrices (embedding, head) are kept: as the checkpoint has them. */
export type FloatType = "f32" | "f16" | "bf16";

/**
 * How keys and values are kept: f32 gives the published model's numbers, f16 halves the memory, int8
 * (with a scale for each position and head) quarters it.
 */
export const KV_TYPES = ["f32", "f16", "int8"] as const;
/** One of them. */
export type KvType = (typeof KV_TYPES)[number];

/**
 * The gate's activation: `relu2` is max(x, 0)^2 (BitNet 2B4T), `silu` is x / (1 + exp(-x)), `geluTanh`
 * is GELU with tanh (Gemma): x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
 */
export type HiddenAct = "relu2" | "silu" | "geluTanh";

/** The seven ternary matrices of a decoder layer, in the order in which a layer uses them. */
export const LINEAR_NAMES = ["q", "k", "v", "o", "gate", "up", "down"] as const;
/** One of them. */
export type LinearName = (typeof LINEAR_NAMES)[number];

/** Layers of which some see only the positions just before a token (Hugging Face: layer_types). */
export interface SlidingAttention {
  /** Positions that a sliding layer sees, the token's own included. */
  window: number;
  /** One a layer: true where it slides, false where it sees all positions. */
  layers: readonly boolean[];
  /** Whether layers that see all positions turn queries and keys; without it they have no positions. */
  fullLayersTurn: boolean;
  /** Whether sliding layers turn by a second RoPE table of their own (Gemma: rope_local_base_freq). */
  localRope?: boolean;
}

/** Parts of a row that are rounded, or scaled, by themselves: models that were not trained for int8 inputs. */
export interface Groups {
  /** Features of a group, a multiple of 32; the last one of a row may be shorter. */
  size: number;
  /** Whether each group of each row of weights has a factor; else each row has (`rowScales`). */
  weightScales: boolean;
  /**
   * Type in which the packed file has the factors of weights; it must hold each of them exactly, which
   * packing checks. GGUF's ternary types have f16, float tensors their own type. Absent: f32.
   */
  scaleType?: FloatType;
}

/** A mixture of experts in the place of each layer's gated MLP. */
export interface Experts {
  /** Experts of a layer. */
  numExperts: number;
  /** Experts that the router picks for a token, those with the largest scores. */
  numExpertsPerTok: number;
  /** Type of the router's matrix, (numExperts, hiddenSize), which stays float. */
  routerType: FloatType;
  /** The gate is at most this, what it multiplies within +/- this; null: not clamped. */
  swigluLimit: number | null;
}

/**
 * All that code generation needs to know of a model: shapes and which optional parts it has.
 * Names are Hugging Face's config keys in camelCase; sources are in `runtime/config.ts`.
 * Values that change no generated code (RoPE frequencies, token ids) are not here.
 */
export interface ModelSpec {
  /** Features of a token's state between layers. */
  hiddenSize: number;
  /** Features of the gated MLP; of one expert where a model has experts (moe_intermediate_size). */
  intermediateSize: number;
  /** Decoder layers. */
  numHiddenLayers: number;
  /** Query heads of a layer. */
  numAttentionHeads: number;
  /** Key and value heads of a layer, a divisor of the query heads. */
  numKeyValueHeads: number;
  /** Features of one head; numAttentionHeads * headDim may differ from hiddenSize. Even. */
  headDim: number;
  /** Rows of the embedding: one more than the largest token id. */
  vocabSize: number;
  /** What norms add to the mean square. */
  rmsNormEps: number;
  /** The gate's activation. */
  hiddenAct: HiddenAct;
  /** True when the layer has attn_sub_norm (before o) and ffn_sub_norm (before down). */
  subNorms: boolean;
  /**
   * Epsilon of the RMSNorm that every quantised linear applies to its own input
   * (quantization_config.use_rms_norm), or null when linears have none.
   */
  linearNormEps: number | null;
  /** Linears that add a bias after scaling. */
  biases: readonly LinearName[];
  /** True when the head is the embedding. */
  tieWordEmbeddings: boolean;
  /** Type of model.embed_tokens.weight. */
  embeddingType: FloatType;
  /** Type of lm_head.weight; equal to embeddingType when tied. */
  headType: FloatType;
  /** Whether the packed file has a sketch of the head. Absent: where the head is larger than caches. */
  headSketch?: boolean;
  /** True when each query and key head is RMS-normed before it is turned. */
  qkNorm?: boolean;
  /** Features of a head that RoPE turns, its first ones; even. Absent: all. */
  rotaryDim?: number;
  /** Absent: all layers see all positions. */
  sliding?: SlidingAttention;
  /** True when ternary matrices have one scale an output row, false for one a matrix. */
  rowScales?: boolean;
  /**
   * Inputs of linears are rounded to int8 by groups of features instead of by token. Absent: by token, as
   * BitNet's training does it.
   */
  groups?: Groups;
  /** True when the head is a ternary matrix like the linears, which needs `groups`. */
  ternaryHead?: boolean;
  /** True when the embedding is one too; tied, the packed file has one matrix for both. */
  ternaryEmbedding?: boolean;
  /** What an embedding is multiplied by before the first layer (Gemma, MiniCPM). Absent: 1. */
  embeddingScale?: number;
  /** What attention and MLP are multiplied by before they are added to their input (MiniCPM). Absent: 1. */
  residualScale?: number;
  /** True when the outputs of attention and MLP are normed before they are added (Gemma). */
  postNorms?: boolean;
  /** Absent: each layer has one MLP. A model with experts has `rowScales`. */
  experts?: Experts;
}

/** Features of a head that RoPE turns. */
export function rotaryDim(spec: Pick<ModelSpec, "headDim" | "rotaryDim">): number {
  return spec.rotaryDim ?? spec.headDim;
}

/**
 * Whether generated code has what a model asks for.
 *
 * @throws {RangeError} If parts of the spec are asked for together that no generated code has.
 */
export function checkSpec(spec: ModelSpec): void {
  checkGroups(spec);
  if (spec.experts === undefined) return;
  const { numExperts, numExpertsPerTok } = spec.experts;
  const isPicked = numExpertsPerTok >= 1 && numExpertsPerTok <= numExperts;
  const hasOthers = !spec.rowScales || spec.subNorms || spec.linearNormEps !== null ||
    spec.biases.some((name) => !layerLinears(spec).includes(name));
  if (isPicked && !hasOthers) return;
  throw new RangeError(
    isPicked
      ? "Cannot lay out a model with experts as it must have rowScales, and neither subNorms, " +
        "linearNormEps nor biases of experts"
      : `Cannot lay out a model with experts as numExpertsPerTok must be from 1 to ${numExperts}: ` +
        `current value is ${numExpertsPerTok}`,
  );
}

/** Sums of so many products of a code by an int8 are exact in a float32: 128 * 2^16 < 2^24. */
export const MOST_GROUP_FEATURES = 1 << 16;

function checkGroups({ groups, ternaryHead, ternaryEmbedding, ...spec }: ModelSpec): void {
  if (groups === undefined) {
    if (!ternaryHead && !ternaryEmbedding) return;
    throw new RangeError(
      "Cannot lay out a ternary head or embedding as the model must have groups",
    );
  }
  const { size, weightScales } = groups;
  if (!Number.isInteger(size) || size < 32 || size % 32 !== 0 || size > MOST_GROUP_FEATURES) {
    throw new RangeError(
      `Cannot lay out groups of features as their size must be a multiple of 32 from 32 to ` +
        `${MOST_GROUP_FEATURES}: current value is ${size}`,
    );
  }
  const reason = spec.experts !== undefined
    ? "it must not have experts"
    : weightScales && spec.rowScales
    ? "either rows or groups have factors, not both"
    : spec.headSketch && weightScales
    ? "a sketch of the head has no factors of groups"
    : (ternaryHead || ternaryEmbedding) && !weightScales
    ? "groups of a ternary head or embedding must have factors"
    : spec.tieWordEmbeddings && Boolean(ternaryHead) !== Boolean(ternaryEmbedding)
    ? "a head and an embedding that are tied are both ternary, or neither"
    : null;
  if (reason !== null) throw new RangeError(`Cannot lay out a model with groups as ${reason}`);
}

/** The linears that every token of a layer goes through: all, or those of attention where experts are. */
export function layerLinears(spec: ModelSpec): readonly LinearName[] {
  return spec.experts === undefined ? LINEAR_NAMES : LINEAR_NAMES.slice(0, 4);
}

/** Ternary weights of all layers and experts. */
export function ternaryWeights(spec: ModelSpec): number {
  return weightsWith(spec, spec.experts?.numExperts ?? 0);
}

/** Ternary weights that one token is multiplied by: of experts those of the picked. */
export function activeWeights(spec: ModelSpec): number {
  return weightsWith(spec, spec.experts?.numExpertsPerTok ?? 0);
}

function weightsWith(spec: ModelSpec, experts: number): number {
  const linears = layerLinears(spec);
  const weights = LINEAR_NAMES.map((name) => {
    const { n, k } = linearShape(spec, name);
    return n * k * (linears.includes(name) ? 1 : experts);
  });
  return spec.numHiddenLayers * weights.reduce((sum, count) => sum + count, 0);
}

/** Shapes of all ternary matrices, which kernels are generated for. */
export function ternaryShapes(spec: ModelSpec): Shape[] {
  return [
    ...layerLinears(spec).map((name) => linearShape(spec, name)),
    ...(spec.experts === undefined ? [] : expertShapes(spec)),
    ...(hasSketch(spec) ? [sketchShape(spec)] : []),
    ...(spec.ternaryHead ? [headPiece(spec)] : []),
  ];
}

/**
 * Rows of a ternary head or embedding that are one matrix, so that packing reads them in parts and no
 * vocabulary gives a shape that kernels must be measured for anew.
 */
export const HEAD_ROWS = 1024;

/** One piece of a ternary head or embedding. */
export function headPiece({ vocabSize, hiddenSize }: ModelSpec): Shape {
  return { n: Math.min(HEAD_ROWS, paddedRows(vocabSize)), k: hiddenSize };
}

/** Pieces of a ternary head or embedding; the last one may have fewer rows. */
export function headPieces(spec: ModelSpec): number {
  return Math.ceil(spec.vocabSize / headPiece(spec).n);
}

/**
 * Rows of the head in one piece of its sketch. Each piece reads the input's tables anew (55 kB of 2,560
 * features); larger pieces leave too few for many threads.
 */
export const SKETCH_ROWS = 1024;

/** One piece of the head's sketch: the upper trits of its rows, then the lower ones. */
export function sketchShape({ hiddenSize }: Pick<ModelSpec, "hiddenSize">): Shape {
  return { n: 2 * SKETCH_ROWS, k: hiddenSize };
}

/** Heads with fewer weights stay in the caches, where their bytes cost nothing. */
const SKETCHED_WEIGHTS = 1 << 24;

/**
 * Whether a model's packed file has a sketch of its head; see `codegen/head/sketch.ts`. Linears whose
 * weights have factors by group can't multiply it.
 */
export function hasSketch(
  { headSketch, vocabSize, hiddenSize, groups }: ModelSpec,
): boolean {
  return headSketch ?? (!groups?.weightScales && vocabSize * hiddenSize >= SKETCHED_WEIGHTS);
}

/** An expert's gate and up as one matrix, up's rows beginning with a block; then down. */
export function expertShapes(spec: ModelSpec): [gateUp: Shape, down: Shape] {
  return [
    { n: 2 * paddedRows(spec.intermediateSize), k: spec.hiddenSize },
    linearShape(spec, "down"),
  ];
}

/** Output and input features (n, k) of a linear of this model, or of one of its experts. */
export function linearShape(spec: ModelSpec, name: LinearName): Shape {
  const queries = spec.numAttentionHeads * spec.headDim;
  const keyValues = spec.numKeyValueHeads * spec.headDim;
  switch (name) {
    case "q":
      return { n: queries, k: spec.hiddenSize };
    case "k":
    case "v":
      return { n: keyValues, k: spec.hiddenSize };
    case "o":
      return { n: spec.hiddenSize, k: queries };
    case "gate":
    case "up":
      return { n: spec.intermediateSize, k: spec.hiddenSize };
    case "down":
      return { n: spec.hiddenSize, k: spec.intermediateSize };
  }
}
