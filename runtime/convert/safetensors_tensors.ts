/** A model's tensors in transformers' packed form, each with what makes its bytes. */
import {
  type FloatType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
} from "../../codegen/model_spec.ts";
import { isPacked } from "../config.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import { free } from "../free.ts";
import { ARCHITECTURES } from "../models/all.ts";
import { normSize, normsOf } from "../norms.ts";
import { hasOwnNorms, type TensorNames, tensorNamesOf } from "../tensor_names.ts";
import type { FloatMatrix } from "../weights.ts";
import { FLOAT_BYTES, floatsAs, matrixChunks } from "./floats.ts";
import { type Part, rowChunks, whole } from "./plan.ts";
import { packQuarters } from "./quarters.ts";
import { isRebuilt, linearClassOf, reciprocalOf } from "./safetensors_config.ts";
import { freeMatrix, type Source, type TernaryMatrix, ternaryMatrix } from "./source.ts";

export interface TensorOptions {
  /** Default: as the model has them. */
  embeddingType?: FloatType;
  /** Told of each matrix before it is written. */
  onMatrix?: (matrix: TernaryMatrix) => void;
}

/** A tensor that knows how it is made. */
export interface PlannedTensor extends Pick<Part, "chunks"> {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

const DTYPES: Readonly<Record<FloatType, string>> = { f32: "F32", f16: "F16", bf16: "BF16" };
const ELEMENT_BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, U8: 1 };

/** In the order in which they are written. */
export function packedTensors(source: Source, options: TensorOptions): PlannedTensor[] {
  const names = namesOf(source);
  const linears = linearsOf(source, names, options);
  const others = isRebuilt(source)
    ? rebuiltTensors(source, names, options)
    : copiedTensors(source, options);
  return [...linears, ...others].sort((a, b) => orderOf(a) - orderOf(b));
}

/** transformers' own names where there are none, or others'. */
function namesOf({ config, checkpoint: { format } }: Source): TensorNames {
  const { modelType, spec, tensorNames } = config;
  if (format === "safetensors") return tensorNames;
  const architecture = ARCHITECTURES.find((each) => each.modelType === modelType)!;
  return tensorNamesOf(architecture, new Map(), spec.tieWordEmbeddings);
}

/**
 * Wider elements first, so that all are aligned, as safetensors' own writer has them; factors last,
 * when they are known. Rows of codes are multiples of 4 bytes.
 */
function orderOf({ name, dtype }: PlannedTensor): number {
  return name.endsWith(".weight_scale") ? 0 : -ELEMENT_BYTES[dtype];
}

// ---------------------------------------------------------------- all but linears

/** Tensors of a model that has them by transformers' names, as they are. */
function copiedTensors(source: Source, options: TensorOptions): PlannedTensor[] {
  const { checkpoint: { tensors }, config: { spec, tensorNames } } = source;
  const linears = new Set(
    Array.from({ length: spec.numHiddenLayers }, (_, layer) =>
      LINEAR_NAMES.flatMap((name) => {
        const path = tensorNames.linear(layer, name);
        return [`${path}.weight`, `${path}.weight_scale`];
      })).flat(),
  );
  const others = [...tensors].filter(([name]) => !linears.has(name));
  return others.map(([name, { dtype, shape }]) => {
    const matrix = matrixOf(source, name);
    return matrix === null
      ? copied(source, name, dtype, shape, knownName(name, tensorNames))
      : floatMatrix(name, matrix, options);
  });
}

/** transformers knows norms of linears by another name than Microsoft's. */
function knownName(name: string, names: TensorNames): string {
  return hasOwnNorms(names) ? name.replace(/_proj\.norm\.weight$/, "_proj.rms_norm.weight") : name;
}

function matrixOf({ config, weights }: Source, name: string): FloatMatrix | null {
  const { tensorNames: { embedding, head }, spec } = config;
  if (name === embedding) return weights.embedding();
  return name === head && !spec.tieWordEmbeddings ? weights.head() : null;
}

/** Tensors by what they are for. */
function rebuiltTensors(
  source: Source,
  names: TensorNames,
  options: TensorOptions,
): PlannedTensor[] {
  const { config: { spec, modelType }, weights } = source;
  // Gemma's class adds 1 to weights of norms when it runs.
  const offset = modelType === "gemma3" ? 1 : 0;
  const norm = (name: string, size: number, read: () => Promise<Float32Array>) =>
    vector(name, size, async () => (await read()).map((weight) => weight - offset));
  const layers = Array.from({ length: spec.numHiddenLayers }, (_, layer) => [
    ...normsOf(spec).map((which) =>
      norm(names.norm(layer, which), normSize(spec, which), () => weights.norm(layer, which))
    ),
    ...(spec.qkNorm ? ["query", "key"] as const : []).map((which) =>
      norm(names.headNorm(layer, which), spec.headDim, () => weights.headNorm!(layer, which))
    ),
    ...vectorsOfLinears(source, names, layer),
  ]);
  return [
    floatMatrix(names.embedding, weights.embedding(), options),
    ...(spec.tieWordEmbeddings ? [] : [floatMatrix(names.head, weights.head(), options)]),
    norm(names.finalNorm, spec.hiddenSize, () => weights.finalNorm()),
    ...layers.flat(),
  ];
}

function vectorsOfLinears(
  { config: { spec }, weights }: Source,
  names: TensorNames,
  layer: number,
): PlannedTensor[] {
  const norms = spec.linearNormEps === null ? [] : LINEAR_NAMES;
  return [
    ...spec.biases.map((name) =>
      vector(
        `${names.linear(layer, name)}.bias`,
        linearShape(spec, name).n,
        async () => (await weights.linear(layer, name)).bias!,
      )
    ),
    ...norms.map((name) =>
      vector(
        names.inputNorm(layer, name),
        linearShape(spec, name).k,
        async () => (await weights.linear(layer, name)).inputNorm!,
      )
    ),
  ];
}

// ---------------------------------------------------------------- linears

function linearsOf(
  source: Source,
  names: TensorNames,
  options: TensorOptions,
): PlannedTensor[] {
  const factors = new Map<string, number>();
  return Array.from(
    { length: source.config.spec.numHiddenLayers },
    (_, layer) =>
      LINEAR_NAMES.flatMap((name) => {
        const path = names.linear(layer, name);
        return linearTensors(source, { layer, name, path }, factors, options);
      }),
  ).flat();
}

interface LinearPlace {
  layer: number;
  name: LinearName;
  /** The tensors' names without their last parts. */
  path: string;
}

function linearTensors(
  source: Source,
  { layer, name, path }: LinearPlace,
  factors: Map<string, number>,
  { onMatrix }: TensorOptions,
): PlannedTensor[] {
  const { n, k } = linearShape(source.config.spec, name);
  const shape = [Math.ceil(n / 4), k];
  async function* packed() {
    const matrix = await ternaryMatrix(source, layer, name);
    onMatrix?.(matrix);
    factors.set(path, matrix.factors[0]);
    const bytes = packQuarters(matrix.codes, n, k);
    freeMatrix(matrix);
    yield bytes;
    free(bytes);
  }
  const weight = {
    name: `${path}.weight`,
    dtype: "U8",
    shape,
    bytes: shape[0] * k,
    chunks: packed,
  };
  const factor = async () =>
    factors.get(path) ?? (await ternaryMatrix(source, layer, name)).factors[0];
  return [weight, scaleTensor(source, `${path}.weight_scale`, factor)];
}

/** What is there already stays, bit for bit. Else float32, as bfloat16 would round most factors. */
function scaleTensor(source: Source, name: string, factor: () => Promise<number>): PlannedTensor {
  const stored = source.checkpoint.tensors.get(name);
  if (isPacked(source.config.quantization) && stored !== undefined) {
    return copied(source, name, stored.dtype, stored.shape);
  }
  const divides = linearClassOf(source) === "bitlinear";
  const value = async () => {
    const scale = await factor();
    return floatsAs(Float32Array.of(divides ? reciprocalOf(scale) : scale), "f32");
  };
  return { name, dtype: "F32", shape: [1], bytes: 4, chunks: () => whole(value()) };
}

// ---------------------------------------------------------------- single tensors

function vector(name: string, size: number, read: () => Promise<Float32Array>): PlannedTensor {
  const bytes = async () => floatsAs(await read(), "f32");
  return { name, dtype: "F32", shape: [size], bytes: 4 * size, chunks: () => whole(bytes()) };
}

function floatMatrix(
  name: string,
  matrix: FloatMatrix,
  { embeddingType }: TensorOptions,
): PlannedTensor {
  const { rows, columns } = matrix;
  const type = embeddingType ?? matrix.type;
  return {
    name,
    dtype: DTYPES[type],
    shape: [rows, columns],
    bytes: rows * columns * FLOAT_BYTES[type],
    chunks: () => matrixChunks(matrix, type, name),
  };
}

/** A tensor as it is, perhaps by another name. */
function copied(
  { checkpoint }: Source,
  from: string,
  dtype: string,
  shape: readonly number[],
  name: string = from,
): PlannedTensor {
  if (!(dtype in ELEMENT_BYTES)) {
    throw new UnsupportedModelError(
      `Cannot write packed safetensors: ${shown(name)} must be F32, F16 or BF16: ` +
        `current value is ${dtype}`,
    );
  }
  const { byteLength: bytes } = checkpoint.tensors.get(from)!;
  async function* chunks() {
    for (const { first, count } of rowChunks(bytes, 1)) {
      const piece = await checkpoint.readRange(from, first, count);
      yield piece;
      free(piece);
    }
  }
  return { name, dtype, shape, bytes, chunks };
}
