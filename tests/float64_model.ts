/**
 * Decoders of all architectures in double precision, plain and slow, sharing no code with the runtime:
 * floats as published models have them, or inputs of linears rounded to int8 as the kernels do it.
 *
 * Sources: transformers' modeling_qwen3.py, modeling_gemma3.py, modeling_granite.py; llama.cpp's graph
 * of `maple`; transformers' integrations/bitnet.py.
 */
import { type MadeModel, madeValues } from "./made_models.ts";

type Row = Float64Array<ArrayBuffer>;
type Linear = (x: Row) => Row;

/** Features of a linear's input that are rounded to int8 together; null: none are. */
export type Rounding = "token" | number | null;

// deno-lint-ignore no-explicit-any -- a config.json as it is.
type Config = any;

const sum = (values: Iterable<number>) => {
  let total = 0;
  for (const value of values) total += value;
  return total;
};
const plus = (a: Row, b: Row, scale = 1) => a.map((v, i) => v + b[i] * scale);
const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));

function roundHalfEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** Every `size` features by their largest one, to 127 steps. */
function rounded(x: Row, rounding: Rounding): Row {
  if (rounding === null) return x;
  const size = rounding === "token" ? x.length : rounding;
  const out = x.slice();
  for (let from = 0; from < x.length; from += size) {
    const part = x.subarray(from, from + size);
    const scale = 127 / Math.max(1e-5, ...part.map(Math.abs));
    part.forEach((v, i) => out[from + i] = clamp(roundHalfEven(v * scale), -128, 127) / scale);
  }
  return out;
}

function product(weights: Row, x: Row): Row {
  return Float64Array.from({ length: weights.length / x.length }, (_, row) => {
    let total = 0;
    for (let i = 0; i < x.length; i++) total += weights[row * x.length + i] * x[i];
    return total;
  });
}

function rmsNorm(x: Row, weight: Row, eps: number): Row {
  const meanSquare = sum(x.map((v) => v * v)) / x.length;
  return x.map((v, i) => v / Math.sqrt(meanSquare + eps) * weight[i]);
}

/** Masters as BitLinear multiplies by them. */
function ternarised(weights: Row): Row {
  const mean = sum(weights.map(Math.abs)) / weights.length;
  return weights.map((w) => clamp(roundHalfEven(w / mean), -1, 1) * mean);
}

const silu = (x: number) => x / (1 + Math.exp(-x));
const gelu = (x: number) =>
  x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** The frequencies of a layer, and what cosines and sines are multiplied by. */
function frequenciesOf(config: Config, slides: boolean, features: number) {
  const all = config.rope_parameters;
  const rope = all.full_attention === undefined
    ? all
    : all[slides ? "sliding_attention" : "full_attention"];
  const theta = rope.rope_theta;
  const plain = Array.from({ length: features / 2 }, (_, i) => theta ** (-2 * i / features));
  if (rope.rope_type === "linear") return { frequencies: plain.map((v) => v / rope.factor), by: 1 };
  const original = rope.original_max_position_embeddings;
  if (rope.rope_type === "longrope") {
    const factor = config.max_position_embeddings / original;
    const by = Math.sqrt(1 + Math.log(factor) / Math.log(original));
    return { frequencies: plain.map((v, i) => v / rope.short_factor[i]), by };
  }
  if (rope.rope_type === "yarn") {
    const pairOf = (turns: number) =>
      features * Math.log(original / (turns * 2 * Math.PI)) / (2 * Math.log(theta));
    const [low, high] = [Math.max(0, Math.floor(pairOf(32))), Math.ceil(pairOf(1))];
    const frequencies = plain.map((v, i) => {
      const ramp = clamp((i - low) / (Math.min(high, features - 1) - low), 0, 1);
      return v * (1 - ramp) + v / rope.factor * ramp;
    });
    return { frequencies, by: 0.1 * Math.log(rope.factor) + 1 };
  }
  return { frequencies: plain, by: 1 };
}

class Decoder {
  readonly #config: Config;
  readonly #tensors = new Map<string, Row>();
  readonly #rounding: Rounding;
  readonly #prefix: string;
  readonly #isGemma: boolean;
  readonly #hasTernaryHead: boolean;

  constructor(model: MadeModel, rounding: Rounding) {
    this.#config = model.config;
    this.#rounding = rounding;
    const head = model.tensors["lm_head.weight"] ?? model.tensors["model.embed_tokens.weight"];
    this.#hasTernaryHead = head?.kind.startsWith("group") ?? false;
    for (const [name, tensor] of Object.entries(model.tensors)) {
      const values = Float64Array.from(madeValues(name, tensor));
      this.#tensors.set(name, tensor.kind === "master" ? ternarised(values) : values);
    }
    this.#prefix = this.#tensors.has("embed_tokens.weight") ? "" : "model.";
    this.#isGemma = String(this.#config.model_type).startsWith("gemma");
  }

  #tensor(name: string): Row {
    return this.#tensors.get(this.#prefix + name)!;
  }

  /** Weight of a norm as it multiplies. */
  #norm(name: string): Row {
    const weight = this.#tensor(`${name}.weight`);
    return this.#isGemma ? weight.map((w) => w + 1) : weight;
  }

  #linear(path: string): Linear {
    const own = this.#tensor(`${path}.norm.weight`);
    const weights = this.#tensor(`${path}.weight`);
    return (x) => {
      const normed = own === undefined ? x : rmsNorm(x, own, this.#config.rms_norm_eps);
      return product(weights, rounded(normed, this.#rounding));
    };
  }

  /** Logits of a sequence, a row a token. */
  run(ids: readonly number[]): Row[] {
    const config = this.#config;
    const { hidden_size: size, num_hidden_layers: layers, rms_norm_eps: eps } = config;
    const embedding = this.#tensor("embed_tokens.weight");
    const by = this.#isGemma ? Math.sqrt(size) : config.scale_emb ?? 1;
    let rows: Row[] = ids.map((id) =>
      embedding.slice(id * size, (id + 1) * size).map((v) => v * by)
    );
    for (let layer = 0; layer < layers; layer++) rows = this.#layer(rows, layer);
    const head = this.#tensors.get("lm_head.weight") ?? embedding;
    const logitScale = (config.dim_model_base ?? size) / size;
    const norm = this.#norm("norm");
    return rows.map((x) => {
      const normed = rmsNorm(x, norm, eps);
      const y = product(head, this.#hasTernaryHead ? rounded(normed, this.#rounding) : normed);
      return y.map((v) => v * logitScale);
    });
  }

  #layer(rows: Row[], layer: number): Row[] {
    const config = this.#config;
    const eps = config.rms_norm_eps;
    const at = `layers.${layer}`;
    const scale = config.scale_depth === undefined
      ? 1
      : config.scale_depth / Math.sqrt(config.num_hidden_layers);
    const post = (name: string) => (x: Row) =>
      this.#isGemma ? rmsNorm(x, this.#norm(name), eps) : x;
    const [afterAttention, afterMlp] = ["post_attention", "post_feedforward"]
      .map((name) => post(`${at}.${name}_layernorm`));
    const before = this.#norm(
      `${at}.${this.#isGemma ? "pre_feedforward" : "post_attention"}_layernorm`,
    );
    const input = this.#norm(`${at}.input_layernorm`);
    const attended = this.#attention(rows.map((x) => rmsNorm(x, input, eps)), layer);
    const mlp = this.#mlp(at);
    return rows.map((x, t) => {
      const h = plus(x, afterAttention(attended[t]), scale);
      return plus(h, afterMlp(mlp(rmsNorm(h, before, eps))), scale);
    });
  }

  #mlp(at: string): Linear {
    if (this.#config.num_experts !== undefined) return this.#experts(`${at}.mlp`);
    const [gate, up, down] = ["gate", "up", "down"].map((name) =>
      this.#linear(`${at}.mlp.${name}_proj`)
    );
    const act = this.#isGemma ? gelu : silu;
    return (x) => {
      const ups = up(x);
      return down(gate(x).map((g, i) => act(g) * ups[i]));
    };
  }

  #experts(at: string): Linear {
    const config = this.#config;
    const router = this.#tensor(`${at}.gate.weight`);
    const part = (name: string, expert: number): Linear => {
      const all = this.#tensor(`${at}.experts.${name}_proj.weight`);
      const size = all.length / config.num_experts;
      const weights = all.subarray(expert * size, (expert + 1) * size);
      return (x) => product(weights, rounded(x, this.#rounding));
    };
    const limit = config.swiglu_limit;
    return (x) => {
      const exps = product(router, x).map(Math.exp);
      const total = sum(exps);
      const shares = [...exps].map((e, expert) => ({ share: e / total, expert }));
      const picked = shares.sort((a, b) => b.share - a.share).slice(0, config.num_experts_per_tok);
      const all = sum(picked.map(({ share }) => share));
      return picked.reduce((y, { share, expert }) => {
        const ups = part("up", expert)(x).map((u) => clamp(u, -limit, limit));
        const gates = part("gate", expert)(x).map((g) => silu(Math.min(g, limit)));
        return plus(y, part("down", expert)(gates.map((g, i) => g * ups[i])), share / all);
      }, new Float64Array(x.length));
    };
  }

  /** Positions that a token sees in a layer that slides; Maple's key counts those before it. */
  #window(): number {
    const { sliding_window, model_type } = this.#config;
    return sliding_window + Number(model_type === "maple");
  }

  #attention(inputs: Row[], layer: number): Row[] {
    const config = this.#config;
    const at = `layers.${layer}.self_attn`;
    const heads = config.num_attention_heads;
    const size = config.head_dim ?? config.hidden_size / heads;
    const slides = config.layer_types?.[layer] === "sliding_attention";
    const place = this.#placing(at, size, slides);
    const [q, k, v, o] = ["q", "k", "v", "o"].map((name) => this.#linear(`${at}.${name}_proj`));
    const split = (row: Row) =>
      Array.from({ length: row.length / size }, (_, i) => row.slice(i * size, (i + 1) * size));
    const keys = inputs.map((x, t) => split(k(x)).map((head) => place(head, "k", t)));
    const values = inputs.map((x) => split(v(x)));
    const group = heads / config.num_key_value_heads;
    const scale = (config.query_pre_attn_scalar ?? size) ** -0.5;
    return inputs.map((x, t) => {
      const first = slides ? Math.max(0, t + 1 - this.#window()) : 0;
      const out = split(q(x)).map((head) => place(head, "q", t)).flatMap((query, h) => {
        const own = Math.floor(h / group);
        const seen = keys.slice(first, t + 1).map((each) => each[own]);
        const scores = seen.map((key) => Math.exp(scale * sum(query.map((a, i) => a * key[i]))));
        const total = sum(scores);
        return Array.from(
          { length: size },
          (_, i) => sum(scores.map((s, j) => s / total * values[first + j][own][i])),
        );
      });
      return o(Float64Array.from(out));
    });
  }

  /** Norms a head where the model does, and turns it to its position where the layer does. */
  #placing(at: string, size: number, slides: boolean) {
    const config = this.#config;
    const isMaple = config.model_type === "maple";
    const turned = size * (config.partial_rotary_factor ?? 1);
    const { frequencies, by } = frequenciesOf(config, slides, turned);
    return (head: Row, which: "q" | "k", position: number): Row => {
      const isNormed = this.#tensor(`${at}.${which}_norm.weight`) !== undefined;
      const x = isNormed
        ? rmsNorm(head, this.#norm(`${at}.${which}_norm`), config.rms_norm_eps)
        : head;
      if (isMaple && !slides) return x;
      return x.map((v, i) => {
        if (i >= turned) return v;
        const pair = i % (turned / 2);
        const other = i < turned / 2 ? -x[i + turned / 2] : x[i - turned / 2];
        const angle = position * frequencies[pair];
        return (v * Math.cos(angle) + other * Math.sin(angle)) * by;
      });
    };
  }
}

/** @returns Logits of each sequence, a row a token. */
export function float64Logits(
  model: MadeModel,
  sequences: readonly (readonly number[])[],
  rounding: Rounding,
): Row[][] {
  const decoder = new Decoder(model, rounding);
  return sequences.map((ids) => decoder.run(ids));
}
