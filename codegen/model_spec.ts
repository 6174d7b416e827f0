/** Element types in which unquantised matrices (embedding, head) are kept: as the checkpoint has them. */
export type FloatType = "f32" | "f16" | "bf16";

/** How keys and values are kept. f32 gives the reference's numbers; f16 halves the memory. */
export type KvType = "f32" | "f16";

/** The gate's activation: `relu2` is max(x, 0)^2 (BitNet 2B4T), `silu` is x / (1 + exp(-x)). */
export type HiddenAct = "relu2" | "silu";

/** The seven ternary matrices of a decoder layer, in the order in which a layer uses them. */
export const LINEAR_NAMES = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type LinearName = (typeof LINEAR_NAMES)[number];

/**
 * All that code generation needs to know of a model: shapes and which optional parts it has.
 * Names are Hugging Face's config keys in camelCase; sources are in `runtime/config.ts`.
 * Values that change no generated code (RoPE frequencies, token ids) are not here.
 */
export interface ModelSpec {
  hiddenSize: number;
  intermediateSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  numKeyValueHeads: number;
  /** Features of one head; numAttentionHeads * headDim may differ from hiddenSize. Even. */
  headDim: number;
  vocabSize: number;
  rmsNormEps: number;
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
  tieWordEmbeddings: boolean;
  /** Type of model.embed_tokens.weight. */
  embeddingType: FloatType;
  /** Type of lm_head.weight; equal to embeddingType when tied. */
  headType: FloatType;
}

/** Output and input features (n, k) of a linear of this model. */
export function linearShape(spec: ModelSpec, name: LinearName): { n: number; k: number } {
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
