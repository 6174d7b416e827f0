/** Names of a checkpoint's tensors, as Hugging Face has them; `layer` counts from 0. */
import type { LinearName } from "../codegen/model_spec.ts";
import type { Architecture, Tensors } from "./models/architecture.ts";
import type { NormName } from "./weights.ts";

export interface TensorNames {
  embedding: string;
  finalNorm: string;
  /** Equal to `embedding` when tied. */
  head: string;
  /** Name of a linear without its last part, for example `model.layers.0.mlp.up_proj`. */
  linear(layer: number, name: LinearName): string;
  norm(layer: number, which: NormName): string;
  /** Weight of the norm that a linear applies to its own input. */
  inputNorm(layer: number, name: LinearName): string;
  /** Whether the outputs of linears have a factor of their own. */
  hasOutputFactors: boolean;
  /** Weight of the norm of query or key heads. */
  headNorm(layer: number, which: "query" | "key"): string;
  router(layer: number): string;
  /** Where an expert's matrix lies, without the last part of the name. */
  expert(layer: number, expert: number, name: ExpertLinear): ExpertPlace;
}

/** The matrices of an expert. */
export type ExpertLinear = "gate" | "up" | "down";

export interface ExpertPlace {
  path: string;
  /** Whether the tensor holds this matrix of all experts, one after the other. */
  stacked: boolean;
}

/** Where checkpoints keep a layer's linears. */
export const LINEAR_PATHS: Readonly<Record<LinearName, string>> = {
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.o_proj",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
};

/** Microsoft's and transformers' names, and those of 1bitLLM's b1.58 reproduction. */
const SUB_NORM_PATHS = [
  { attnSub: "self_attn.attn_sub_norm.weight", ffnSub: "mlp.ffn_sub_norm.weight" },
  { attnSub: "self_attn.inner_attn_ln.weight", ffnSub: "mlp.ffn_layernorm.weight" },
] as const;

/** Most models', that of what was saved without its head, and Maple's. */
const EMBEDDINGS = [["model.", "embed_tokens"], ["", "embed_tokens"], [
  "model.",
  "word_embeddings",
]];

/**
 * What a linear's output is multiplied by, as last part of a name: llama.cpp's converter of mid-2024 wrote
 * BitNet's weights as -1, 0 and 1, and their magnitude so. No Hugging Face model has the name.
 */
export const OUTPUT_FACTOR = "output_factor";

/** Microsoft's embedding models call the norms of linears' own inputs so, transformers rms_norm. */
const OWN_NORM = "norm.weight";

/** Whether linears norm their own inputs under the name of Microsoft's embedding models. */
export function hasOwnNorms(names: TensorNames): boolean {
  return names.inputNorm(0, "q").endsWith(`_proj.${OWN_NORM}`);
}

export function tensorNamesOf(
  { norms }: Pick<Architecture, "norms">,
  tensors: Tensors,
  tied: boolean,
): TensorNames {
  const [prefix, embeddings] =
    EMBEDDINGS.find(([prefix, name]) => tensors.has(`${prefix}${name}.weight`)) ?? EMBEDDINGS[0];
  const layers = `${prefix}layers`;
  const linear = (layer: number, name: LinearName) => `${layers}.${layer}.${LINEAR_PATHS[name]}`;
  const inputNorm = tensors.has(`${linear(0, "q")}.${OWN_NORM}`) ? OWN_NORM : "rms_norm.weight";
  const stacked = tensors.has(`${layers}.0.mlp.experts.gate_proj.weight`);
  const subNorms = SUB_NORM_PATHS.find(({ attnSub }) => tensors.has(`${layers}.0.${attnSub}`)) ??
    SUB_NORM_PATHS[0];
  const paths: Partial<Record<NormName, string>> = {
    input: "input_layernorm.weight",
    postAttention: "post_attention_layernorm.weight",
    ...subNorms,
    ...norms,
  };
  const embedding = `${prefix}${embeddings}.weight`;
  return {
    embedding,
    finalNorm: `${prefix}norm.weight`,
    head: tied ? embedding : "lm_head.weight",
    linear,
    norm: (layer, which) => `${layers}.${layer}.${paths[which]}`,
    inputNorm: (layer, name) => `${linear(layer, name)}.${inputNorm}`,
    hasOutputFactors: tensors.has(`${linear(0, "q")}.${OUTPUT_FACTOR}`),
    headNorm: (layer, which) => `${layers}.${layer}.self_attn.${which[0]}_norm.weight`,
    router: (layer) => `${layers}.${layer}.mlp.gate.weight`,
    expert(layer, expert, name) {
      const among = stacked ? "experts" : `experts.${expert}`;
      return { path: `${layers}.${layer}.mlp.${among}.${name}_proj`, stacked };
    },
  };
}
