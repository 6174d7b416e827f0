/** Made-up models in sizes that a test asks for: file formats want rows that whole blocks divide. */
import type { JsonObject } from "../runtime/json.ts";
import type { MadeModel, MadeTensor } from "./made_models.ts";

export interface Sizes {
  hidden: number;
  intermediate: number;
  headDim: number;
  vocab: number;
}

/** The model with other sizes: no public implementation has computed its logits. */
export function sizedModel(made: MadeModel, sizes: Sizes): MadeModel {
  const { greedy: _, exactVectors: __, ...rest } = made;
  const tensors = Object.fromEntries(
    Object.entries(made.tensors).map(([name, { kind, shape }]): [string, MadeTensor] => [
      name,
      { kind, shape: shapeOf(name, shape, made.config, sizes) },
    ]),
  );
  return {
    ...rest,
    config: sizedConfig(made.config, sizes),
    tensors,
    exact: made.exact.map(() => []),
  };
}

function shapeOf(name: string, shape: number[], config: JsonObject, sizes: Sizes): number[] {
  const { hidden, intermediate, headDim, vocab } = sizes;
  const queries = Number(config.num_attention_heads) * headDim;
  const keys = Number(config.num_key_value_heads) * headDim;
  const linears: Record<string, [n: number, k: number]> = {
    q: [queries, hidden],
    k: [keys, hidden],
    v: [keys, hidden],
    o: [hidden, queries],
    gate: [intermediate, hidden],
    up: [intermediate, hidden],
    down: [hidden, intermediate],
  };
  const [, linear, ownNorm] = /([a-z]+)_proj(\.norm)?\.weight$/.exec(name) ?? [];
  if (ownNorm !== undefined) return [linears[linear][1]];
  if (linear !== undefined) return [...shape.slice(0, -2), ...linears[linear]];
  if (/(embed_tokens|lm_head)\.weight$/.test(name)) return [vocab, hidden];
  if (/\.[qk]_norm\.weight$/.test(name)) return [headDim];
  return [...shape.slice(0, -1), hidden];
}

function sizedConfig(config: JsonObject, { hidden, intermediate, headDim, vocab }: Sizes) {
  const isMoe = "moe_intermediate_size" in config;
  const rope = config.rope_parameters as JsonObject;
  const factors = ["short_factor", "long_factor"].filter((key) => key in rope).map((key) => [
    key,
    Array.from({ length: headDim / 2 }, (_, i) => (rope[key] as number[])[0] + i / 8),
  ]);
  return {
    ...config,
    hidden_size: hidden,
    [isMoe ? "moe_intermediate_size" : "intermediate_size"]: intermediate,
    head_dim: headDim,
    vocab_size: vocab,
    rope_parameters: { ...rope, ...Object.fromEntries(factors) },
  };
}
