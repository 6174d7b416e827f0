/**
 * What the file of an architecture tells `runtime/config.ts`: how its checkpoints are known, what
 * transformers assumes of keys that are left out, and where its graph differs from a llama's.
 */
import type { HiddenAct, ModelSpec } from "../../codegen/model_spec.ts";
import type { ConfigReader } from "../config_reader.ts";
import type { RopeScaling } from "../rope_scaling.ts";
import type { TensorInfo } from "../tensors.ts";
import type { NormName } from "../weights.ts";

export const MODEL_TYPES = ["bitnet", "llama"] as const;
export type ModelType = typeof MODEL_TYPES[number];

/** All tensors of a checkpoint by name, as its header has them. */
export type Tensors = ReadonlyMap<string, Pick<TensorInfo, "dtype" | "shape">>;

/** Shapes that config.json gives; an architecture reads its own keys after these. */
export type ModelShape = Pick<
  ModelSpec,
  | "hiddenSize"
  | "intermediateSize"
  | "numHiddenLayers"
  | "numAttentionHeads"
  | "numKeyValueHeads"
  | "headDim"
  | "vocabSize"
  | "rmsNormEps"
  | "hiddenAct"
>;

/** A RoPE table: its base, and how it is stretched to longer contexts. */
export interface Rope {
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
}

/** transformers' class defaults, for keys that a config.json leaves out. */
export interface Defaults {
  rmsNormEps: number;
  ropeTheta: number;
  hiddenAct: HiddenAct;
}

/** What an architecture reads its parts from. */
export interface Facts {
  config: ConfigReader;
  tensors: Tensors;
  shape: ModelShape;
}

/** Optional parts of the graph. */
export type Graph = Partial<ModelSpec>;

export interface Architecture {
  readonly modelType: ModelType;
  /** Classes of `architectures` that mean this one, whatever model_type says. */
  readonly classNames?: RegExp;
  readonly defaults: Defaults;
  /** Names of tensors that only some architectures have, and this one. */
  readonly ownTensors?: RegExp;
  /** Tensors of a layer's norms, where they are not called as in a llama. */
  readonly norms?: Partial<Record<NormName, string>>;
  /** Whether each layer has norms before o and before down, whatever the tensors say. */
  readonly subNorms?: boolean;
  graph?(facts: Facts): Graph;
}
