import type { FloatType, LinearName } from "../codegen/model_spec.ts";

/** One ternary matrix of a checkpoint, ready to be packed. */
export interface TernaryWeights {
  /** (n, k) row-major, one code a byte: 0, 1, 2 for weights -1, 0, +1. */
  codes: Uint8Array;
  /** y = scale * (codes - 1) . x, with x the dequantised activations. */
  scale: number;
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
  readRows(first: number, count: number): Promise<Uint8Array>;
}

export type NormName = "input" | "postAttention" | "attnSub" | "ffnSub";

/** Where packing gets a model's weights from: a checkpoint, or made-up ones. */
export interface WeightSource {
  linear(layer: number, name: LinearName): Promise<TernaryWeights>;
  norm(layer: number, name: NormName): Promise<Float32Array>;
  finalNorm(): Promise<Float32Array>;
  embedding(): FloatMatrix;
  /** Only asked for when the head is not tied to the embedding. */
  head(): FloatMatrix;
}
