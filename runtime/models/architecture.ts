/**
 * What the file of an architecture tells `runtime/config.ts`: how its checkpoints are known, what
 * transformers assumes of keys that are left out, and where its graph differs from a llama's.
 */
import type { HiddenAct, ModelSpec } from "../../codegen/model_spec.ts";
import type { ConfigReader } from "../config_reader.ts";
import type { RopeScaling } from "../rope_scaling.ts";
import type { TensorInfo } from "../tensors.ts";
import type { NormName } from "../weights.ts";

export const MODEL_TYPES = ["bitnet", "llama", "qwen3", "gemma3", "minicpm", "maple"] as const;
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
  /** Absent: hidden_size / num_attention_heads. */
  headDim?: number;
  /** Absent: 2048. */
  maxPositionEmbeddings?: number;
}

/**
 * Factors that a model's code applies when it runs, and that reading puts into weights instead, each
 * product being rounded to float32 once.
 */
export interface Folds {
  /** Added to the weights of all norms but those that linears apply to their own inputs. */
  normOffset: number;
  /** The final norm's weights are multiplied by this: what logits are multiplied by. */
  finalNorm: number;
  /** The weights of query heads' norms are: what attention scores are multiplied by. */
  queryNorm: number;
}

export const NO_FOLDS: Folds = { normOffset: 0, finalNorm: 1, queryNorm: 1 };

/** What an architecture reads its parts from. */
export interface Facts {
  config: ConfigReader;
  tensors: Tensors;
  shape: ModelShape;
  /** Oddities for people go here. */
  notes: string[];
}

/** What an architecture has that a llama does not. */
export interface Graph {
  /** Optional parts. */
  spec?: Partial<ModelSpec>;
  folds?: Partial<Folds>;
  /** The table of sliding layers, where they have one. */
  localRope?: Rope;
}

export interface Architecture {
  readonly modelType: ModelType;
  /** Other values of model_type. */
  readonly aliases?: readonly string[];
  /** Classes of `architectures` that mean this one, whatever model_type says. */
  readonly classNames?: RegExp;
  readonly defaults: Defaults;
  /** The key of the features of an MLP; absent: intermediate_size. */
  readonly intermediateKey?: string;
  /** The section of rope_parameters that is of all layers, or of those that see all positions. */
  readonly ropeSection?: string;
  /** Whether partial_rotary_factor may be below 1. */
  readonly turnsInPart?: boolean;
  /** Names of tensors that only some architectures have, and this one. */
  readonly ownTensors?: RegExp;
  /** Tensors of a layer's norms, where they are not called as in a llama. */
  readonly norms?: Partial<Record<NormName, string>>;
  /** Whether linears are given int8 inputs, one factor a token, as its models were trained. */
  readonly takesInt8?: boolean;
  /** Whether each layer has norms before o and before down, whatever the tensors say. */
  readonly subNorms?: boolean;
  graph?(facts: Facts): Graph;
}
