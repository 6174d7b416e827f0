/**
 * A plain float model as it is before it is ternarised: to say what ternarising costs. All but its
 * matrices' products is in doubles and as obvious as it can be. Matrices are read when they are needed,
 * one at a time.
 *
 * Source: transformers' models/llama/modeling_llama.py, qwen3 and gemma3.
 */
import type { LinearName, ModelSpec } from "../../codegen/model_spec.ts";
import type { StoredMatrix } from "../../codegen/pack/stored.ts";
import { ropeTables } from "../rope.ts";
import type { LogitPositions, Model } from "../types.ts";
import type { FloatMatrix } from "../weights.ts";
import { toFloat32 } from "../float_formats.ts";
import type { Products, Rows } from "./float_products.ts";
import type { Source } from "./source.ts";

/** Parts that this graph lacks; null where it has all that the model needs. */
export function missingPart(spec: ModelSpec): string | null {
  const parts: [boolean | undefined, string][] = [
    [spec.subNorms || spec.linearNormEps !== null, "norms inside its blocks"],
    [spec.experts !== undefined, "experts"],
    [spec.sliding !== undefined, "sliding attention"],
    [spec.rotaryDim !== undefined && spec.rotaryDim !== spec.headDim, "partial RoPE"],
  ];
  return parts.find(([has]) => has)?.[1] ?? null;
}

/** The model, whose matrices `products` multiplies. */
export function openFloatModel(
  source: Source,
  contextSize: number,
  products: Products,
): Pick<Model, "tokenizer" | "contextSize" | "logits"> {
  const model = new FloatModel(source, products);
  return {
    tokenizer: source.tokenizer,
    contextSize,
    async *logits(ids, { positions = "last", signal } = {}) {
      const { from, to } = rangeOf(positions, ids.length);
      const states = (await model.states(ids, signal)).slice(from, to);
      const most = Math.max(1, Math.floor(LOGIT_BYTES / 8 / source.config.spec.vocabSize));
      for (let first = 0; first < states.length; first += most) {
        const rows = await model.head(states.slice(first, first + most));
        for (const [i, row] of rows.entries()) {
          yield { position: from + first + i, logits: new Float32Array(row) };
        }
      }
    },
  };
}

/** Logits that are in memory at once. */
const LOGIT_BYTES = 64 << 20;
/** Of the head, that are in memory at once. */
const HEAD_BYTES = 64 << 20;

function rangeOf(positions: LogitPositions, length: number): { from: number; to: number } {
  if (positions === "all") return { from: 0, to: length };
  return positions === "last" ? { from: length - 1, to: length } : positions;
}

class FloatModel {
  readonly #source: Source;
  readonly #spec: ModelSpec;
  readonly #products: Products;

  constructor(source: Source, products: Products) {
    this.#source = source;
    this.#spec = source.config.spec;
    this.#products = products;
  }

  /** After the final norm, of each token. */
  async states(ids: readonly number[], signal?: AbortSignal): Promise<Rows> {
    const { numHiddenLayers, rmsNormEps } = this.#spec;
    let h = await this.#embedded(ids);
    for (let layer = 0; layer < numHiddenLayers; layer++) {
      signal?.throwIfAborted();
      h = await this.#layer(layer, h);
    }
    return normed(h, await this.#source.weights.finalNorm(), rmsNormEps);
  }

  /** Logits of each. */
  async head(states: Rows): Promise<Float64Array[]> {
    const { weights } = this.#source;
    const matrix = this.#spec.tieWordEmbeddings ? weights.embedding() : weights.head();
    const logits = states.map(() => new Float64Array(matrix.rows));
    const most = Math.max(1, Math.floor(HEAD_BYTES / 4 / matrix.columns));
    for (let first = 0; first < matrix.rows; first += most) {
      const piece = await rowsOf(matrix, first, Math.min(most, matrix.rows - first));
      const part = await this.#products.multiply(piece, states);
      part.forEach((row, t) => logits[t].set(row, first));
    }
    return logits;
  }

  async #embedded(ids: readonly number[]): Promise<Rows> {
    const matrix = this.#source.weights.embedding();
    const scale = this.#spec.embeddingScale ?? 1;
    const rows: Float64Array[] = [];
    for (const id of ids) {
      const { bytes } = await rowsOf(matrix, id, 1);
      rows.push(Float64Array.from(toFloat32(bytes, matrix.type), (value) => value * scale));
    }
    return rows;
  }

  async #layer(layer: number, h: Rows): Promise<Rows> {
    const { weights } = this.#source;
    const { rmsNormEps, postNorms, residualScale = 1 } = this.#spec;
    const added = async (h: Rows, part: Rows, which: "attentionOut" | "mlpOut") => {
      const out = postNorms ? normed(part, await weights.norm(layer, which), rmsNormEps) : part;
      return h.map((row, t) => row.map((value, i) => value + residualScale * out[t][i]));
    };
    const a = normed(h, await weights.norm(layer, "input"), rmsNormEps);
    const attended = await added(h, await this.#attention(layer, a), "attentionOut");
    const b = normed(attended, await weights.norm(layer, "postAttention"), rmsNormEps);
    return await added(attended, await this.#mlp(layer, b), "mlpOut");
  }

  async #attention(layer: number, x: Rows): Promise<Rows> {
    const spec = this.#spec;
    const tables = ropeTables(this.#source.config, x.length);
    const placed = async (name: "q" | "k") => {
      const rows = await this.#linear(layer, name, x);
      return turned(await this.#headNormed(layer, name, rows), spec, tables);
    };
    const [q, k] = [await placed("q"), await placed("k")];
    const v = await this.#linear(layer, "v", x);
    return await this.#linear(layer, "o", attention(spec, q, k, v));
  }

  async #headNormed(layer: number, name: "q" | "k", rows: Rows): Promise<Rows> {
    const { qkNorm, headDim, rmsNormEps } = this.#spec;
    if (!qkNorm) return rows;
    const weights = await this.#source.weights.headNorm!(layer, name === "q" ? "query" : "key");
    return rows.map((row) => {
      const heads = Array.from(
        { length: row.length / headDim },
        (_, head) => row.subarray(head * headDim, (head + 1) * headDim),
      );
      return Float64Array.from(normed(heads, weights, rmsNormEps).flatMap((head) => [...head]));
    });
  }

  async #mlp(layer: number, x: Rows): Promise<Rows> {
    const activation = ACTIVATIONS[this.#spec.hiddenAct];
    const gate = await this.#linear(layer, "gate", x);
    const up = await this.#linear(layer, "up", x);
    const f = gate.map((row, t) => row.map((g, i) => activation(g) * up[t][i]));
    return await this.#linear(layer, "down", f);
  }

  async #linear(layer: number, name: LinearName, x: Rows): Promise<Rows> {
    const { matrix, bias } = await this.#source.weights.linear(layer, name);
    const y = await this.#products.multiply(matrix, x);
    return bias === null ? y : y.map((row) => row.map((value, i) => value + bias[i]));
  }
}

const ACTIVATIONS: Readonly<Record<ModelSpec["hiddenAct"], (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu2: (x) => Math.max(x, 0) ** 2,
  geluTanh: (x) => x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

async function rowsOf(matrix: FloatMatrix, first: number, count: number): Promise<StoredMatrix> {
  const bytes = await matrix.readRows(first, count);
  return { kind: matrix.type, bytes, n: count, k: matrix.columns };
}

function normed(rows: Rows, weights: Float32Array, eps: number): Float64Array[] {
  return rows.map((row) => {
    const mean = row.reduce((sum, value) => sum + value * value, 0) / row.length;
    const scale = 1 / Math.sqrt(mean + eps);
    return row.map((value, i) => value * scale * weights[i]);
  });
}

/** Feature i of a head turns with feature i + headDim / 2. */
function turned(
  rows: Rows,
  { headDim }: ModelSpec,
  { cos, sin }: { cos: Float32Array; sin: Float32Array },
): Rows {
  const half = headDim / 2;
  return rows.map((row, t) => {
    const out = new Float64Array(row.length);
    for (let i = 0; i < row.length; i++) {
      const inHead = i % headDim;
      const at = t * half + inHead % half;
      out[i] = inHead < half
        ? row[i] * cos[at] - row[i + half] * sin[at]
        : row[i] * cos[at] + row[i - half] * sin[at];
    }
    return out;
  });
}

function attention(spec: ModelSpec, q: Rows, k: Rows, v: Rows): Rows {
  const { numAttentionHeads, numKeyValueHeads, headDim } = spec;
  const perKey = numAttentionHeads / numKeyValueHeads;
  return q.map((query, t) => {
    const out = new Float64Array(query.length);
    for (let head = 0; head < numAttentionHeads; head++) {
      const own = head * headDim;
      const shared = Math.floor(head / perKey) * headDim;
      const scores = new Float64Array(t + 1);
      for (let s = 0; s <= t; s++) {
        scores[s] = dot(query, own, k[s], shared, headDim) / Math.sqrt(headDim);
      }
      softmax(scores).forEach((weight, s) => {
        const values = v[s];
        for (let i = 0; i < headDim; i++) out[own + i] += weight * values[shared + i];
      });
    }
    return out;
  });
}

function dot(a: Float64Array, from: number, b: Float64Array, other: number, length: number) {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[from + i] * b[other + i];
  return sum;
}

function softmax(scores: Float64Array): Float64Array {
  const highest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
  const powers = scores.map((score) => Math.exp(score - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
