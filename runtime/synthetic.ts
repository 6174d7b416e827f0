import { randomOf } from "../codegen/random.ts";
import { FLOAT_BYTES } from "../codegen/dense/template.ts";
import { paddedFloats } from "../codegen/norm_quantize/template.ts";
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import {
  expertShapes,
  type FloatType,
  layerLinears,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  type Shape,
} from "../codegen/model_spec.ts";
import { type PackedPlan, planOf, type Region, regionOf } from "../codegen/plan.ts";

/** Writes bytes at an offset of the packed data. */
export type Fill = (bytes: Uint8Array, offset: number) => void;

/** Rows that are packed for real; the rest of a matrix repeats them. */
const PATTERN_ROWS = 64;
/** Factor of a made-up weight. */
const SCALE = 0.02;
/** Floats that are made for real; a longer region repeats them. */
const PATTERN_FLOATS = 1 << 16;

/**
 * Fills packed data with made-up weights of a shape: valid codes of every kind in equal shares, so
 * that memory and instructions see what a real model gives them. Numbers mean nothing.
 */
export function fillSynthetic(spec: ModelSpec, layout: TernaryLayout, fill: Fill): void {
  const plan = planOf(spec, layout);
  const random = randomOf(20260101);
  for (const region of plan.globals) fillFloats(spec, region, random, fill);
  const patterns = new Map(
    layerLinears(spec).map((name) => [name, ternaryPattern(spec, layout, name, random)]),
  );
  const expert = spec.experts === undefined ? null : expertPatterns(spec, layout, plan, random);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    fillLayer(plan, layer, { patterns, expert }, fill);
  }
}

/** A layer's router and one whole expert, which all experts are. */
interface ExpertPatterns {
  router: Uint8Array;
  expert: Uint8Array;
}

function expertPatterns(
  spec: ModelSpec,
  layout: TernaryLayout,
  plan: PackedPlan,
  random: () => number,
): ExpertPatterns {
  const expert = new Uint8Array(plan.expertBytes);
  const [gateUp, down] = expertShapes(spec);
  const put = (name: string, bytes: Uint8Array) =>
    expert.set(bytes, regionOf(plan.expert, name).offset);
  put("gate_up_codes", ternaryMatrix(layout, gateUp, random));
  put("down_codes", ternaryMatrix(layout, down, random));
  for (const name of ["gate_up_scales", "down_scales"]) {
    put(name, floats(regionOf(plan.expert, name).bytes / 4, () => SCALE));
  }
  // No two rows are alike, so that tokens pick different experts.
  const { numExperts, routerType } = spec.experts!;
  const elements = numExperts * paddedFloats(spec.hiddenSize);
  return { router: floatBytes(routerType, floats(elements, () => random() - 0.5)), expert };
}

function fillLayer(
  plan: PackedPlan,
  layer: number,
  { patterns, expert }: {
    patterns: ReadonlyMap<LinearName, Uint8Array>;
    expert: ExpertPatterns | null;
  },
  fill: Fill,
): void {
  const start = plan.layersOffset + layer * plan.layerBytes;
  for (const region of plan.layer) {
    const at = { ...region, offset: start + region.offset };
    const name = LINEAR_NAMES.find((linear) => region.name === `${linear}_codes`);
    if (name !== undefined) repeat(patterns.get(name)!, at, fill);
    else if (region.name === "experts") repeat(expert!.expert, at, fill);
    else if (region.name === "router") repeat(expert!.router, at, fill);
    else repeat(floats(region.bytes / 4, () => /scales$/.test(region.name) ? SCALE : 1), at, fill);
  }
}

function ternaryPattern(
  spec: ModelSpec,
  layout: TernaryLayout,
  name: LinearName,
  random: () => number,
): Uint8Array {
  return ternaryMatrix(layout, { n: PATTERN_ROWS, k: linearShape(spec, name).k }, random);
}

function ternaryMatrix(layout: TernaryLayout, { n, k }: Shape, random: () => number): Uint8Array {
  const codes = new Uint8Array(n * k);
  for (let i = 0; i < codes.length; i++) codes[i] = Math.floor(random() * 3);
  return packMatrix(layout, codes, n, k);
}

function fillFloats(spec: ModelSpec, region: Region, random: () => number, fill: Fill): void {
  if (region.name === "final_norm") return repeat(floats(region.bytes / 4, () => 1), region, fill);
  const type = region.name === "head" ? spec.headType : spec.embeddingType;
  const values = floats(PATTERN_FLOATS, () => random() - 0.5);
  repeat(floatBytes(type, values), region, fill);
}

/** Float32 bytes in a matrix's type. */
function floatBytes(type: FloatType, values: Uint8Array): Uint8Array {
  return FLOAT_BYTES[type] === 4 ? values : upperHalves(values);
}

function floats(count: number, value: () => number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: count }, value).buffer);
}

/** bf16 of float32 bytes; read as f16 they are just other small numbers. */
function upperHalves(bytes: Uint8Array): Uint8Array {
  const words = new Uint32Array(bytes.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

function repeat(pattern: Uint8Array, { offset, bytes }: Region, fill: Fill): void {
  for (let at = 0; at < bytes; at += pattern.length) {
    fill(pattern.subarray(0, Math.min(pattern.length, bytes - at)), offset + at);
  }
}
