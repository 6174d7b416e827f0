import { FLOAT_BYTES } from "../codegen/dense/template.ts";
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import { LINEAR_NAMES, linearShape, type ModelSpec } from "../codegen/model_spec.ts";
import { paddedFloats } from "../codegen/norm_quantize/template.ts";
import { type PackedPlan, planOf, type Region, regionOf } from "../codegen/plan.ts";
import type { OnProgress } from "./types.ts";
import type { FloatMatrix, NormName, WeightSource } from "./weights.ts";

/** Takes parts of the packed data at their offsets, in rising order. */
export type Sink = (bytes: Uint8Array, offset: number) => Promise<void> | void;

/** Bytes of a float matrix that are copied at a time. */
const COPY_BYTES = 8 << 20;

const NORMS: readonly (readonly [region: string, name: NormName])[] = [
  ["input_norm", "input"],
  ["post_attention_norm", "postAttention"],
  ["attn_sub_norm", "attnSub"],
  ["ffn_sub_norm", "ffnSub"],
];

export interface PackOptions {
  /** How ternary matrices lie. */
  layout?: TernaryLayout;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/**
 * Writes a model in the layout of `planOf(spec, layout)`. Holds one layer at a time, never the model.
 *
 * @throws Whatever the source says of an unreadable checkpoint; `signal.reason` when aborted.
 */
export async function packModel(
  spec: ModelSpec,
  source: WeightSource,
  sink: Sink,
  { layout = ROWS32, onProgress, signal }: PackOptions = {},
): Promise<void> {
  const plan = planOf(spec, layout);
  const report = (done: number) =>
    onProgress?.({
      phase: "pack",
      message: "Packing weights",
      done,
      total: plan.totalBytes,
      unit: "bytes",
    });
  report(0);
  await writeGlobals(spec, plan, source, sink, signal);
  report(plan.layersOffset);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    signal?.throwIfAborted();
    const start = plan.layersOffset + layer * plan.layerBytes;
    const parts = await layerParts(spec, layout, source, layer);
    for (const { name, offset } of plan.layer) await sink(parts.get(name)!, start + offset);
    report(start + plan.layerBytes);
  }
}

async function writeGlobals(
  spec: ModelSpec,
  plan: PackedPlan,
  source: WeightSource,
  sink: Sink,
  signal?: AbortSignal,
): Promise<void> {
  await copyMatrix(source.embedding(), regionOf(plan.globals, "embedding"), sink, signal);
  const norm = floatBytes(await source.finalNorm(), spec.hiddenSize);
  await sink(norm, regionOf(plan.globals, "final_norm").offset);
  if (!spec.tieWordEmbeddings) {
    await copyMatrix(source.head(), regionOf(plan.globals, "head"), sink, signal);
  }
}

async function copyMatrix(matrix: FloatMatrix, region: Region, sink: Sink, signal?: AbortSignal) {
  const elementBytes = FLOAT_BYTES[matrix.type];
  const rowBytes = paddedFloats(matrix.columns) * elementBytes;
  const rowsAtOnce = Math.max(1, Math.floor(COPY_BYTES / rowBytes));
  for (let first = 0; first < matrix.rows; first += rowsAtOnce) {
    signal?.throwIfAborted();
    const count = Math.min(rowsAtOnce, matrix.rows - first);
    const bytes = await matrix.readRows(first, count);
    await sink(
      padRows(bytes, matrix.columns * elementBytes, rowBytes),
      region.offset + first * rowBytes,
    );
  }
}

function padRows(bytes: Uint8Array, rowBytes: number, paddedBytes: number): Uint8Array {
  if (rowBytes === paddedBytes) return bytes;
  const rows = bytes.length / rowBytes;
  const padded = new Uint8Array(rows * paddedBytes);
  for (let row = 0; row < rows; row++) {
    padded.set(bytes.subarray(row * rowBytes, (row + 1) * rowBytes), row * paddedBytes);
  }
  return padded;
}

/** A layer's regions by name: gathered first, as the scales stand before the matrices. */
async function layerParts(
  spec: ModelSpec,
  layout: TernaryLayout,
  source: WeightSource,
  layer: number,
): Promise<Map<string, Uint8Array>> {
  const parts = new Map<string, Uint8Array>();
  const scales = new Float32Array(LINEAR_NAMES.length);
  for (const [region, name] of NORMS) {
    if (!spec.subNorms && region.endsWith("_sub_norm")) continue;
    const norm = await source.norm(layer, name);
    parts.set(region, floatBytes(norm, norm.length));
  }
  for (const [i, name] of LINEAR_NAMES.entries()) {
    const { n, k } = linearShape(spec, name);
    const weights = await source.linear(layer, name);
    scales[i] = weights.scale;
    if (spec.biases.includes(name)) parts.set(`${name}_bias`, floatBytes(weights.bias!, n));
    if (spec.linearNormEps !== null) {
      parts.set(`${name}_norm`, floatBytes(weights.inputNorm!, k));
    }
    parts.set(`${name}_codes`, packMatrix(layout, weights.codes, n, k));
  }
  return parts.set("scales", floatBytes(scales, scales.length));
}

/** Floats as bytes; what follows up to the region's end stays zero. */
function floatBytes(values: Float32Array, expected: number): Uint8Array {
  if (values.length !== expected) {
    throw new RangeError(
      `Cannot pack a vector of ${values.length} values: the model's shape needs ${expected}`,
    );
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
