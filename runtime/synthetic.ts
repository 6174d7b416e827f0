import { randomOf } from "../codegen/random.ts";
import { FLOAT_BYTES } from "../codegen/dense/template.ts";
import { paddedFloats } from "../codegen/norm_quantize/template.ts";
import {
  expertShapes,
  type FloatType,
  hasSketch,
  headPiece,
  LINEAR_NAMES,
  linearShape,
  type ModelSpec,
  type Shape,
  ternaryShapes,
} from "../codegen/model_spec.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import { ternaryMatrices, type TernaryMatrix } from "../codegen/head/ternary.ts";
import { BLOCK_ROWS } from "../codegen/layouts/layout.ts";
import { packFactors } from "../codegen/ternary_linear/factors.ts";
import { hasFloatHead, type PackedPlan, planOf, type Region, regionOf } from "../codegen/plan.ts";
import { linearSymbol } from "../codegen/ternary_linear/scheme.ts";
import { uniqueShapes } from "../codegen/ternary_linear/template.ts";
import { BufferPool } from "./ahead.ts";
import { copiedMatrix, type Part, sketchedHead } from "./pack.ts";
import type { TernaryPacker } from "./ternary_packer.ts";
import type { FloatMatrix } from "./weights.ts";

/** Writes bytes at an offset of the packed data. */
export type Fill = (bytes: Uint8Array, offset: number) => void;

/** Rows of bytes of four codes that are made for real; the rest of a matrix repeats them. */
const PATTERN_ROWS = 64;
/** Factor of a made-up weight. */
const SCALE = 0.02;
/**
 * Floats of a matrix that are made for real; it repeats them. A prime, so that no two rows of a
 * vocabulary are alike: each begins elsewhere.
 */
const PATTERN_FLOATS = 1_048_573;

/**
 * Fills packed data with made-up weights of a shape: valid codes of every kind in equal shares, so
 * that memory and instructions see what a real model gives them. Numbers mean nothing.
 */
export async function fillSynthetic(
  spec: ModelSpec,
  packer: TernaryPacker,
  fill: Fill,
): Promise<void> {
  const plan = planOf(spec, packer.layout);
  const random = randomOf(20260101);
  await fillMatrices(spec, plan, packer, random, fill);
  const matrices = await packedMatrices(spec, packer, random);
  for (const which of ternaryMatrices(spec)) {
    fillTernaryMatrix(spec, plan, which, matrices.get(linearSymbol(headPiece(spec)))!, fill);
  }
  const expert = spec.experts === undefined ? null : expertPatterns(spec, plan, matrices, random);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    fillLayer(spec, plan, layer, { matrices, expert }, fill);
  }
}

/** One packed matrix a shape. */
type Matrices = ReadonlyMap<string, Uint8Array>;

async function packedMatrices(
  spec: ModelSpec,
  packer: TernaryPacker,
  random: () => number,
): Promise<Matrices> {
  const matrices = new Map<string, Uint8Array>();
  const rows = ternaryMatrices(spec).map(() => headPiece(spec));
  for (const shape of uniqueShapes([...ternaryShapes(spec), ...rows])) {
    const symbol = linearSymbol(shape);
    const packed = new Uint8Array(packer.layout.packedBytes(shape.n, shape.k));
    await packer.pack(randomQuarters(shape, random), symbol, packed);
    matrices.set(symbol, packed);
  }
  return matrices;
}

function randomQuarters({ n, k }: Shape, random: () => number): StoredMatrix {
  const bytes = new Uint8Array(Math.ceil(n / 4) * k);
  const made = Math.min(bytes.length, PATTERN_ROWS * k);
  for (let i = 0; i < made; i++) bytes[i] = fourCodes(Math.floor(random() * 81));
  for (let done = made; done < bytes.length; done *= 2) bytes.copyWithin(done, 0, done);
  return { kind: "quarters", bytes, n, k };
}

/** The digits of a number below 81 in base 3, two bits each. */
function fourCodes(value: number): number {
  const digit = (place: number) => Math.floor(value / 3 ** place) % 3;
  return digit(0) | digit(1) << 2 | digit(2) << 4 | digit(3) << 6;
}

/** A layer's router and one whole expert, which all experts are. */
interface ExpertPatterns {
  router: Uint8Array;
  expert: Uint8Array;
}

function expertPatterns(
  spec: ModelSpec,
  plan: PackedPlan,
  matrices: Matrices,
  random: () => number,
): ExpertPatterns {
  const expert = new Uint8Array(plan.expertBytes);
  const put = (name: string, bytes: Uint8Array) =>
    expert.set(bytes, regionOf(plan.expert, name).offset);
  const [gateUp, down] = expertShapes(spec);
  put("gate_up_codes", matrices.get(linearSymbol(gateUp))!);
  put("down_codes", matrices.get(linearSymbol(down))!);
  for (const name of ["gate_up_scales", "down_scales"]) {
    put(name, floats(regionOf(plan.expert, name).bytes / 4, () => SCALE));
  }
  // No two rows are alike, so that tokens pick different experts.
  const { numExperts, routerType } = spec.experts!;
  const elements = numExperts * paddedFloats(spec.hiddenSize);
  return { router: floatBytes(routerType, floats(elements, () => random() - 0.5)), expert };
}

function fillLayer(
  spec: ModelSpec,
  plan: PackedPlan,
  layer: number,
  { matrices, expert }: { matrices: Matrices; expert: ExpertPatterns | null },
  fill: Fill,
): void {
  const start = plan.layersOffset + layer * plan.layerBytes;
  for (const region of plan.layer) {
    const at = { ...region, offset: start + region.offset };
    const name = LINEAR_NAMES.find((linear) => region.name === `${linear}_codes`);
    if (name !== undefined) fill(matrices.get(linearSymbol(linearShape(spec, name)))!, at.offset);
    else if (region.name.endsWith("_factors")) repeat(factorPattern(spec), at, fill);
    else if (region.name === "experts") repeat(expert!.expert, at, fill);
    else if (region.name === "router") repeat(expert!.router, at, fill);
    else repeat(floats(region.bytes / 4, () => /scales$/.test(region.name) ? SCALE : 1), at, fill);
  }
}

/** Factors of groups, all alike: a power of two, which every type holds. */
function factorPattern({ groups }: ModelSpec): Uint8Array {
  const shape = { n: BLOCK_ROWS, k: 64 * groups!.size };
  return packFactors(groups!, shape, new Float32Array(64 * BLOCK_ROWS).fill(2 ** -6)) as Uint8Array;
}

/** A ternary head or embedding: one piece again and again. */
function fillTernaryMatrix(
  spec: ModelSpec,
  plan: PackedPlan,
  which: TernaryMatrix,
  piece: Uint8Array,
  fill: Fill,
): void {
  repeat(piece, regionOf(plan.globals, `${which}_codes`), fill);
  repeat(factorPattern(spec), regionOf(plan.globals, `${which}_factors`), fill);
}

/** Embedding, final norm, head and its sketch. */
async function fillMatrices(
  spec: ModelSpec,
  plan: PackedPlan,
  packer: TernaryPacker,
  random: () => number,
  fill: Fill,
): Promise<void> {
  const norm = regionOf(plan.globals, "final_norm");
  repeat(floats(norm.bytes / 4, () => 1), norm, fill);
  const job = { spec, plan, packer, buffers: new BufferPool() };
  const pattern = floats(PATTERN_FLOATS, normalOf(random));
  const matrixOf = (type: FloatType) => madeMatrix(floatBytes(type, pattern), type, spec);
  const head = matrixOf(spec.headType);
  if (!spec.ternaryEmbedding) {
    const embedding = regionOf(plan.globals, "embedding");
    await write(copiedMatrix(job, matrixOf(spec.embeddingType), embedding), job.buffers, fill);
  }
  if (hasFloatHead(spec)) {
    await write(copiedMatrix(job, head, regionOf(plan.globals, "head")), job.buffers, fill);
  }
  if (hasSketch(spec)) await write(sketchedHead(job, head), job.buffers, fill);
}

async function write(parts: AsyncGenerator<Part[]>, buffers: BufferPool, fill: Fill) {
  for await (const some of parts) {
    for (const { bytes, offset } of some) {
      fill(bytes, offset);
      buffers.give(bytes);
    }
  }
}

/** Nearly normal numbers, as the rows of a trained head are: twelve uniform ones. */
function normalOf(random: () => number): () => number {
  return () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += random();
    return sum;
  };
}

/** A matrix (vocabSize, hiddenSize) that repeats a pattern. */
function madeMatrix(pattern: Uint8Array, type: FloatType, spec: ModelSpec): FloatMatrix {
  const { vocabSize: rows, hiddenSize: columns } = spec;
  return {
    type,
    rows,
    columns,
    readRows(first, count, take = (bytes) => new Uint8Array(bytes)) {
      const rowBytes = columns * FLOAT_BYTES[type];
      const bytes = take(count * rowBytes);
      let from = first * rowBytes % pattern.length;
      for (let done = 0; done < bytes.length;) {
        const some = pattern.subarray(from, from + bytes.length - done);
        bytes.set(some, done);
        done += some.length;
        from = (from + some.length) % pattern.length;
      }
      return Promise.resolve(bytes);
    },
  };
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
