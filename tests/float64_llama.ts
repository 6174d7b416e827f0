/**
 * A ternarised llama in double precision, as short as it can be and sharing no code with the
 * runtime: what `quantize: "absmean"` must give up to float32's rounding.
 *
 * Source: transformers' models/llama/modeling_llama.py and integrations/bitnet.py.
 */
import fs from "node:fs";
import path from "node:path";

/** A matrix (or vector) of a checkpoint, row-major. */
interface Tensor {
  values: Float64Array;
  columns: number;
}

interface Config {
  head_dim: number;
  hidden_size: number;
  num_attention_heads: number;
  num_hidden_layers: number;
  num_key_value_heads: number;
  rms_norm_eps: number;
  rope_theta: number;
}

/** y = W x with W = mean * codes and x in int8, both rounded as BitNet b1.58 does. */
type Linear = (x: Float64Array) => Float64Array;

function readTensors(folder: string): (name: string) => Tensor {
  const file = fs.readFileSync(path.join(folder, "model.safetensors"));
  const dataStart = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, dataStart));
  return (name) => {
    const { dtype, shape, data_offsets: [start, end] } = header[name];
    if (dtype !== "BF16") throw new TypeError(`${name} is ${dtype}`);
    const bytes = new DataView(
      Uint8Array.from(file.subarray(dataStart + start, dataStart + end)).buffer,
    );
    // A bfloat16 is the upper half of a float32.
    const words = new DataView(new ArrayBuffer(4));
    const values = Float64Array.from({ length: (end - start) / 2 }, (_, i) => {
      words.setUint32(0, bytes.getUint16(2 * i, true) << 16);
      return words.getFloat32(0);
    });
    return { values, columns: shape.at(-1) };
  };
}

function roundHalfEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));

function ternarise({ values, columns }: Tensor): Linear {
  const mean = Math.max(1e-5, values.reduce((sum, w) => sum + Math.abs(w), 0) / values.length);
  const codes = values.map((w) => clamp(roundHalfEven(w / mean), -1, 1));
  return (x) => {
    const scale = 127 / Math.max(1e-5, ...x.map(Math.abs));
    const xq = x.map((v) => clamp(roundHalfEven(v * scale), -128, 127));
    return product({ values: codes, columns }, xq).map((sum) => sum * mean / scale);
  };
}

function product({ values, columns }: Tensor, x: Float64Array): Float64Array {
  return Float64Array.from({ length: values.length / columns }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += values[row * columns + i] * x[i];
    return sum;
  });
}

function rmsNorm(x: Float64Array, { values: weight }: Tensor, eps: number): Float64Array {
  const meanSquare = x.reduce((sum, v) => sum + v * v, 0) / x.length;
  return x.map((v, i) => v / Math.sqrt(meanSquare + eps) * weight[i]);
}

/** Turns every head's halves by the angles of a position. */
function rotated(x: Float64Array, position: number, config: Config): Float64Array {
  const { head_dim: size, rope_theta: theta } = config;
  return x.map((v, i) => {
    const within = i % size;
    const angle = position * theta ** (-2 * (within % (size / 2)) / size);
    const other = within < size / 2 ? -x[i + size / 2] : x[i - size / 2];
    return v * Math.cos(angle) + other * Math.sin(angle);
  });
}

/** Attention of one query row over all key and value rows so far. */
function attend(q: Float64Array, keys: Float64Array[], values: Float64Array[], config: Config) {
  const { head_dim: size } = config;
  const group = config.num_attention_heads / config.num_key_value_heads;
  return Float64Array.from({ length: q.length }, (_, i) => {
    const head = Math.floor(i / size);
    const from = Math.floor(head / group) * size;
    const scores = keys.map((key) => {
      let dot = 0;
      for (let d = 0; d < size; d++) dot += q[head * size + d] * key[from + d];
      return Math.exp(dot / Math.sqrt(size));
    });
    const total = scores.reduce((a, b) => a + b);
    return values.reduce((sum, row, j) => sum + scores[j] / total * row[from + i % size], 0);
  });
}

const silu = (x: number) => x / (1 + Math.exp(-x));
const plus = (a: Float64Array, b: Float64Array) => a.map((v, i) => v + b[i]);

/** @returns Logits, one row a token. */
export function ternarisedLogits(folder: string, ids: readonly number[]): Float64Array[] {
  const config: Config = JSON.parse(fs.readFileSync(path.join(folder, "config.json"), "utf8"));
  const tensor = readTensors(folder);
  const eps = config.rms_norm_eps;
  const embedding = tensor("model.embed_tokens.weight");
  const size = config.hidden_size;
  let rows = ids.map((id) => embedding.values.slice(id * size, (id + 1) * size));
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const of = (name: string) => tensor(`model.layers.${layer}.${name}.weight`);
    const [q, k, v, o] = ["q", "k", "v", "o"].map((name) =>
      ternarise(of(`self_attn.${name}_proj`))
    );
    const [gate, up, down] = ["gate", "up", "down"].map((name) =>
      ternarise(of(`mlp.${name}_proj`))
    );
    const inputs = rows.map((x) => rmsNorm(x, of("input_layernorm"), eps));
    const keys = inputs.map((x, position) => rotated(k(x), position, config));
    const values = inputs.map(v);
    rows = rows.map((x, position) => {
      const query = rotated(q(inputs[position]), position, config);
      const past = position + 1;
      const seen = attend(query, keys.slice(0, past), values.slice(0, past), config);
      const h = plus(x, o(seen));
      const normed = rmsNorm(h, of("post_attention_layernorm"), eps);
      const ups = up(normed);
      return plus(h, down(gate(normed).map((g, i) => silu(g) * ups[i])));
    });
  }
  const head = tensor("lm_head.weight");
  return rows.map((x) => product(head, rmsNorm(x, tensor("model.norm.weight"), eps)));
}
