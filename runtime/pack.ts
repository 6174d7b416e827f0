import { FLOAT_BYTES } from "../codegen/dense/template.ts";
import { PARAMETERS, sketchDither, sketchPieces } from "../codegen/head/sketch.ts";
import { ternaryMatrices, type TernaryMatrix } from "../codegen/head/ternary.ts";
import { ZERO_CODE } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import {
  expertShapes,
  type Groups,
  hasSketch,
  headPiece,
  headPieces,
  layerLinears,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  type Shape,
  SKETCH_ROWS,
  sketchShape,
} from "../codegen/model_spec.ts";
import { paddedFloats } from "../codegen/norm_quantize/template.ts";
import {
  hasFloatHead,
  hasMatrixScales,
  type PackedPlan,
  planOf,
  type Region,
  regionOf,
} from "../codegen/plan.ts";
import { storedBytes } from "../codegen/pack/stored.ts";
import { factorType, groupCount } from "../codegen/ternary_linear/groups.ts";
import { packFactors } from "../codegen/ternary_linear/factors.ts";
import { ahead, BufferPool } from "./ahead.ts";
import { CheckpointError } from "./errors.ts";
import { exactFactors } from "./exact_ternary.ts";
import { normSize, normsOf } from "./norms.ts";
import { ternaryOf } from "./ternary.ts";
import { referencePacker, type TernaryPacker } from "./ternary_packer.ts";
import type { OnProgress } from "./types.ts";
import type {
  ExpertMatrix,
  FloatMatrix,
  NormName,
  TernaryWeights,
  WeightSource,
} from "./weights.ts";

/** Takes parts of the packed data at their offsets, in rising order. */
export type Sink = (bytes: Uint8Array, offset: number) => Promise<void> | void;

/** Bytes of a float matrix that are copied at a time. */
const COPY_BYTES = 8 << 20;

/** Matrices that are read before they are packed, and parts that are packed before they are written. */
const READ_AHEAD = 1;
const WRITE_BEHIND = 2;

/** Regions of the norms that a layer may have. */
export const NORM_REGIONS: Readonly<Record<NormName, string>> = {
  input: "input_norm",
  postAttention: "post_attention_norm",
  attnSub: "attn_sub_norm",
  ffnSub: "ffn_sub_norm",
  attentionOut: "attention_out_norm",
  mlpOut: "mlp_out_norm",
};

export interface PackOptions {
  /** Packs ternary matrices, in its layout. Default: the reference, as rows32. */
  packer?: TernaryPacker;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/**
 * Writes a model in the layout of `planOf(spec, packer.layout)`. Reads ahead and writes behind, and
 * holds two layers at most, never the model.
 *
 * @throws Whatever the source says of an unreadable checkpoint; `signal.reason` when aborted.
 */
export async function packModel(
  spec: ModelSpec,
  source: WeightSource,
  sink: Sink,
  { packer = referencePacker(ROWS32), onProgress, signal }: PackOptions = {},
): Promise<void> {
  const plan = planOf(spec, packer.layout);
  const job = { spec, plan, source, packer, buffers: new BufferPool() };
  const total = plan.totalBytes;
  const report = (done: number) =>
    onProgress?.({ phase: "pack", message: "Packing weights", done, total, unit: "bytes" });
  report(0);
  for await (const parts of ahead(packedParts(job), WRITE_BEHIND)) {
    signal?.throwIfAborted();
    for (const part of parts) {
      await sink(part.bytes, part.offset);
      job.buffers.give(part.bytes);
      report(part.offset + part.bytes.length);
    }
  }
  report(total);
}

/** What writing a model's float matrices needs. */
export interface MatrixJob {
  spec: ModelSpec;
  plan: PackedPlan;
  packer: TernaryPacker;
  buffers: BufferPool;
}

interface Job extends MatrixJob {
  source: WeightSource;
}

/** Bytes of the packed data at their offset; written, they go back to the pool. */
export interface Part {
  bytes: Uint8Array<ArrayBuffer>;
  offset: number;
}

/** All of the packed data in rising order: the globals in pieces, then a layer at a time. */
async function* packedParts(job: Job): AsyncGenerator<Part[]> {
  yield* packedGlobals(job);
  yield* packedLayers(job, 0, job.spec.numHiddenLayers);
}

/** A stretch of the packed data: what stands before the layers, or layers `first` to `end` - 1. */
export type PackedStretch = "globals" | { first: number; end: number };

/** The parts of a stretch, in rising order, as `packModel` gives them to its sink: until the next are asked for. */
export async function* packedStretch(
  spec: ModelSpec,
  source: WeightSource,
  packer: TernaryPacker,
  stretch: PackedStretch,
): AsyncGenerator<Part[]> {
  const plan = planOf(spec, packer.layout);
  const job = { spec, plan, source, packer, buffers: new BufferPool() };
  const stretches = stretch === "globals"
    ? packedGlobals(job)
    : packedLayers(job, stretch.first, stretch.end);
  for await (const parts of stretches) {
    yield parts;
    for (const { bytes } of parts) job.buffers.give(bytes);
  }
}

async function* packedGlobals(job: Job): AsyncGenerator<Part[]> {
  const { spec, plan, source } = job;
  if (!spec.ternaryEmbedding) {
    yield* copiedMatrix(job, source.embedding(), regionOf(plan.globals, "embedding"));
  }
  const norm = floatBytes(await source.finalNorm(), spec.hiddenSize);
  yield [{ bytes: norm, offset: regionOf(plan.globals, "final_norm").offset }];
  if (hasFloatHead(spec)) yield* copiedMatrix(job, source.head(), regionOf(plan.globals, "head"));
  for (const which of ternaryMatrices(spec)) yield* packedRows(job, which);
  if (hasSketch(spec)) {
    yield* sketchedHead(job, spec.tieWordEmbeddings ? source.embedding() : source.head());
  }
}

/** A ternary head or embedding, a piece at a time; then the factors of all. */
async function* packedRows(job: Job, which: TernaryMatrix): AsyncGenerator<Part[]> {
  const { spec, plan, packer, source, buffers } = job;
  const { n, k } = headPiece(spec);
  const [codes, factors] = ["codes", "factors"].map((part) =>
    regionOf(plan.globals, `${which}_${part}`)
  );
  const pieces = headPieces(spec);
  const packedFactors = new Uint8Array(factors.bytes);
  for (let piece = 0; piece < pieces; piece++) {
    const count = Math.min(n, spec.vocabSize - piece * n);
    const loaded = await source.ternaryRows!(
      which,
      piece * n,
      count,
      (bytes) => buffers.take(bytes),
    );
    const weights = await withFactors(spec, packer, loaded);
    // A last piece of fewer rows is the beginning of a whole one.
    const bytes = buffers.take(codes.bytes / pieces);
    if (count < n) bytes.fill(0);
    await packer.pack(weights.matrix, weights.what, bytes);
    buffers.give(weights.matrix.bytes);
    const own = factorsOf(spec.groups!, { n: count, k }, weights, weights.scale ?? 1);
    packedFactors.set(own, piece * factors.bytes / pieces);
    yield [{ bytes, offset: codes.offset + piece * codes.bytes / pieces }];
  }
  yield [{ bytes: packedFactors, offset: factors.offset }];
}

/** A float matrix in pieces, its rows padded. */
export async function* copiedMatrix(
  { buffers }: Pick<MatrixJob, "buffers">,
  matrix: FloatMatrix,
  region: Region,
): AsyncGenerator<Part[]> {
  const elementBytes = FLOAT_BYTES[matrix.type];
  const rowBytes = matrix.columns * elementBytes;
  const paddedBytes = paddedFloats(matrix.columns) * elementBytes;
  const rowsAtOnce = Math.max(1, Math.floor(COPY_BYTES / paddedBytes));
  for (let first = 0; first < matrix.rows; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, matrix.rows - first);
    const offset = region.offset + first * paddedBytes;
    if (rowBytes === paddedBytes) {
      const bytes = await matrix.readRows(first, count, (bytes) => buffers.take(bytes));
      yield [{ bytes, offset }];
    } else {
      const rows = await matrix.readRows(first, count);
      yield [{ bytes: padRows(rows, rowBytes, paddedBytes), offset }];
    }
  }
}

/** The head's sketch, a piece at a time; see `codegen/head/sketch.ts`. */
export async function* sketchedHead(
  { spec, plan, packer, buffers }: MatrixJob,
  head: FloatMatrix,
): AsyncGenerator<Part[]> {
  const dither = sketchDither(spec.hiddenSize);
  yield [{
    bytes: floatBytes(dither, dither.length),
    offset: regionOf(plan.globals, "sketch_dither").offset,
  }];
  const { n, k } = sketchShape(spec);
  const pieceBytes = packer.layout.packedBytes(n, k);
  const start = regionOf(plan.globals, "sketch_codes").offset;
  const floats = new Float32Array(sketchPieces(spec) * PARAMETERS * SKETCH_ROWS);
  for (let piece = 0; piece < sketchPieces(spec); piece++) {
    const first = piece * SKETCH_ROWS;
    const count = Math.min(SKETCH_ROWS, head.rows - first);
    const bytes = await head.readRows(first, count, (length) => buffers.take(length));
    const packed = buffers.take(pieceBytes);
    const rows = await packer.sketch({ kind: head.type, bytes, n: count, k }, dither, packed);
    buffers.give(bytes);
    floats.set(rows, piece * PARAMETERS * SKETCH_ROWS);
    yield [{ bytes: packed, offset: start + piece * pieceBytes }];
  }
  yield [{
    bytes: floatBytes(floats, floats.length),
    offset: regionOf(plan.globals, "sketch_rows").offset,
  }];
}

function padRows(bytes: Uint8Array, rowBytes: number, paddedBytes: number) {
  const rows = bytes.length / rowBytes;
  const padded = new Uint8Array(rows * paddedBytes);
  for (let row = 0; row < rows; row++) {
    padded.set(bytes.subarray(row * rowBytes, (row + 1) * rowBytes), row * paddedBytes);
  }
  return padded;
}

async function* packedLayers(job: Job, first: number, end: number): AsyncGenerator<Part[]> {
  const { spec, plan } = job;
  const linears = ahead(loadedLinears(job, first, end), READ_AHEAD);
  try {
    for (let layer = first; layer < end; layer++) {
      const start = plan.layersOffset + layer * plan.layerBytes;
      const bytes = await layerBytes(job, linears, layer);
      yield plan.layer.filter(({ name }) => bytes.has(name)).map(({ name, offset }) => ({
        bytes: bytes.get(name)!,
        offset: start + offset,
      }));
      if (spec.experts !== undefined) yield* packedExperts(job, layer, start);
    }
  } finally {
    await linears.return(undefined);
  }
}

/** A layer's router, then one expert after the other. */
async function* packedExperts(job: Job, layer: number, start: number): AsyncGenerator<Part[]> {
  const { spec, plan, source } = job;
  const { name, offset, bytes } = regionOf(plan.layer, "router");
  const router = source.experts!.router(layer);
  yield* copiedMatrix(job, router, { name, offset: start + offset, bytes });
  const first = start + regionOf(plan.layer, "experts").offset;
  for (let expert = 0; expert < spec.experts!.numExperts; expert++) {
    const parts = await expertBytes(job, layer, expert);
    yield plan.expert.map(({ name, offset }) => ({
      bytes: parts.get(name)!,
      offset: first + expert * plan.expertBytes + offset,
    }));
  }
}

/** Gate and up as one matrix, up from its second half on, and down. */
async function expertBytes({ spec, source, packer }: Job, layer: number, expert: number) {
  const [gate, up, down] = await Promise.all(
    (["gate", "up", "down"] as const).map((name) => source.experts!.matrix(layer, expert, name)),
  );
  const [{ n }] = expertShapes(spec);
  const regions = new Map<string, Uint8Array<ArrayBuffer>>();
  const what = (name: string) => `${name} of expert ${expert} of layer ${layer}`;
  for (
    const [name, { matrix, rowScales }] of [
      ["gate_up", stacked(gate, up, n, what("gate and up"))],
      ["down", down],
    ] as const
  ) {
    const packed = new Uint8Array(packer.layout.packedBytes(matrix.n, matrix.k));
    await packer.pack(matrix, what(name), packed);
    const factors = rowScales ?? await packer.factors(matrix, "row", what(name));
    regions.set(`${name}_codes`, packed);
    regions.set(`${name}_scales`, floatBytes(factors, matrix.n));
  }
  return regions;
}

/** `lower` behind `upper` from row n / 2 on; rows between are zeros. They stay as they are stored. */
function stacked(upper: ExpertMatrix, lower: ExpertMatrix, n: number, what: string): ExpertMatrix {
  const isAlike = upper.matrix.kind === lower.matrix.kind &&
    upper.matrix.exact === lower.matrix.exact;
  if (!isAlike) {
    return stacked(coded(upper, what), coded(lower, what), n, what);
  }
  const { kind, k, exact } = upper.matrix;
  const half = storedBytes({ kind, n: n / 2, k });
  const bytes = new Uint8Array(2 * half).fill(kind === "codes" ? ZERO_CODE : 0);
  const rowScales = upper.rowScales && lower.rowScales && new Float32Array(n);
  for (const [i, { matrix, rowScales: factors }] of [upper, lower].entries()) {
    bytes.set(matrix.bytes, i * half);
    rowScales?.set(factors!, i * n / 2);
  }
  return { matrix: { kind, bytes, n, k, exact }, rowScales };
}

/** The same with a byte for each code. */
function coded({ matrix, rowScales }: ExpertMatrix, what: string): ExpertMatrix {
  const { n, k } = matrix;
  const bytes = Uint8Array.from(ternaryOf(matrix, what).codes);
  return {
    matrix: { kind: "codes", bytes, n, k },
    rowScales: rowScales ?? exactFactors(matrix, "row", what),
  };
}

interface LoadedLinear {
  name: LinearName;
  weights: TernaryWeights;
}

/** Ternary matrices of layers in the order in which they are packed. */
async function* loadedLinears(
  { spec, source, buffers }: Job,
  first: number,
  end: number,
): AsyncGenerator<LoadedLinear> {
  for (let layer = first; layer < end; layer++) {
    for (const name of layerLinears(spec)) {
      const weights = await source.linear(layer, name, (bytes) => buffers.take(bytes));
      yield { name, weights };
    }
  }
}

/** A layer's regions by name: gathered first, as the scales stand before the matrices. */
async function layerBytes(
  job: Job,
  linears: AsyncGenerator<LoadedLinear>,
  layer: number,
): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const { spec, source } = job;
  const regions = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const name of normsOf(spec)) {
    const norm = await source.norm(layer, name);
    regions.set(NORM_REGIONS[name], floatBytes(norm, normSize(spec, name)));
  }
  for (const which of spec.qkNorm ? ["query", "key"] as const : []) {
    const norm = await source.headNorm!(layer, which);
    regions.set(`${which}_norm`, floatBytes(norm, spec.headDim));
  }
  const scales = new Float32Array(LINEAR_NAMES.length);
  for (const name of layerLinears(spec)) {
    const { value: linear } = await linears.next();
    scales[LINEAR_NAMES.indexOf(name)] = await packLinear(job, linear, regions);
  }
  if (hasMatrixScales(spec)) regions.set("scales", floatBytes(scales, scales.length));
  return regions;
}

/** Adds a linear's regions. @returns Its scale. */
async function packLinear(
  { spec, packer, buffers }: Job,
  { name, weights: loaded }: LoadedLinear,
  regions: Map<string, Uint8Array<ArrayBuffer>>,
): Promise<number> {
  const { n, k } = linearShape(spec, name);
  const weights = await withFactors(spec, packer, loaded);
  const { matrix, what, bias, inputNorm } = weights;
  if (spec.biases.includes(name)) regions.set(`${name}_bias`, floatBytes(bias!, n));
  if (spec.linearNormEps !== null) regions.set(`${name}_norm`, floatBytes(inputNorm!, k));
  const codes = buffers.take(packer.layout.packedBytes(n, k));
  const found = await packer.pack(matrix, what, codes);
  buffers.give(matrix.bytes);
  regions.set(`${name}_codes`, codes);
  const scale = weights.scale ?? found ?? 1;
  if (spec.rowScales) {
    // A matrix with one factor has it in every row.
    const scales = weights.rowScales ?? new Float32Array(n).fill(scale);
    regions.set(`${name}_scales`, floatBytes(scales, n));
  }
  if (spec.groups?.weightScales) {
    regions.set(`${name}_factors`, factorsOf(spec.groups, { n, k }, weights, scale));
  }
  return scale;
}

/** Floats that are ternary as they stand get the factors that the model's spec asks for. */
async function withFactors(
  { groups, rowScales }: ModelSpec,
  packer: TernaryPacker,
  weights: TernaryWeights,
): Promise<TernaryWeights> {
  const { matrix, what } = weights;
  if (!matrix.exact) return weights;
  if (groups?.weightScales) {
    return { ...weights, groupScales: await packer.factors(matrix, groups.size, what) };
  }
  if (rowScales) return { ...weights, rowScales: await packer.factors(matrix, "row", what) };
  const [scale] = await packer.factors(matrix, "matrix", what);
  return { ...weights, scale };
}

/**
 * Factors of groups as the packed file has them; rows or a matrix with one factor have it in every group.
 *
 * @throws {CheckpointError} If their type does not hold one of them.
 */
function factorsOf(
  groups: Groups,
  { n, k }: Shape,
  { what, groupScales, rowScales }: TernaryWeights,
  scale: number,
): Uint8Array<ArrayBuffer> {
  const count = groupCount(groups, k);
  const factors = groupScales ?? Float32Array.from(
    { length: n * count },
    (_, i) => rowScales?.[Math.floor(i / count)] ?? scale,
  );
  if (factors.length !== n * count) {
    throw new RangeError(
      `Cannot pack ${what} as its ${n} x ${k} weights have ${n * count} groups: ` +
        `there are ${factors.length} factors`,
    );
  }
  const packed = packFactors(groups, { n, k }, factors);
  if (packed instanceof Uint8Array) return packed;
  throw new CheckpointError(
    `Cannot pack ${what} without loss as factors of its groups are kept as ${factorType(groups)}` +
      `: that of group ${packed.group} of row ${packed.row} is ${packed.value}, report this`,
  );
}

/** Floats as bytes; what follows up to the region's end stays zero. */
function floatBytes(values: Float32Array, expected: number): Uint8Array<ArrayBuffer> {
  if (values.length !== expected) {
    throw new RangeError(
      `Cannot pack a vector of ${values.length} values: the model's shape needs ${expected}`,
    );
  }
  return new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
}
