/**
 * A plain float model as it is before it is ternarised, in doubles and as obvious as it can be: to say
 * what ternarising costs. For small models: it takes about a nanosecond for each weight and token.
 *
 * Source: transformers' models/llama/modeling_llama.py.
 */
import {
  type FloatType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import { toFloat32 } from "../float_formats.ts";
import { ropeTables } from "../rope.ts";
import type { LogitPositions, Model } from "../types.ts";
import type { FloatMatrix } from "../weights.ts";
import type { Source } from "./source.ts";

interface Linear {
  weights: Float32Array;
  bias: Float32Array | null;
  n: number;
  k: number;
}

interface Layer {
  inputNorm: Float32Array;
  mlpNorm: Float32Array;
  linears: Record<LinearName, Linear>;
}

/** Tokens of a text at once, each a row of features. */
type Rows = Float64Array[];

/** Parts that this graph lacks; null where it has all that the model needs. */
export function missingPart(spec: ModelSpec): string | null {
  const parts: [boolean | undefined, string][] = [
    [spec.hiddenAct !== "silu", "another activation than SiLU"],
    [spec.subNorms || spec.linearNormEps !== null, "norms inside its blocks"],
    [spec.qkNorm || spec.postNorms, "further norms"],
    [spec.experts !== undefined, "experts"],
    [spec.sliding !== undefined, "sliding attention"],
    [spec.rotaryDim !== undefined && spec.rotaryDim !== spec.headDim, "partial RoPE"],
    [(spec.embeddingScale ?? 1) !== 1 || (spec.residualScale ?? 1) !== 1, "scaled residuals"],
  ];
  return parts.find(([has]) => has)?.[1] ?? null;
}

/** All weights in memory, four bytes each. */
export async function openFloatModel(
  source: Source,
  contextSize: number,
): Promise<Pick<Model, "tokenizer" | "contextSize" | "logits">> {
  const { config: { spec }, weights, tokenizer } = source;
  const layers: Layer[] = [];
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    const linears = {} as Layer["linears"];
    for (const name of LINEAR_NAMES) {
      const { matrix, bias } = await weights.linear(layer, name);
      const floats = toFloat32(matrix.bytes, matrix.kind as FloatType);
      linears[name] = { weights: floats, bias, ...linearShape(spec, name) };
    }
    const inputNorm = await weights.norm(layer, "input");
    const mlpNorm = await weights.norm(layer, "postAttention");
    layers.push({ inputNorm, mlpNorm, linears });
  }
  const embedding = await allRows(weights.embedding());
  const model: FloatModel = {
    source,
    layers,
    embedding,
    head: spec.tieWordEmbeddings ? embedding : await allRows(weights.head()),
    finalNorm: await weights.finalNorm(),
  };
  return {
    tokenizer,
    contextSize,
    async *logits(ids, { positions = "last" } = {}) {
      const all = logitsOf(model, ids);
      const { from, to } = rangeOf(positions, ids.length);
      for (let position = from; position < to; position++) {
        yield await Promise.resolve({ position, logits: all[position] });
      }
    },
  };
}

function rangeOf(positions: LogitPositions, length: number): { from: number; to: number } {
  if (positions === "all") return { from: 0, to: length };
  return positions === "last" ? { from: length - 1, to: length } : positions;
}

interface FloatModel {
  source: Source;
  layers: readonly Layer[];
  embedding: Float32Array;
  head: Float32Array;
  finalNorm: Float32Array;
}

async function allRows(matrix: FloatMatrix): Promise<Float32Array> {
  return toFloat32(await matrix.readRows(0, matrix.rows), matrix.type);
}

function logitsOf(model: FloatModel, ids: readonly number[]): Float32Array[] {
  const { spec } = model.source.config;
  const { hiddenSize: k, vocabSize: n } = spec;
  let h: Rows = ids.map((id) => Float64Array.from(model.embedding.subarray(id * k, (id + 1) * k)));
  for (const layer of model.layers) h = layerOf(model, layer, h);
  const head = { weights: model.head, bias: null, n, k };
  return linear(head, normed(h, model.finalNorm, spec.rmsNormEps))
    .map((row) => Float32Array.from(row));
}

function layerOf({ source }: FloatModel, { inputNorm, mlpNorm, linears }: Layer, h: Rows): Rows {
  const { spec } = source.config;
  const a = normed(h, inputNorm, spec.rmsNormEps);
  const [q, k, v] = (["q", "k", "v"] as const).map((name) => linear(linears[name], a));
  const tables = ropeTables(source.config, h.length);
  const attended = attention(spec, turned(q, spec, tables), turned(k, spec, tables), v);
  const afterAttention = added(h, linear(linears.o, attended));
  const b = normed(afterAttention, mlpNorm, spec.rmsNormEps);
  const [gate, up] = [linear(linears.gate, b), linear(linears.up, b)];
  const f = gate.map((row, t) => row.map((g, i) => g / (1 + Math.exp(-g)) * up[t][i]));
  return added(afterAttention, linear(linears.down, f));
}

function added(a: Rows, b: Rows): Rows {
  return a.map((row, t) => row.map((value, i) => value + b[t][i]));
}

function normed(rows: Rows, weights: Float32Array, eps: number): Rows {
  return rows.map((row) => {
    const mean = row.reduce((sum, value) => sum + value * value, 0) / row.length;
    const scale = 1 / Math.sqrt(mean + eps);
    return row.map((value, i) => value * scale * weights[i]);
  });
}

/** One row of weights for all tokens, while it is in the cache. */
function linear({ weights, bias, n, k }: Linear, x: Rows): Rows {
  const y = x.map(() => new Float64Array(n));
  for (let row = 0; row < n; row++) {
    const w = weights.subarray(row * k, (row + 1) * k);
    for (let t = 0; t < x.length; t++) {
      const inputs = x[t];
      let sum = bias?.[row] ?? 0;
      for (let i = 0; i < k; i++) sum += w[i] * inputs[i];
      y[t][row] = sum;
    }
  }
  return y;
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
      const weights = softmax(Array.from(
        { length: t + 1 },
        (_, s) => dot(query, own, k[s], shared, headDim) / Math.sqrt(headDim),
      ));
      for (let i = 0; i < headDim; i++) {
        out[own + i] = weights.reduce((sum, weight, s) => sum + weight * v[s][shared + i], 0);
      }
    }
    return out;
  });
}

function dot(a: Float64Array, from: number, b: Float64Array, other: number, length: number) {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[from + i] * b[other + i];
  return sum;
}

function softmax(scores: readonly number[]): number[] {
  const highest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
