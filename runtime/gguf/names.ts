/**
 * Names of GGUF tensors and Hugging Face's names for the same.
 *
 * Sources: the gguf package's tensor_mapping.py; microsoft/BitNet's embedding converter (norm_in).
 */
import { shownList, UnsupportedModelError } from "../errors.ts";
import { OUTPUT_FACTOR } from "../tensor_names.ts";

/** Tensors that belong to no layer. */
const GLOBALS: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** A layer's tensors, behind `blk.N.`, and what they are behind `model.layers.N.`. */
const LAYER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  attn_sub_norm: "self_attn.attn_sub_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  ffn_sub_norm: "mlp.ffn_sub_norm",
  ffn_gate_inp: "mlp.gate",
  ffn_gate_exps: "mlp.experts.gate_proj",
  ffn_up_exps: "mlp.experts.up_proj",
  ffn_down_exps: "mlp.experts.down_proj",
  // Norms that linears apply to their own inputs.
  attn_q_norm_in: "self_attn.q_proj.norm",
  attn_k_norm_in: "self_attn.k_proj.norm",
  attn_v_norm_in: "self_attn.v_proj.norm",
  attn_output_norm_in: "self_attn.o_proj.norm",
  ffn_gate_norm_in: "mlp.gate_proj.norm",
  ffn_up_norm_in: "mlp.up_proj.norm",
  ffn_down_norm_in: "mlp.down_proj.norm",
};

/** Gemma norms before and after, so that ffn_norm is another one. */
const GEMMA_LAYER: Readonly<Record<string, string>> = {
  ...LAYER,
  post_attention_norm: "post_attention_layernorm",
  ffn_norm: "pre_feedforward_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};

/** Divisors of RoPE's frequencies, which become a part of config.json. */
export const ROPE_FACTORS = {
  all: "rope_freqs.weight",
  long: "rope_factors_long.weight",
  short: "rope_factors_short.weight",
} as const;

/** Tables that old converters wrote and nobody reads. */
const UNUSED = /^blk\.\d+\.attn_rot_embd\.weight$/;

/** `blk.12.attn_q.weight`: layer, name, and what of it. */
const LAYER_NAME = /^blk\.(0|[1-9]\d{0,5})\.([a-z_]+)\.(weight|bias|scale)$/;
const GLOBAL_NAME = /^([a-z_]+)\.(weight|bias)$/;

/**
 * Hugging Face's name of each tensor of a file, in the file's order.
 *
 * @throws {UnsupportedModelError} If there are tensors that no architecture that we know has.
 */
export function hfNames(names: Iterable<string>, architecture: string): Map<string, string> {
  const layer = architecture.startsWith("gemma") ? GEMMA_LAYER : LAYER;
  const found = new Map<string, string>();
  const unknown: string[] = [];
  for (const name of names) {
    if (isRopeTable(name) || UNUSED.test(name)) continue;
    const hfName = hfNameOf(name, layer);
    if (hfName === null) unknown.push(name);
    else found.set(name, hfName);
  }
  if (unknown.length === 0) return found;
  throw new UnsupportedModelError(
    `Cannot run this model: it has tensors of another architecture: ${shownList(unknown)}`,
  );
}

function isRopeTable(name: string): boolean {
  return Object.values(ROPE_FACTORS).some((table) => table === name);
}

function hfNameOf(name: string, layer: Readonly<Record<string, string>>): string | null {
  const inLayer = LAYER_NAME.exec(name);
  if (inLayer !== null) {
    const [, index, part, kind] = inLayer;
    if (!Object.hasOwn(layer, part)) return null;
    if (kind !== "scale") return `model.layers.${index}.${layer[part]}.${kind}`;
    const isLinear = /^(self_attn|mlp)\.[a-z]+_proj$/.test(layer[part]);
    return isLinear ? `model.layers.${index}.${layer[part]}.${OUTPUT_FACTOR}` : null;
  }
  const [, part, kind] = GLOBAL_NAME.exec(name) ?? [];
  return part !== undefined && Object.hasOwn(GLOBALS, part) ? `${GLOBALS[part]}.${kind}` : null;
}

/** Linears whose output features are heads that RoPE turns. */
const TURNED = /\.self_attn\.([qk])_proj\.(weight|bias)$/;

/**
 * Whether a tensor's rows are those of query or key heads: llama.cpp's llama and minicpm turn
 * neighbouring features, so their converters put rows i and i + headDim / 2 beside each other.
 *
 * @param hfName Hugging Face's name.
 */
export function turnedHeads(hfName: string): "query" | "key" | null {
  const which = TURNED.exec(hfName)?.[1];
  return which === undefined ? null : which === "q" ? "query" : "key";
}
