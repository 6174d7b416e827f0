import { gatedActivation } from "../activation/reference.ts";
import { attention, type CachedRow, cachedRow } from "../attention/reference.ts";
import { KV_BLOCK_POSITIONS } from "../attention/cache.ts";
import { dense, widenRow } from "../dense/reference.ts";
import { FLOAT_BYTES } from "../dense/template.ts";
import type { TernaryLayout } from "../layouts/layout.ts";
import { ROWS32 } from "../layouts/rows32.ts";
import { route, weightedSum } from "../experts/reference.ts";
import {
  expertShapes,
  type FloatType,
  headPiece,
  headPieces,
  type KvType,
  layerLinears,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  rotaryDim,
  type Shape,
} from "../model_spec.ts";
import { quantize, quantizeGroups, rmsNorm } from "../norm_quantize/reference.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { hasMatrixScales, type PackedPlan, planOf, type Region, regionOf } from "../plan.ts";
import { rotate } from "../rope/reference.ts";
import { ternaryPlaces } from "../head/ternary.ts";
import { unpackFactors } from "../ternary_linear/factors.ts";
import { groupCount } from "../ternary_linear/groups.ts";
import { groupedDot, ternaryDot } from "../ternary_linear/reference.ts";
import type { Batch } from "./batch.ts";

const f = Math.fround;

/** Cosines and sines of a position's angles, (positions, rotaryDim / 2) each. */
export interface RopeTables {
  /** (positions, rotaryDim / 2) */
  cos: Float32Array;
  /** (positions, rotaryDim / 2) */
  sin: Float32Array;
  /** What sliding layers turn by, where they have tables of their own (`sliding.localRope`). */
  local?: Omit<RopeTables, "local">;
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
  /** Factor of a row's weights: (n,), all equal where the matrix has one; 1 where groups have factors. */
  scales: Float32Array;
  /** (n, groups), where groups have factors. */
  factors: Float32Array | null;
  bias: Float32Array | null;
  norm: Float32Array | null;
}

/** An expert's matrices; up's rows follow gate's from half of the first one on. */
interface Expert {
  gateUp: Linear;
  down: Linear;
}

interface Layer {
  norms: Map<string, Float32Array>;
  /** Those of `layerLinears`. */
  linears: Record<LinearName, Linear>;
  /** Empty where the layer has an MLP. */
  router: Float32Array[];
  experts: Expert[];
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
  readonly #cache = new Map<string, CachedRow[]>();
  #headPieces: Linear[] | undefined;
  #embeddingPieces: Linear[] | undefined;
  /** (hiddenRows, hiddenSize) of the last step, after the final norm. */
  hiddenStates: Float32Array = new Float32Array();
  /** Called with intermediate values; by default with none. */
  tap: Tap = () => {};

  /**
   * An empty cache of keys and values.
   *
   * @param packed The packed file's data, laid out by `planOf(spec, layout)`.
   */
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

  /** Runs a batch. @returns (logitRows, vocabSize) float32. */
  step(batch: Batch): Float32Array<ArrayBuffer> {
    const hidden = Array.from(batch.ids, (id, t) => this.#token(batch, id, t));
    const logits = new Float32Array(batch.logitRows.length * this.spec.vocabSize);
    batch.logitRows.forEach((t, l) => {
      logits.set(this.#head(hidden[t], t), l * this.spec.vocabSize);
    });
    this.hiddenStates = this.#hiddenOf(batch, hidden);
    return logits;
  }

  #hiddenOf({ hiddenRows = new Int32Array() }: Batch, hidden: readonly Float32Array[]) {
    const { hiddenSize } = this.spec;
    const states = new Float32Array(hiddenRows.length * hiddenSize);
    hiddenRows.forEach((t, l) => states.set(this.#normed(hidden[t]), l * hiddenSize));
    return states;
  }

  #token(batch: Batch, id: number, t: number): Float32Array {
    const { embeddingType, embeddingScale } = this.spec;
    const row = this.spec.ternaryEmbedding
      ? this.#ternaryEmbedding(id)
      : this.#row("embedding", embeddingType, id);
    let h = scaled(row, embeddingScale);
    this.tap("embed", -1, t, h);
    this.#layers.forEach((layer, i) => {
      h = this.#added(layer, h, "attention_out_norm", this.#attentionPart(batch, layer, i, h, t));
      h = this.#added(layer, h, "mlp_out_norm", this.#mlpPart(layer, i, h, t));
      this.tap("out", i, t, h);
    });
    return h;
  }

  /** h and what attention or the MLP gave, normed or scaled where the model does that. */
  #added(layer: Layer, h: Float32Array, norm: string, out: Float32Array): Float32Array {
    const { postNorms, residualScale, rmsNormEps } = this.spec;
    const normed = postNorms
      ? Float32Array.from(rmsNorm(out, layer.norms.get(norm)!, rmsNormEps))
      : out;
    const scaledOut = scaled(normed, residualScale);
    return h.map((v, i) => f(v + scaledOut[i]));
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
    for (const head of this.#heads(q)) this.#place(layer, i, "query", head, batch.positions[t]);
    for (const head of this.#heads(k)) this.#place(layer, i, "key", head, batch.positions[t]);
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
    if (spec.experts !== undefined) return this.#expertsPart(layer, i, x, t);
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

  #expertsPart(layer: Layer, i: number, x: Float64Array, t: number): Float32Array {
    const { numExperts, numExpertsPerTok } = this.spec.experts!;
    const routed = route(
      Float32Array.from(x),
      (e) => layer.router[e],
      numExperts,
      numExpertsPerTok,
    );
    this.tap("picked_experts", i, t, Float32Array.from(routed.experts));
    this.tap("picked_weights", i, t, routed.weights);
    const outputs = routed.experts.map((e) => this.#expert(layer.experts[e], x));
    const out = weightedSum(routed.weights, outputs);
    this.tap("experts", i, t, out);
    return out;
  }

  #expert({ gateUp, down }: Expert, x: Float64Array): Float32Array {
    const { hiddenAct, intermediateSize, experts } = this.spec;
    const both = this.#multiply(gateUp, x);
    const [gate, up] = [0, gateUp.n / 2].map((from) =>
      both.subarray(from, from + intermediateSize)
    );
    return this.#multiply(down, gatedActivation(hiddenAct, gate, up, experts!.swigluLimit));
  }

  #linear(layer: Layer, name: LinearName, input: Float32Array | Float64Array): Float32Array {
    return this.#multiply(layer.linears[name], input);
  }

  #multiply(linear: Linear, input: Float32Array | Float64Array): Float32Array {
    if (this.spec.groups !== undefined) return this.#multiplyGroups(linear, input);
    const { n, k, codes, scales, bias, norm } = linear;
    const x = quantize(norm === null ? input : rmsNorm(input, norm, this.spec.linearNormEps!));
    const y = new Float32Array(n);
    for (let row = 0; row < n; row++) {
      const exact = ternaryDot(codes.subarray(row * k, (row + 1) * k), x.codes);
      y[row] = f(exact * (scales[row] * x.inverse));
      if (bias !== null) y[row] = f(y[row] + bias[row]);
    }
    return y;
  }

  #multiplyGroups(linear: Linear, input: Float32Array | Float64Array): Float32Array {
    const { n, k, codes, scales, factors, bias, norm } = linear;
    const groups = this.spec.groups!;
    const count = groupCount(groups, k);
    const normed = norm === null ? input : rmsNorm(input, norm, this.spec.linearNormEps!);
    const x = quantizeGroups(normed, groups.size);
    return Float32Array.from({ length: n }, (_, row) => {
      const own = codes.subarray(row * k, (row + 1) * k);
      const factorsOf = factors?.subarray(row * count, (row + 1) * count) ?? null;
      const sum = groupedDot(own, x.codes, groups.size, x.inverses, factorsOf);
      const y = factors === null ? f(sum * scales[row]) : sum;
      return bias === null ? y : f(y + bias[row]);
    });
  }

  #heads(row: Float32Array): Float32Array[] {
    const { headDim } = this.spec;
    return Array.from(
      { length: row.length / headDim },
      (_, i) => row.subarray(i * headDim, (i + 1) * headDim),
    );
  }

  /** Norms a query or key head and turns it to its position, in place, as far as the layer does. */
  #place(layer: Layer, i: number, which: string, head: Float32Array, position: number): void {
    const { qkNorm, rmsNormEps, sliding } = this.spec;
    if (qkNorm) head.set(rmsNorm(head, layer.norms.get(`${which}_norm`)!, rmsNormEps));
    if (sliding === undefined || sliding.fullLayersTurn || sliding.layers[i]) {
      this.#turn(head, position, sliding?.layers[i] ? this.rope.local ?? this.rope : this.rope);
    }
  }

  #turn(head: Float32Array, position: number, { cos, sin }: RopeTables): void {
    const half = rotaryDim(this.spec) / 2;
    const from = position * half;
    rotate(head, cos.subarray(from, from + half), sin.subarray(from, from + half));
  }

  #cacheKey(batch: Batch, t: number, layer: number, part: number, position: number): string {
    const row = batch.tablesOf[t] * batch.tableStride;
    const block = batch.tables[row + Math.floor(position / KV_BLOCK_POSITIONS)];
    return `${block}:${position % KV_BLOCK_POSITIONS}:${layer}:${part}`;
  }

  #store(batch: Batch, t: number, layer: number, part: number, row: Float32Array): void {
    const kept = this.#heads(row).map((head) => cachedRow(this.kvType, head));
    this.#cache.set(this.#cacheKey(batch, t, layer, part, batch.positions[t]), kept);
  }

  #attend(batch: Batch, layer: number, q: Float32Array, t: number): Float32Array {
    const { headDim, numAttentionHeads, numKeyValueHeads, sliding } = this.spec;
    const group = numAttentionHeads / numKeyValueHeads;
    const out = new Float32Array(q.length);
    this.#heads(q).forEach((query, head) => {
      const read = (part: number) => (position: number) =>
        this.#cache.get(this.#cacheKey(batch, t, layer, part, position))![Math.floor(head / group)];
      const count = batch.positions[t] + 1;
      const first = sliding?.layers[layer] ? Math.max(0, count - sliding.window) : 0;
      out.set(attention(this.kvType, query, { first, count }, read(0), read(1)), head * headDim);
    });
    return out;
  }

  #normed(h: Float32Array): Float32Array {
    const norm = this.#floats(this.#global("final_norm"));
    return Float32Array.from(rmsNorm(h, norm, this.spec.rmsNormEps));
  }

  #head(h: Float32Array, t: number): Float32Array {
    const { spec } = this;
    const x = this.#normed(h);
    this.tap("final_norm", -1, t, x);
    if (spec.ternaryHead) return this.#ternaryHead(x);
    const name = spec.tieWordEmbeddings ? "embedding" : "head";
    return dense((r) => this.#row(name, spec.headType, r), spec.vocabSize, x);
  }

  #ternaryHead(x: Float32Array): Float32Array {
    const logits = new Float32Array(this.spec.vocabSize);
    const { n } = headPiece(this.spec);
    this.#headPieces ??= this.#readPieces("head");
    this.#headPieces.forEach((piece, i) => {
      const rows = this.#multiply(piece, x);
      logits.set(rows.subarray(0, this.spec.vocabSize - i * n), i * n);
    });
    return logits;
  }

  /** (code - 1) * factor, rounded once. */
  #ternaryEmbedding(id: number): Float32Array {
    const { n, k } = headPiece(this.spec);
    this.#embeddingPieces ??= this.#readPieces("embedding");
    const { codes, factors } = this.#embeddingPieces[Math.floor(id / n)];
    const { size } = this.spec.groups!;
    const count = groupCount(this.spec.groups!, k);
    const row = id % n;
    return Float32Array.from({ length: k }, (_, i) => {
      return (codes[row * k + i] - 1) * factors![row * count + Math.floor(i / size)];
    });
  }

  #readPieces(which: "head" | "embedding"): Linear[] {
    const shape = headPiece(this.spec);
    const { codes, factors } = ternaryPlaces(this.spec, this.#plan, which);
    return Array.from({ length: headPieces(this.spec) }, (_, piece) => {
      const at = ({ offset, pieceBytes }: typeof codes) => {
        return { name: which, offset: offset + piece * pieceBytes, bytes: pieceBytes };
      };
      return {
        ...shape,
        codes: this.#codes(shape, at(codes)),
        scales: new Float32Array(shape.n).fill(1),
        factors: this.#factors(shape, () => at(factors)),
        bias: null,
        norm: null,
      };
    });
  }

  #row(name: string, type: FloatType, row: number): Float32Array {
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
      ...(spec.postNorms
        ? { attention_out_norm: spec.hiddenSize, mlp_out_norm: spec.hiddenSize }
        : {}),
      ...(spec.qkNorm ? { query_norm: spec.headDim, key_norm: spec.headDim } : {}),
    };
    const norms = new Map(
      Object.entries(features).map(([name, size]) => [name, this.#floats(region(name), size)]),
    );
    const linears = Object.fromEntries(
      layerLinears(spec).map((name) => [name, this.#readLinear(name, region)]),
    ) as Record<LinearName, Linear>;
    return { norms, linears, router: this.#readRouter(region), experts: this.#readExperts(region) };
  }

  #readLinear(name: LinearName, region: (name: string) => Region): Linear {
    const { spec } = this;
    const { n, k } = linearShape(spec, name);
    const scales = spec.rowScales
      ? this.#floats(region(`${name}_scales`), n)
      : new Float32Array(n).fill(this.#matrixScale(name, region));
    const factors = this.#factors({ n, k }, () => region(`${name}_factors`));
    const codes = this.#codes({ n, k }, region(`${name}_codes`));
    const bias = spec.biases.includes(name) ? this.#floats(region(`${name}_bias`), n) : null;
    const norm = spec.linearNormEps === null ? null : this.#floats(region(`${name}_norm`), k);
    return { n, k, codes, scales, factors, bias, norm };
  }

  #matrixScale(name: LinearName, region: (name: string) => Region): number {
    if (!hasMatrixScales(this.spec)) return 1;
    return this.#floats(region("scales"), LINEAR_NAMES.length)[LINEAR_NAMES.indexOf(name)];
  }

  #factors(shape: Shape, region: () => Region): Float32Array | null {
    const { groups } = this.spec;
    if (!groups?.weightScales) return null;
    const { offset, bytes } = region();
    return unpackFactors(groups, shape, this.packed.subarray(offset, offset + bytes));
  }

  #codes({ n, k }: Shape, { offset, bytes }: Region): Uint8Array {
    const packed = this.packed.subarray(offset, offset + bytes);
    const codes = new Uint8Array(n * k);
    for (let row = 0; row < n; row++) codes.set(this.layout.unpackRow(packed, n, k, row), row * k);
    return codes;
  }

  #readRouter(region: (name: string) => Region): Float32Array[] {
    const { experts, hiddenSize } = this.spec;
    if (experts === undefined) return [];
    const { offset, bytes } = region("router");
    const rowBytes = bytes / experts.numExperts;
    return Array.from(
      { length: experts.numExperts },
      (_, e) => widenRow(this.packed, experts.routerType, hiddenSize, offset + e * rowBytes),
    );
  }

  #readExperts(region: (name: string) => Region): Expert[] {
    const { experts } = this.spec;
    if (experts === undefined) return [];
    const start = region("experts").offset;
    return Array.from(
      { length: experts.numExperts },
      (_, e) => this.#readExpert(start + e * this.#plan.expertBytes),
    );
  }

  #readExpert(start: number): Expert {
    const [gateUp, down] = expertShapes(this.spec);
    const read = (name: string, shape: Shape): Linear => {
      const [codes, scales] = ["codes", "scales"].map((part) => {
        const { offset, bytes } = regionOf(this.#plan.expert, `${name}_${part}`);
        return { name, offset: start + offset, bytes };
      });
      return {
        ...shape,
        codes: this.#codes(shape, codes),
        scales: this.#floats(scales, shape.n),
        factors: null,
        bias: null,
        norm: null,
      };
    };
    return { gateUp: read("gate_up", gateUp), down: read("down", down) };
  }
}

function scaled(x: Float32Array, scale: number | undefined): Float32Array {
  if (scale === undefined) return x;
  const factor = f(scale);
  return x.map((v) => f(v * factor));
}
