import { gatedActivation } from "../activation/reference.ts";
import { attention } from "../attention/reference.ts";
import { KV_BLOCK_POSITIONS } from "../attention/template.ts";
import { dense, widenRow } from "../dense/reference.ts";
import { FLOAT_BYTES } from "../dense/template.ts";
import type { TernaryLayout } from "../layouts/layout.ts";
import { ROWS32 } from "../layouts/rows32.ts";
import {
  type KvType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../model_spec.ts";
import { quantize, rmsNorm } from "../norm_quantize/reference.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { type PackedPlan, planOf, type Region, regionOf } from "../plan.ts";
import { rotate } from "../rope/reference.ts";
import { ternaryDot } from "../ternary_linear/reference.ts";
import type { Batch } from "./batch.ts";

const f = Math.fround;

/** Cosines and sines of a position's angles, (positions, headDim / 2) each. */
export interface RopeTables {
  cos: Float32Array;
  sin: Float32Array;
}

/** Sees intermediate values of a token: `layer` is -1 outside the layers. */
export type Tap = (
  name: string,
  layer: number,
  token: number,
  values: Float32Array | Float64Array,
) => void;

/** One ternary matrix, unpacked. */
interface Linear {
  n: number;
  k: number;
  codes: Uint8Array;
  scale: number;
  bias: Float32Array | null;
  norm: Float32Array | null;
}

interface Layer {
  norms: Map<string, Float32Array>;
  linears: Record<LinearName, Linear>;
}

/**
 * The decoder step in plain TypeScript, one token and one operation after the other: the
 * definition of what the generated `trilith_step` computes, bit for bit.
 *
 * Graph: transformers, models/bitnet and models/llama; BitLinear as in arXiv 2402.17764.
 */
export class ReferenceStep {
  readonly #plan: PackedPlan;
  readonly #layers: Layer[];
  readonly #keys = new Map<string, Float32Array>();
  tap: Tap = () => {};

  /** @param packed The packed file's data, laid out by `planOf(spec, layout)`. */
  constructor(
    private readonly spec: ModelSpec,
    private readonly packed: Uint8Array,
    private readonly rope: RopeTables,
    private readonly kvType: KvType,
    private readonly layout: TernaryLayout = ROWS32,
  ) {
    this.#plan = planOf(spec, layout);
    this.#layers = Array.from({ length: spec.numHiddenLayers }, (_, i) => this.#readLayer(i));
  }

  /** @returns (logitRows, vocabSize) float32. */
  step(batch: Batch): Float32Array<ArrayBuffer> {
    const hidden = Array.from(batch.ids, (id, t) => this.#token(batch, id, t));
    const logits = new Float32Array(batch.logitRows.length * this.spec.vocabSize);
    batch.logitRows.forEach((t, l) => {
      logits.set(this.#head(hidden[t], t), l * this.spec.vocabSize);
    });
    return logits;
  }

  #token(batch: Batch, id: number, t: number): Float32Array {
    let h = this.#row("embedding", this.spec.embeddingType, id);
    this.tap("embed", -1, t, h);
    this.#layers.forEach((layer, i) => {
      h = add(h, this.#attentionPart(batch, layer, i, h, t));
      h = add(h, this.#mlpPart(layer, i, h, t));
      this.tap("out", i, t, h);
    });
    return h;
  }

  #attentionPart(batch: Batch, layer: Layer, i: number, h: Float32Array, t: number) {
    const { spec } = this;
    const x = rmsNorm(h, layer.norms.get("input_norm")!, spec.rmsNormEps);
    this.tap("input_layernorm", i, t, x);
    const [q, k, v] = (["q", "k", "v"] as const).map((name) => {
      const y = this.#linear(layer, name, x);
      this.tap(`${name}_proj`, i, t, y);
      return y;
    });
    const position = batch.positions[t];
    for (const head of [...this.#heads(q), ...this.#heads(k)]) this.#turn(head, position);
    this.#store(batch, t, i, 0, k);
    this.#store(batch, t, i, 1, v);
    const attended = this.#attend(batch, i, q, t);
    this.tap("attn_context", i, t, attended);
    const normed = spec.subNorms
      ? rmsNorm(attended, layer.norms.get("attn_sub_norm")!, spec.rmsNormEps)
      : attended;
    this.tap("attn_sub_norm", i, t, normed);
    const out = this.#linear(layer, "o", normed);
    this.tap("o_proj", i, t, out);
    return out;
  }

  #mlpPart(layer: Layer, i: number, h: Float32Array, t: number): Float32Array {
    const { spec } = this;
    const x = rmsNorm(h, layer.norms.get("post_attention_norm")!, spec.rmsNormEps);
    this.tap("post_attention_layernorm", i, t, x);
    const gate = this.#linear(layer, "gate", x);
    const up = this.#linear(layer, "up", x);
    this.tap("gate_proj", i, t, gate);
    this.tap("up_proj", i, t, up);
    const activated = gatedActivation(spec.hiddenAct, gate, up);
    this.tap("act_gate_times_up", i, t, activated);
    const normed = spec.subNorms
      ? rmsNorm(activated, layer.norms.get("ffn_sub_norm")!, spec.rmsNormEps)
      : activated;
    this.tap("ffn_sub_norm", i, t, normed);
    const out = this.#linear(layer, "down", normed);
    this.tap("down_proj", i, t, out);
    return out;
  }

  #linear(layer: Layer, name: LinearName, input: Float32Array | Float64Array): Float32Array {
    const { n, k, codes, scale, bias, norm } = layer.linears[name];
    const x = quantize(norm === null ? input : rmsNorm(input, norm, this.spec.linearNormEps!));
    const factor = scale * x.inverse;
    const y = new Float32Array(n);
    for (let row = 0; row < n; row++) {
      const exact = ternaryDot(codes.subarray(row * k, (row + 1) * k), x.codes);
      y[row] = f(exact * factor);
      if (bias !== null) y[row] = f(y[row] + bias[row]);
    }
    return y;
  }

  #heads(row: Float32Array): Float32Array[] {
    const { headDim } = this.spec;
    return Array.from(
      { length: row.length / headDim },
      (_, i) => row.subarray(i * headDim, (i + 1) * headDim),
    );
  }

  #turn(head: Float32Array, position: number): void {
    const half = this.spec.headDim / 2;
    const from = position * half;
    rotate(
      head,
      this.rope.cos.subarray(from, from + half),
      this.rope.sin.subarray(from, from + half),
    );
  }

  #cacheKey(batch: Batch, t: number, layer: number, part: number, position: number): string {
    const row = batch.tablesOf[t] * batch.tableStride;
    const block = batch.tables[row + Math.floor(position / KV_BLOCK_POSITIONS)];
    return `${block}:${position % KV_BLOCK_POSITIONS}:${layer}:${part}`;
  }

  #store(batch: Batch, t: number, layer: number, part: number, row: Float32Array): void {
    const kept = this.kvType === "f16" ? row.map((v) => Math.f16round(v)) : row;
    this.#keys.set(this.#cacheKey(batch, t, layer, part, batch.positions[t]), kept);
  }

  #attend(batch: Batch, layer: number, q: Float32Array, t: number): Float32Array {
    const { headDim, numAttentionHeads, numKeyValueHeads } = this.spec;
    const group = numAttentionHeads / numKeyValueHeads;
    const out = new Float32Array(q.length);
    this.#heads(q).forEach((query, head) => {
      const from = Math.floor(head / group) * headDim;
      const read = (part: number) => (position: number) =>
        this.#keys.get(this.#cacheKey(batch, t, layer, part, position))!
          .subarray(from, from + headDim);
      const count = batch.positions[t] + 1;
      out.set(attention(query, count, read(0), read(1)), head * headDim);
    });
    return out;
  }

  #head(h: Float32Array, t: number): Float32Array {
    const { spec } = this;
    const norm = this.#floats(this.#global("final_norm"));
    const x = Float32Array.from(rmsNorm(h, norm, spec.rmsNormEps));
    this.tap("final_norm", -1, t, x);
    const name = spec.tieWordEmbeddings ? "embedding" : "head";
    return dense((r) => this.#row(name, spec.headType, r), spec.vocabSize, x);
  }

  #row(name: string, type: ModelSpec["headType"], row: number): Float32Array {
    const rowBytes = paddedFloats(this.spec.hiddenSize) * FLOAT_BYTES[type];
    const { offset } = this.#global(name);
    return widenRow(this.packed, type, this.spec.hiddenSize, offset + row * rowBytes);
  }

  #global(name: string): Region {
    return regionOf(this.#plan.globals, name);
  }

  #floats({ offset, bytes }: Region, elements = this.spec.hiddenSize): Float32Array {
    const copy = this.packed.slice(offset, offset + bytes);
    return new Float32Array(copy.buffer).subarray(0, elements);
  }

  #readLayer(index: number): Layer {
    const start = this.#plan.layersOffset + index * this.#plan.layerBytes;
    const region = (name: string): Region => {
      const { offset, bytes } = regionOf(this.#plan.layer, name);
      return { name, offset: start + offset, bytes };
    };
    const { spec } = this;
    const queries = spec.numAttentionHeads * spec.headDim;
    const features: Record<string, number> = {
      input_norm: spec.hiddenSize,
      post_attention_norm: spec.hiddenSize,
      ...(spec.subNorms ? { attn_sub_norm: queries, ffn_sub_norm: spec.intermediateSize } : {}),
    };
    const norms = new Map(
      Object.entries(features).map(([name, size]) => [name, this.#floats(region(name), size)]),
    );
    const scales = this.#floats(region("scales"), LINEAR_NAMES.length);
    const linears = Object.fromEntries(
      LINEAR_NAMES.map((name, i) => [name, this.#readLinear(name, scales[i], region)]),
    ) as Record<LinearName, Linear>;
    return { norms, linears };
  }

  #readLinear(name: LinearName, scale: number, region: (name: string) => Region): Linear {
    const { spec } = this;
    const { n, k } = linearShape(spec, name);
    const { offset, bytes } = region(`${name}_codes`);
    const packed = this.packed.subarray(offset, offset + bytes);
    const codes = new Uint8Array(n * k);
    for (let row = 0; row < n; row++) codes.set(this.layout.unpackRow(packed, n, k, row), row * k);
    const bias = spec.biases.includes(name) ? this.#floats(region(`${name}_bias`), n) : null;
    const norm = spec.linearNormEps === null ? null : this.#floats(region(`${name}_norm`), k);
    return { n, k, codes, scale, bias, norm };
  }
}

function add(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((v, i) => f(v + b[i]));
}
