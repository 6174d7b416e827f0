import { paddedRows, type TernaryLayout } from "./layouts/layout.ts";
import { ROWS32 } from "./layouts/rows32.ts";
import { FLOAT_BYTES } from "./dense/template.ts";
import {
  checkSpec,
  expertShapes,
  hasSketch,
  layerLinears,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  type Shape,
} from "./model_spec.ts";
import { sketchSizes } from "./head/sketch.ts";
import { ternaryMatrices, ternaryMatrixBytes, ternaryMatrixSizes } from "./head/ternary.ts";
import { factorBytes } from "./ternary_linear/groups.ts";
import { paddedFloats } from "./norm_quantize/template.ts";

/** One tensor in the packed file. Offsets are bytes from the start of its layer, or of the data. */
export interface Region {
  /** Such as `embedding`, or `q` of a layer. */
  name: string;
  /** Where it begins. */
  offset: number;
  /** Its length. */
  bytes: number;
}

/**
 * Where everything lies in the packed file's data: first the global regions, then layers of equal
 * size. Offsets are compile-time constants in the generated code.
 */
export interface PackedPlan {
  /** What is there once: embedding, head, final norm. */
  globals: readonly Region[];
  /** What each layer has, from the layer's start. */
  layer: readonly Region[];
  /** Inside each of a layer's experts, from its start; empty where the model has none. */
  expert: readonly Region[];
  /** From one expert to the next in the layer's region `experts`. */
  expertBytes: number;
  /** Where the first layer begins. */
  layersOffset: number;
  /** From one layer to the next. */
  layerBytes: number;
  /** Of all data. */
  totalBytes: number;
  /** Bytes of the ternary matrices of all layers, with the factors of their groups. */
  ternaryBytes: number;
  /** Bytes that one decoded token reads: `bodyBytesPerToken`, and the head or its sketch. */
  bytesPerToken: number;
  /** Bytes that one decoded token reads before the head: all layers, of experts those picked, final norm. */
  bodyBytesPerToken: number;
  /** Bytes of the head's sketch that a token reads; 0 where there is none. */
  sketchBytes: number;
  /** Bytes of the head's matrix. */
  headBytes: number;
  /** Bytes of one row of the head. */
  headRowBytes: number;
}

/** Whole cache lines, and pages for the layers so that they can be mapped and advised. */
const REGION_ALIGNMENT = 64;
const LAYER_ALIGNMENT = 4096;

/** Lays the model out. Pure: the same arguments give the same plan on every machine. */
export function planOf(spec: ModelSpec, layout: TernaryLayout = ROWS32): PackedPlan {
  checkSpec(spec);
  const globals = regions(globalSizes(spec, layout));
  const expert = regions(expertSizes(spec, layout));
  const expertBytes = align(end(expert), REGION_ALIGNMENT);
  const layer = regions(layerSizes(spec, layout, expertBytes));
  const layersOffset = align(end(globals), LAYER_ALIGNMENT);
  const layerBytes = align(end(layer), LAYER_ALIGNMENT);
  const ternaryBytes = spec.numHiddenLayers * ternaryLayerBytes(spec, layout);
  const fullHeadBytes = headBytes(spec, layout);
  const sketchBytes = sketchSizes(spec, layout).reduce((sum, [, bytes]) => sum + bytes, 0);
  const layerBytesPerToken = end(layer) - unpickedExperts(spec) * expertBytes;
  const bodyBytesPerToken = spec.numHiddenLayers * layerBytesPerToken +
    paddedFloats(spec.hiddenSize) * 4;
  return {
    globals,
    layer,
    expert,
    expertBytes,
    layersOffset,
    layerBytes,
    totalBytes: layersOffset + layerBytes * spec.numHiddenLayers,
    ternaryBytes,
    bytesPerToken: bodyBytesPerToken + (hasSketch(spec) ? sketchBytes : fullHeadBytes),
    bodyBytesPerToken,
    sketchBytes,
    headBytes: fullHeadBytes,
    headRowBytes: fullHeadBytes / spec.vocabSize,
  };
}

/** Whether a model's head can do without most of its bytes: "two-stage" where there is a sketch. */
export function headOf(spec: ModelSpec): "full" | "two-stage" {
  return hasSketch(spec) ? "two-stage" : "full";
}

/** Weight bytes that a decoded token reads with a head, without the rows that are scored exactly. */
export function tokenBytes(plan: PackedPlan, head: "full" | "two-stage"): number {
  return plan.bodyBytesPerToken + (head === "full" ? plan.headBytes : plan.sketchBytes);
}

function headBytes(spec: ModelSpec, layout: TernaryLayout): number {
  if (spec.ternaryHead) return ternaryMatrixBytes(spec, layout);
  return spec.vocabSize * paddedFloats(spec.hiddenSize) * FLOAT_BYTES[spec.headType];
}

/** Bytes of the router's matrix of a layer. */
function routerBytes({ experts, hiddenSize }: ModelSpec): number {
  if (experts === undefined) return 0;
  return experts.numExperts * paddedFloats(hiddenSize) * FLOAT_BYTES[experts.routerType];
}

function unpickedExperts({ experts }: ModelSpec): number {
  return experts === undefined ? 0 : experts.numExperts - experts.numExpertsPerTok;
}

function ternaryLayerBytes(spec: ModelSpec, layout: TernaryLayout): number {
  const bytes = (shapes: readonly Shape[]) =>
    shapes.reduce((sum, shape) => sum + matrixBytes(spec, layout, shape), 0);
  const linears = bytes(layerLinears(spec).map((name) => linearShape(spec, name)));
  return linears + (spec.experts?.numExperts ?? 0) * bytes(expertShapes(spec));
}

/** Bytes of a ternary matrix and of the factors of its groups. */
function matrixBytes({ groups }: ModelSpec, layout: TernaryLayout, { n, k }: Shape): number {
  return layout.packedBytes(n, k) + factorBytes(groups, { n, k });
}

/** Whether a layer has one factor for each matrix, in a region for all of them. */
export function hasMatrixScales({ rowScales, groups }: ModelSpec): boolean {
  return !rowScales && !groups?.weightScales;
}

/** Finds a region by name; the plan decides which exist. */
export function regionOf(regions: readonly Region[], name: string): Region {
  const region = regions.find((candidate) => candidate.name === name);
  if (region === undefined) throw new RangeError(`Cannot find region ${name} in the packed plan`);
  return region;
}

type Sizes = readonly (readonly [name: string, bytes: number])[];

function globalSizes(spec: ModelSpec, layout: TernaryLayout): Sizes {
  const hidden = paddedFloats(spec.hiddenSize);
  const embedding = spec.vocabSize * hidden * FLOAT_BYTES[spec.embeddingType];
  return [
    ...(spec.ternaryEmbedding ? [] : [["embedding", embedding] as const]),
    ["final_norm", hidden * 4],
    ...(hasFloatHead(spec) ? [["head", headBytes(spec, layout)] as const] : []),
    ...ternaryMatrices(spec).flatMap((which) => ternaryMatrixSizes(spec, layout, which)),
    ...sketchSizes(spec, layout),
  ];
}

/** Whether the packed file has a float matrix for the head alone. */
export function hasFloatHead({ tieWordEmbeddings, ternaryHead }: ModelSpec): boolean {
  return !tieWordEmbeddings && !ternaryHead;
}

/** Gate and up, then down, in the order in which they are read. */
function expertSizes(spec: ModelSpec, layout: TernaryLayout): Sizes {
  if (spec.experts === undefined) return [];
  const [gateUp, down] = expertShapes(spec);
  return [
    ["gate_up_codes", layout.packedBytes(gateUp.n, gateUp.k)],
    ["gate_up_scales", paddedRows(gateUp.n) * 4],
    ["down_codes", layout.packedBytes(down.n, down.k)],
    ["down_scales", paddedRows(down.n) * 4],
  ];
}

function layerSizes(spec: ModelSpec, layout: TernaryLayout, expertBytes: number): Sizes {
  const norm = (features: number) => paddedFloats(features) * 4;
  const queries = spec.numAttentionHeads * spec.headDim;
  return [
    ...(hasMatrixScales(spec) ? [["scales", LINEAR_NAMES.length * 4] as const] : []),
    ["input_norm", norm(spec.hiddenSize)],
    ["post_attention_norm", norm(spec.hiddenSize)],
    ...(spec.subNorms
      ? [["attn_sub_norm", norm(queries)], ["ffn_sub_norm", norm(spec.intermediateSize)]] as const
      : []),
    ...(spec.postNorms
      ? [["attention_out_norm", norm(spec.hiddenSize)], [
        "mlp_out_norm",
        norm(spec.hiddenSize),
      ]] as const
      : []),
    ...(spec.qkNorm
      ? [["query_norm", norm(spec.headDim)], ["key_norm", norm(spec.headDim)]] as const
      : []),
    ...layerLinears(spec).flatMap((name) => linearSizes(spec, layout, name)),
    ...(spec.experts === undefined ? [] : [
      ["router", routerBytes(spec)],
      ["experts", spec.experts.numExperts * expertBytes],
    ] as const),
  ];
}

function linearSizes(spec: ModelSpec, layout: TernaryLayout, name: LinearName): Sizes {
  const { n, k } = linearShape(spec, name);
  return [
    ...(spec.rowScales ? [[`${name}_scales`, paddedRows(n) * 4] as const] : []),
    ...(spec.groups?.weightScales
      ? [[`${name}_factors`, factorBytes(spec.groups, { n, k })] as const]
      : []),
    ...(spec.biases.includes(name) ? [[`${name}_bias`, paddedRows(n) * 4] as const] : []),
    ...(spec.linearNormEps === null ? [] : [[`${name}_norm`, paddedFloats(k) * 4] as const]),
    [`${name}_codes`, layout.packedBytes(n, k)],
  ];
}

function regions(sizes: Sizes): Region[] {
  let offset = 0;
  return sizes.map(([name, bytes]) => {
    const region = { name, offset, bytes };
    offset = align(offset + bytes, REGION_ALIGNMENT);
    return region;
  });
}

function end(regions: readonly Region[]): number {
  const last = regions.at(-1);
  return last === undefined ? 0 : last.offset + last.bytes;
}

function align(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
