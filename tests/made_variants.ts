/** Models made like those of `made_models.ts`, of which no public implementation has computed logits. */
import { MADE, type MadeModel, madeModel } from "./made_models.ts";

/** No public implementation of Maple is on PyPI: the decoder in doubles alone says what is right. */
export const MAPLE: MadeModel = {
  name: "maple",
  dtype: "BF16",
  config: {
    architectures: ["MapleForCausalLM"],
    model_type: "maple",
    hidden_size: 128,
    moe_intermediate_size: 64,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    vocab_size: 256,
    rms_norm_eps: 1e-6,
    max_position_embeddings: 64,
    num_experts: 8,
    num_experts_per_tok: 2,
    norm_topk_prob: true,
    swiglu_limit: 7,
    sliding_window: 5,
    partial_rotary_factor: 0.5,
    rope_theta: 10000,
    rope_parameters: { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 0.5 },
    layer_types: [
      "sliding_attention",
      "sliding_attention",
      "sliding_attention",
      "full_attention",
    ],
    tie_word_embeddings: false,
  },
  tensors: mapleTensors(),
  exact: MADE.sequences.map((ids) => ids.map((_, i) => i)),
};

function mapleTensors(): MadeModel["tensors"] {
  const tensors: MadeModel["tensors"] = {
    "model.embed_tokens.weight": { shape: [256, 128], kind: "embedding" },
    "model.norm.weight": { shape: [128], kind: "norm" },
    "lm_head.weight": { shape: [256, 128], kind: "embedding" },
  };
  for (let layer = 0; layer < 4; layer++) {
    const add = (name: string, shape: number[], kind: string) =>
      tensors[`model.layers.${layer}.${name}.weight`] = { shape, kind };
    for (const name of ["input_layernorm", "post_attention_layernorm"]) add(name, [128], "norm");
    for (const name of ["q", "k"]) add(`self_attn.${name}_norm`, [32], "norm");
    for (const [name, rows] of [["q", 128], ["k", 64], ["v", 64], ["o", 128]] as const) {
      add(`self_attn.${name}_proj`, [rows, 128], "row");
    }
    add("mlp.gate", [8, 128], "offset");
    for (const name of ["gate", "up"]) add(`mlp.experts.${name}_proj`, [8, 64, 128], "row");
    add("mlp.experts.down_proj", [8, 128, 64], "row");
  }
  return tensors;
}

/** Bonsai as it is published: embedding and head are ternary too, one matrix or two. */
export function withTernaryEnds(tied: boolean): MadeModel {
  const { greedy: _, ...made } = madeModel("bonsai");
  const { "lm_head.weight": head, ...others } = made.tensors;
  const kind = "group 128";
  const embedding = { ...made.tensors["model.embed_tokens.weight"], kind };
  return {
    ...made,
    name: tied ? "bonsai, tied" : "bonsai, ternary throughout",
    config: { ...made.config, tie_word_embeddings: tied },
    tensors: {
      ...others,
      "model.embed_tokens.weight": embedding,
      ...(tied ? {} : { "lm_head.weight": { ...head, kind } }),
    },
    exact: MADE.sequences.map((ids) => ids.map((_, i) => i)),
  };
}

/** Bonsai whose rows are whole blocks in all linears, and whose embedding and head are ternary. */
export function bonsaiOfBlocks(tied: boolean): MadeModel {
  const made = madeModel("bonsai");
  const headDim = 64;
  const [hidden, query, key] = [256, 4 * headDim, 2 * headDim];
  const rows = { q: [query, hidden], k: [key, hidden], v: [key, hidden], o: [hidden, query] };
  const tensors: MadeModel["tensors"] = {};
  for (const [name, tensor] of Object.entries(made.tensors)) {
    const which = /self_attn\.([qkvo])_proj/.exec(name)?.[1] as keyof typeof rows;
    if (which !== undefined) tensors[name] = { ...tensor, shape: rows[which] };
    else if (/_norm\.weight$/.test(name)) tensors[name] = { ...tensor, shape: [headDim] };
    else tensors[name] = tensor;
    if (tensor.kind === "embedding") tensors[name] = { ...tensor, kind: "group 128" };
  }
  if (tied) delete tensors["lm_head.weight"];
  const config = { ...made.config, head_dim: headDim, tie_word_embeddings: tied };
  // Factors of blocks are halves.
  return { ...made, config, tensors, dtype: "F16" };
}

/** A model whose groups of weights with a factor each are of another size. */
export function withGroups(made: MadeModel, size: number): MadeModel {
  return withKinds(made, (kind) => kind.replace(/^group \d+/, `group ${size}`));
}

/** A model whose matrices have one factor each: TriLM's smaller ones. */
export function withOneFactor(made: MadeModel): MadeModel {
  return withKinds(made, (kind) => /^(group|blocks|row)/.test(kind) ? "matrix" : kind);
}

/** A model whose q and down add biases. */
export function withBiases(made: MadeModel): MadeModel {
  const { greedy: _, ...rest } = made;
  const biases = Object.entries(made.tensors)
    .filter(([name]) => /\.(q|down)_proj\.weight$/.test(name))
    .map(([name, { shape }]) =>
      [name.replace(/weight$/, "bias"), { shape: shape.slice(0, 1), kind: "offset" }] as const
    );
  const tensors = { ...made.tensors, ...Object.fromEntries(biases) };
  return { ...rest, tensors, exact: made.exact.map(() => []) };
}

function withKinds(made: MadeModel, change: (kind: string) => string): MadeModel {
  const { greedy: _, ...rest } = made;
  const tensors = Object.entries(made.tensors).map(([name, { shape, kind }]) =>
    [name, { shape, kind: change(kind) }] as const
  );
  return { ...rest, tensors: Object.fromEntries(tensors), exact: made.exact.map(() => []) };
}

/** A Gemma 3 that continues texts: without norms in its linears, with a factor a row and a head. */
export function gemma3(): MadeModel {
  const { exactVectors: _, ...made } = madeModel("embedding-gemma3");
  const tensors = Object.entries(made.tensors)
    .filter(([name]) => !/_proj\.norm/.test(name))
    .map(([name, tensor]) =>
      [`model.${name}`, tensor.kind === "master" ? { ...tensor, kind: "row" } : tensor] as const
    );
  const head = made.tensors["embed_tokens.weight"];
  return {
    ...made,
    name: "gemma3",
    config: {
      ...made.config,
      architectures: ["Gemma3ForCausalLM"],
      tie_word_embeddings: false,
    },
    tensors: Object.fromEntries([...tensors, ["lm_head.weight", head]]),
    exact: made.exact.map(() => []),
  };
}
