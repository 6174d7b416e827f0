import { randomOf } from "../codegen/random.ts";
import { FLOAT_BYTES } from "../codegen/dense/template.ts";
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import {
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../codegen/model_spec.ts";
import { type PackedPlan, planOf, type Region } from "../codegen/plan.ts";

/** Writes bytes at an offset of the packed data. */
export type Fill = (bytes: Uint8Array, offset: number) => void;

/** Rows that are packed for real; the rest of a matrix repeats them. */
const PATTERN_ROWS = 64;
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
    LINEAR_NAMES.map((name) => [name, ternaryPattern(spec, layout, name, random)]),
  );
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    fillLayer(plan, layer, patterns, fill);
  }
}

function fillLayer(
  plan: PackedPlan,
  layer: number,
  patterns: ReadonlyMap<LinearName, Uint8Array>,
  fill: Fill,
): void {
  const start = plan.layersOffset + layer * plan.layerBytes;
  for (const region of plan.layer) {
    const at = { ...region, offset: start + region.offset };
    const name = LINEAR_NAMES.find((linear) => region.name === `${linear}_codes`);
    if (name !== undefined) repeat(patterns.get(name)!, at, fill);
    else repeat(floats(region.bytes / 4, () => region.name === "scales" ? 0.02 : 1), at, fill);
  }
}

function ternaryPattern(
  spec: ModelSpec,
  layout: TernaryLayout,
  name: LinearName,
  random: () => number,
): Uint8Array {
  const { k } = linearShape(spec, name);
  const codes = Uint8Array.from({ length: PATTERN_ROWS * k }, () => Math.floor(random() * 3));
  return packMatrix(layout, codes, PATTERN_ROWS, k);
}

function fillFloats(spec: ModelSpec, region: Region, random: () => number, fill: Fill): void {
  if (region.name === "final_norm") return repeat(floats(region.bytes / 4, () => 1), region, fill);
  const type = region.name === "head" ? spec.headType : spec.embeddingType;
  const values = floats(PATTERN_FLOATS, () => random() - 0.5);
  repeat(FLOAT_BYTES[type] === 4 ? values : upperHalves(values), region, fill);
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
