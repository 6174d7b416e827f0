import type { FloatType, LinearName } from "../codegen/model_spec.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";

/** Room for bytes that are read: fresh, or used before. */
export type Allocate = (bytes: number) => Uint8Array<ArrayBuffer>;

/** One ternary matrix of a checkpoint, ready to be packed. */
export interface TernaryWeights {
  matrix: StoredMatrix;
  /** Names the tensor in errors. */
  what: string;
  /**
   * y = scale * (codes - 1) . x, with x the dequantised activations. Null for floats: ternarisation
   * gives it, and floats that are ternary as they stand (`matrix.exact`) have all factors in themselves.
   */
  scale: number | null;
  /** (n,) one factor a row in the place of `scale`, where the model has `rowScales`. */
  rowScales?: Float32Array;
  /** (n, ceil(k / size)) one factor a group of a row, where the model's `groups` have `weightScales`. */
  groupScales?: Float32Array;
  /** (n,), added after scaling. */
  bias: Float32Array | null;
  /** (k,), weight of the RMSNorm that the linear applies to its own input. */
  inputNorm: Float32Array | null;
}

/** A matrix that stays float, read in parts as it may be larger than memory. */
export interface FloatMatrix {
  type: FloatType;
  rows: number;
  columns: number;
  /** Rows first .. first + count, little-endian, (count, columns). */
  readRows(first: number, count: number, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Norms of a layer, by what they norm: the inputs of q, k, v and of gate, up; those of o and of down
 * (`subNorms`); the outputs of o and of down (`postNorms`).
 */
export type NormName =
  | "input"
  | "postAttention"
  | "attnSub"
  | "ffnSub"
  | "attentionOut"
  | "mlpOut";

/** One ternary matrix of an expert. */
export interface ExpertMatrix {
  /** As the checkpoint has it. */
  matrix: StoredMatrix;
  /** (n,) factors of the rows; null where they are the magnitudes of `matrix`, which are then exact. */
  rowScales: Float32Array | null;
}

/** Weights of a mixture of experts. */
export interface ExpertSource {
  /** (n, k) as `linearShape` says. */
  matrix(layer: number, expert: number, name: "gate" | "up" | "down"): Promise<ExpertMatrix>;
  /** (numExperts, hiddenSize) */
  router(layer: number): FloatMatrix;
}

/** Where packing gets a model's weights from: a checkpoint, or made-up ones. */
export interface WeightSource {
  /** The matrix's bytes are `allocate`'s. */
  linear(layer: number, name: LinearName, allocate?: Allocate): Promise<TernaryWeights>;
  norm(layer: number, name: NormName): Promise<Float32Array>;
  finalNorm(): Promise<Float32Array>;
  embedding(): FloatMatrix;
  /** Only asked for when the head is not tied to the embedding. */
  head(): FloatMatrix;
  /**
   * Rows first .. first + count of a ternary head or embedding (`ternaryHead`, `ternaryEmbedding`), which
   * are then not asked for as floats. Tied ones are asked for as the head.
   */
  ternaryRows?(
    which: "head" | "embedding",
    first: number,
    count: number,
    allocate?: Allocate,
  ): Promise<TernaryWeights>;
  /** Weights of the norm of query or key heads, (headDim,). Only asked for where `qkNorm` is set. */
  headNorm?(layer: number, which: "query" | "key"): Promise<Float32Array>;
  /** Only asked for where the model has experts. */
  experts?: ExpertSource;
}
