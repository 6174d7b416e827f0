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

export function tensorNamesOf(
  { norms }: Architecture,
  tensors: Tensors,
  tied: boolean,
): TensorNames {
  const layers = "model.layers";
  const subNorms = SUB_NORM_PATHS.find(({ attnSub }) => tensors.has(`${layers}.0.${attnSub}`)) ??
    SUB_NORM_PATHS[0];
  const paths: Partial<Record<NormName, string>> = {
    input: "input_layernorm.weight",
    postAttention: "post_attention_layernorm.weight",
    ...subNorms,
    ...norms,
  };
  const embedding = "model.embed_tokens.weight";
  return {
    embedding,
    finalNorm: "model.norm.weight",
    head: tied ? embedding : "lm_head.weight",
    linear: (layer, name) => `${layers}.${layer}.${LINEAR_PATHS[name]}`,
    norm: (layer, which) => `${layers}.${layer}.${paths[which]}`,
  };
}
