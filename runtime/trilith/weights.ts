/** Packed weights back as codes and floats: to lay them out anew, to convert them, to compare them. */
import { open } from "node:fs/promises";
import { FLOAT_BYTES } from "../../codegen/dense/template.ts";
import { paddedRows } from "../../codegen/layouts/layout.ts";
import {
  expertShapes,
  type FloatType,
  headPiece,
  headPieces,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
} from "../../codegen/model_spec.ts";
import { paddedFloats } from "../../codegen/norm_quantize/template.ts";
import { type PackedPlan, planOf, type Region, regionOf } from "../../codegen/plan.ts";
import { unpackFactors } from "../../codegen/ternary_linear/factors.ts";
import { groupCount } from "../../codegen/ternary_linear/groups.ts";
import { normSize } from "../norms.ts";
import { NORM_REGIONS } from "../pack.ts";
import { HEADER_BYTES } from "../packed_file.ts";
import type {
  Allocate,
  ExpertMatrix,
  ExpertSource,
  FloatMatrix,
  NormName,
  TernaryWeights,
  WeightSource,
} from "../weights.ts";
import { type PackedModel, readAt } from "./file.ts";

/** The file is opened for each read: nobody has to close what this gives. */
export function packedWeights(model: PackedModel): WeightSource {
  return new PackedWeights(model);
}

class PackedWeights implements WeightSource {
  readonly #model: PackedModel;
  readonly #plan: PackedPlan;
  readonly experts?: ExpertSource;

  constructor(model: PackedModel) {
    this.#model = model;
    this.#plan = planOf(model.config.spec, model.layout);
    if (model.config.spec.experts !== undefined) {
      this.experts = {
        matrix: (layer, expert, name) => this.#expert(layer, expert, name),
        router: (layer) => this.#router(layer),
      };
    }
  }

  async linear(layer: number, name: LinearName): Promise<TernaryWeights> {
    const { spec } = this.#model.config;
    const { n, k } = linearShape(spec, name);
    const region = (kind: string) => this.#layerRegion(layer, `${name}_${kind}`);
    const codes = await this.#codes(region("codes"), n, k);
    const weights: TernaryWeights = {
      matrix: { kind: "codes", bytes: codes, n, k },
      what: `${name} of layer ${layer}`,
      scale: 1,
      bias: spec.biases.includes(name) ? await this.#floats(region("bias"), n) : null,
      inputNorm: spec.linearNormEps === null ? null : await this.#floats(region("norm"), k),
    };
    if (spec.rowScales) return { ...weights, rowScales: await this.#floats(region("scales"), n) };
    if (spec.groups?.weightScales) {
      const bytes = await this.#read(region("factors"));
      return { ...weights, groupScales: unpackFactors(spec.groups, { n, k }, bytes) };
    }
    const scales = await this.#floats(this.#layerRegion(layer, "scales"), LINEAR_NAMES.length);
    return { ...weights, scale: scales[LINEAR_NAMES.indexOf(name)] };
  }

  norm(layer: number, which: NormName): Promise<Float32Array> {
    const { spec } = this.#model.config;
    return this.#floats(this.#layerRegion(layer, NORM_REGIONS[which]), normSize(spec, which));
  }

  headNorm(layer: number, which: "query" | "key"): Promise<Float32Array> {
    return this.#floats(this.#layerRegion(layer, `${which}_norm`), this.#model.config.spec.headDim);
  }

  finalNorm(): Promise<Float32Array> {
    return this.#floats(this.#global("final_norm"), this.#model.config.spec.hiddenSize);
  }

  embedding(): FloatMatrix {
    const { vocabSize, embeddingType } = this.#model.config.spec;
    return this.#matrix(this.#global("embedding"), vocabSize, embeddingType);
  }

  head(): FloatMatrix {
    const { vocabSize, headType } = this.#model.config.spec;
    return this.#matrix(this.#global("head"), vocabSize, headType);
  }

  /** A ternary matrix lies in pieces; a last one of fewer rows is the beginning of a whole one. */
  async ternaryRows(
    which: "head" | "embedding",
    first: number,
    count: number,
  ): Promise<TernaryWeights> {
    const { spec } = this.#model.config;
    const { n, k } = headPiece(spec);
    const perRow = groupCount(spec.groups!, k);
    const codes = new Uint8Array(count * k);
    const groupScales = new Float32Array(count * perRow);
    for (let row = first; row < first + count;) {
      const piece = Math.floor(row / n);
      const end = Math.min(first + count, (piece + 1) * n);
      const whole = await this.#piece(which, piece);
      const [from, to] = [row - piece * n, end - piece * n];
      codes.set(whole.codes.subarray(from * k, to * k), (row - first) * k);
      groupScales.set(whole.factors.subarray(from * perRow, to * perRow), (row - first) * perRow);
      row = end;
    }
    const matrix = { kind: "codes", bytes: codes, n: count, k } as const;
    const none = { scale: 1, bias: null, inputNorm: null };
    return { matrix, what: `rows of the ${which}`, groupScales, ...none };
  }

  async #piece(which: "head" | "embedding", piece: number) {
    const { spec } = this.#model.config;
    const shape = headPiece(spec);
    const part = (kind: string): Region => {
      const { name, offset, bytes } = this.#global(`${which}_${kind}`);
      const each = bytes / headPieces(spec);
      return { name, offset: offset + piece * each, bytes: each };
    };
    return {
      codes: await this.#codes(part("codes"), shape.n, shape.k),
      factors: unpackFactors(spec.groups!, shape, await this.#read(part("factors"))),
    };
  }

  #router(layer: number): FloatMatrix {
    const { numExperts, routerType } = this.#model.config.spec.experts!;
    return this.#matrix(this.#layerRegion(layer, "router"), numExperts, routerType);
  }

  /** Gate and up are one matrix, up from its second half on. */
  async #expert(
    layer: number,
    expert: number,
    name: "gate" | "up" | "down",
  ): Promise<ExpertMatrix> {
    const { spec } = this.#model.config;
    const { n, k } = linearShape(spec, name);
    const [gateUp, down] = expertShapes(spec);
    const [prefix, shape] = name === "down"
      ? ["down", down] as const
      : ["gate_up", gateUp] as const;
    const first = name === "up" ? paddedRows(spec.intermediateSize) : 0;
    const at = this.#layerRegion(layer, "experts").offset + expert * this.#plan.expertBytes;
    const region = (kind: string) => moved(regionOf(this.#plan.expert, `${prefix}_${kind}`), at);
    const codes = await this.#codes(region("codes"), shape.n, shape.k);
    const scales = await this.#floats(region("scales"), shape.n);
    return {
      matrix: { kind: "codes", bytes: codes.slice(first * k, (first + n) * k), n, k },
      rowScales: scales.slice(first, first + n),
    };
  }

  #global(name: string): Region {
    return regionOf(this.#plan.globals, name);
  }

  #layerRegion(layer: number, name: string): Region {
    const { layersOffset, layerBytes } = this.#plan;
    return moved(regionOf(this.#plan.layer, name), layersOffset + layer * layerBytes);
  }

  #matrix(region: Region, rows: number, type: FloatType): FloatMatrix {
    const columns = this.#model.config.spec.hiddenSize;
    const rowBytes = columns * FLOAT_BYTES[type];
    const paddedBytes = paddedFloats(columns) * FLOAT_BYTES[type];
    const readRows = async (first: number, count: number, allocate?: Allocate) => {
      const offset = region.offset + first * paddedBytes;
      const stored = await this.#read({ ...region, offset, bytes: count * paddedBytes });
      const out = (allocate ?? ((bytes) => new Uint8Array(bytes)))(count * rowBytes);
      for (let row = 0; row < count; row++) {
        const from = row * paddedBytes;
        out.set(stored.subarray(from, from + rowBytes), row * rowBytes);
      }
      return out;
    };
    return { type, rows, columns, readRows };
  }

  async #codes(region: Region, n: number, k: number): Promise<Uint8Array<ArrayBuffer>> {
    const { layout } = this.#model;
    const packed = await this.#read(region);
    const codes = new Uint8Array(n * k);
    for (let row = 0; row < n; row++) codes.set(layout.unpackRow(packed, n, k, row), row * k);
    return codes;
  }

  async #floats(region: Region, length: number): Promise<Float32Array> {
    const bytes = await this.#read({ ...region, bytes: 4 * length });
    return new Float32Array(bytes.buffer);
  }

  async #read({ offset, bytes }: Region): Promise<Uint8Array<ArrayBuffer>> {
    const handle = await open(this.#model.file.path, "r");
    try {
      return await readAt(handle, HEADER_BYTES + offset, bytes);
    } finally {
      await handle.close();
    }
  }
}

function moved(region: Region, by: number): Region {
  return { ...region, offset: region.offset + by };
}
