/** Writes a Hugging Face folder as a GGUF file, as llama.cpp's converter lays it out, in any type. */
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { toFloat32 } from "../runtime/float_formats.ts";
import type { JsonObject } from "../runtime/json.ts";
import { f32Bytes, ggufFile, type TestTensor, type TestValue } from "./gguf_builder.ts";

/** A type of tensors: its number, and the bytes of values. */
export interface TwinType {
  id: number;
  encode(values: Float32Array): Uint8Array;
}

export interface TwinOptions {
  architecture: string;
  /** Of linears; all else is F32. */
  type: TwinType;
  values?: Readonly<Record<string, TestValue>>;
  /** Keys to leave out. */
  without?: readonly string[];
  /** Whether queries, keys and values are one tensor. */
  fused?: boolean;
  /** Linears are -1, 0 and 1, and this of their magnitudes is in tensors of their own. */
  outputFactor?: (magnitude: number) => number;
}

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens/, "token_embd"],
  [/^model\.norm/, "output_norm"],
  [/^lm_head/, "output"],
  [/^model\.layers\.(\d+)\.self_attn\.attn_sub_norm/, "blk.$1.attn_sub_norm"],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj/, "blk.$1.attn_output"],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj/, "blk.$1.attn_$2"],
  [/^model\.layers\.(\d+)\.mlp\.ffn_sub_norm/, "blk.$1.ffn_sub_norm"],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj/, "blk.$1.ffn_$2"],
  [/^model\.layers\.(\d+)\.input_layernorm/, "blk.$1.attn_norm"],
  [/^model\.layers\.(\d+)\.post_attention_layernorm/, "blk.$1.ffn_norm"],
];

const F32: TwinType = { id: 0, encode: (values) => f32Bytes([...values]) };

/** The bytes of a folder's twin. */
export async function ggufTwin(folder: string, options: TwinOptions): Promise<Uint8Array> {
  await using checkpoint = await openCheckpoint(folder);
  const config = JSON.parse(checkpoint.configText) as JsonObject;
  const tensors: Record<string, TestTensor> = {};
  for (const [name, { dtype, shape }] of checkpoint.tensors) {
    const floats = toFloat32(await checkpoint.read(name), dtype.toLowerCase() as "f16");
    const heads = headsOf(name, config, options.architecture);
    const values = heads === 0 ? floats : paired(floats, heads, shape[1]);
    const isLinear = /_proj\.weight$/.test(name);
    const { id, encode } = isLinear ? options.type : F32;
    const [pattern, text] = NAMES.find(([each]) => each.test(name))!;
    const ggufName = name.replace(pattern, text);
    const dims = shape.toReversed();
    const { outputFactor } = options;
    const written = isLinear && outputFactor ? values.map(Math.sign) : values;
    tensors[ggufName] = { dims, type: id, bytes: encode(written) };
    if (!isLinear || !outputFactor) continue;
    const bytes = f32Bytes([outputFactor(Math.max(...values.map(Math.abs)))]);
    tensors[ggufName.replace(/weight$/, "scale")] = { dims: [1], type: 0, bytes };
  }
  return ggufFile({
    values: valuesOf(config, options),
    tensors: options.fused ? withFused(tensors) : tensors,
  });
}

/** Queries, keys and values of each layer one after the other, in the place of the queries. */
function withFused(tensors: Readonly<Record<string, TestTensor>>): Record<string, TestTensor> {
  const all = Object.entries(tensors).flatMap(([name, tensor]): [string, TestTensor][] => {
    if (/attn_[kv]\.weight$/.test(name)) return [];
    if (!name.endsWith("attn_q.weight")) return [[name, tensor]];
    const parts = ["q", "k", "v"].map((part) => tensors[name.replace("attn_q", `attn_${part}`)]);
    const rows = parts.reduce((sum, { dims }) => sum + dims[1], 0);
    const bytes = Uint8Array.from(parts.flatMap(({ bytes }) => [...bytes]));
    const fused = { ...tensor, dims: [tensor.dims[0], rows], bytes };
    return [[name.replace("attn_q", "attn_qkv"), fused]];
  });
  return Object.fromEntries(all);
}

/** Heads whose rows the architecture's converter puts in pairs; 0 where it does not. */
function headsOf(name: string, config: JsonObject, architecture: string): number {
  const which = /\.([qk])_proj\.weight$/.exec(name)?.[1];
  if (architecture !== "llama" || which === undefined) return 0;
  return Number(config[which === "q" ? "num_attention_heads" : "num_key_value_heads"]);
}

/** Rows i and i + half of a head become neighbours. */
function paired(values: Float32Array, heads: number, k: number): Float32Array {
  const headDim = values.length / k / heads;
  const out = new Float32Array(values.length);
  for (let row = 0; row < values.length / k; row++) {
    const inHead = row % headDim;
    const half = headDim / 2;
    const to = row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
    out.set(values.subarray(row * k, (row + 1) * k), to * k);
  }
  return out;
}

function valuesOf(
  config: JsonObject,
  { architecture, values = {}, without = [] }: TwinOptions,
): Record<string, TestValue> {
  const own = (key: string) => `${architecture}.${key}`;
  const number = (key: string) => Number(config[key]);
  const theta = (config.rope_parameters as JsonObject | undefined)?.rope_theta ?? config.rope_theta;
  const all: Record<string, TestValue> = {
    "general.architecture": ["string", architecture],
    [own("block_count")]: ["u32", number("num_hidden_layers")],
    [own("context_length")]: ["u32", number("max_position_embeddings")],
    [own("embedding_length")]: ["u32", number("hidden_size")],
    [own("feed_forward_length")]: ["u32", number("intermediate_size")],
    [own("attention.head_count")]: ["u32", number("num_attention_heads")],
    [own("attention.head_count_kv")]: ["u32", number("num_key_value_heads")],
    [own("attention.layer_norm_rms_epsilon")]: ["f32", number("rms_norm_eps")],
    [own("rope.freq_base")]: ["f32", Number(theta)],
    ...values,
  };
  return Object.fromEntries(Object.entries(all).filter(([key]) => !without.includes(key)));
}
