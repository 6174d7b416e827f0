/** Checkpoints by their headers alone: config.json and the names, shapes and types of tensors. */
import assert from "node:assert/strict";
import { type ConfigOptions, type ModelConfig, parseModelConfig } from "../config.ts";
import { CheckpointError, UnsupportedModelError } from "../errors.ts";
import type { JsonObject } from "../json.ts";
import type { TensorInfo } from "../tensors.ts";

export type Header = Map<string, Pick<TensorInfo, "dtype" | "shape">>;

export interface HeaderOptions {
  layers: number;
  hidden: number;
  /** Features of all query heads, and of all key heads. */
  queries: number;
  keys: number;
  vocab: number;
  type: TensorInfo["dtype"];
  /** Type of the ternary matrices where it is another. */
  linears?: TensorInfo["dtype"];
  prefix?: string;
  head?: boolean;
  /** More tensors of a layer, behind its prefix. */
  layer: Readonly<Record<string, readonly number[]>>;
}

/** Embedding, final norm, head, attention and its norm; what architectures differ in is `layer`. */
export function headerOf(options: HeaderOptions): Header {
  const { layers, hidden, queries, keys, vocab, type, prefix = "model.", head } = options;
  const header: Header = new Map();
  const add = (name: string, shape: readonly number[]) => {
    const isLinear = /_proj\.weight$/.test(name);
    header.set(name, { dtype: isLinear ? options.linears ?? type : type, shape });
  };
  add(`${prefix}embed_tokens.weight`, [vocab, hidden]);
  add(`${prefix}norm.weight`, [hidden]);
  if (head) add("lm_head.weight", [vocab, hidden]);
  for (let layer = 0; layer < layers; layer++) {
    const all = {
      "input_layernorm.weight": [hidden],
      "post_attention_layernorm.weight": [hidden],
      "self_attn.q_proj.weight": [queries, hidden],
      "self_attn.k_proj.weight": [keys, hidden],
      "self_attn.v_proj.weight": [keys, hidden],
      "self_attn.o_proj.weight": [hidden, queries],
      ...options.layer,
    };
    for (const [name, shape] of Object.entries(all)) add(`${prefix}layers.${layer}.${name}`, shape);
  }
  return header;
}

/** The gated MLP's matrices. */
export function mlp(hidden: number, intermediate: number) {
  return {
    "mlp.gate_proj.weight": [intermediate, hidden],
    "mlp.up_proj.weight": [intermediate, hidden],
    "mlp.down_proj.weight": [hidden, intermediate],
  };
}

/** Norms of query and key heads. */
export function headNorms(headDim: number) {
  return { "self_attn.q_norm.weight": [headDim], "self_attn.k_norm.weight": [headDim] };
}

/** Norms of the seven linears' own inputs, as Microsoft's embedding models name them. */
export function inputNorms(hidden: number, queries: number, intermediate: number) {
  return {
    ...Object.fromEntries(
      ["self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"].map((name) => [
        `${name}_proj.norm.weight`,
        [hidden],
      ]),
    ),
    "self_attn.o_proj.norm.weight": [queries],
    "mlp.down_proj.norm.weight": [intermediate],
  };
}

/** Asserts that a config is refused in one line of ours. */
export function assertRefused(
  json: JsonObject,
  header: Header,
  message: RegExp,
  grain?: Grain,
): void {
  assert.throws(() => parse(json, header, grain), (error: Error) => {
    const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
    assert.ok(isOurs, error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

/** What samples of the weights said. */
type Grain = ConfigOptions["grain"];

/** Weights that are ternary as they stand, with a factor a group of 128. */
export const BY_GROUP = { grain: 128, scaleType: "bf16" } as const;
export const BY_ROW = { grain: "row", scaleType: "bf16" } as const;

export function parse(json: JsonObject, header: Header, grain?: Grain): ModelConfig {
  return parseModelConfig(json, header, { grain });
}
