/** Which tensors a model must have, of what shapes and types: checked before anything is read. */
import {
  type FloatType,
  layerLinears,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../codegen/model_spec.ts";
import { CheckpointError, shown, shownList, UnsupportedModelError } from "./errors.ts";
import { ROUNDED_TERNARY, widenedType } from "./gguf/float_blocks.ts";
import { blockKindOf } from "./gguf/ternary_blocks.ts";
import type { Tensors } from "./models/architecture.ts";
import { normSize, normsOf } from "./norms.ts";
import { isPacked, type Quantization, ROWS_PER_BYTE } from "./quantization.ts";
import { OUTPUT_FACTOR, type TensorNames } from "./tensor_names.ts";
import { GGML_TYPES, type TensorInfo } from "./tensors.ts";

const FLOAT_TYPES: Readonly<Record<string, FloatType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
};

/** The type of a float tensor. @throws If it is missing or of a type that is no model's. */
export function floatTypeOf(tensors: Tensors, name: string): FloatType {
  const dtype = tensors.get(name)?.dtype;
  if (dtype === undefined) throw missingTensorsError([name]);
  const type = FLOAT_TYPES[dtype];
  if (type !== undefined) return type;
  throw new UnsupportedModelError(
    `Cannot run this model: ${shown(name)} must be F32, F16 or BF16: current value is ${dtype}`,
  );
}

/** The type in which an embedding or a head is given: GGUF's quantised ones are widened. */
export function matrixTypeOf(tensors: Tensors, name: string): FloatType {
  const dtype = tensors.get(name)?.dtype;
  const widened = dtype === undefined ? null : widenedType(dtype);
  return widened ?? floatTypeOf(tensors, name);
}

/** Whether a tensor is of one of GGUF's ternary types. */
export function isBlockType(tensors: Tensors, name: string): boolean {
  const dtype = tensors.get(name)?.dtype;
  return dtype !== undefined && blockKindOf(dtype) !== null;
}

function missingTensorsError(names: readonly string[]): CheckpointError {
  return new CheckpointError(
    `Cannot use the checkpoint: it lacks ${names.length} of the tensors that config.json asks ` +
      `for: ${shownList(names)}`,
  );
}

interface ExpectedTensor {
  name: string;
  shapes: readonly (readonly number[])[];
  types: readonly string[];
}

const FLOATS = Object.keys(FLOAT_TYPES);
const TERNARY = GGML_TYPES.filter((type) => blockKindOf(type) !== null);
/** What embeddings and heads may be, and linears that are ternarised. */
const MATRICES = [...FLOATS, ...GGML_TYPES];

/**
 * @throws {CheckpointError} If a tensor is missing or of another shape.
 * @throws {UnsupportedModelError} If one is of a type that is not read, or would go unused.
 */
export function checkTensors(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  tensors: Tensors,
): void {
  const missing: string[] = [];
  for (const expected of expectedTensors(spec, quantization, names)) {
    const tensor = tensors.get(expected.name);
    if (tensor === undefined) missing.push(expected.name);
    else checkTensor(expected, tensor);
    // A config may claim thousands of layers that are not there: enough was seen.
    if (missing.length >= 1000) break;
  }
  if (missing.length > 0) throw missingTensorsError(missing);
  checkNothingElse(spec, quantization, names, tensors);
}

function checkTensor(
  { name, shapes, types }: ExpectedTensor,
  tensor: Pick<TensorInfo, "dtype" | "shape">,
) {
  if (!types.includes(tensor.dtype)) {
    throw new UnsupportedModelError(
      `Cannot use tensor ${shown(name)}: its type must be ${types.join(", ")}: ` +
        `current value is ${tensor.dtype}`,
    );
  }
  if (shapes.some((shape) => isSameShape(shape, tensor.shape))) return;
  throw new CheckpointError(
    `Cannot use tensor ${shown(name)}: by config.json its shape must be ` +
      `${shown(shapes[0])}: current value is ${shown(tensor.shape)}`,
  );
}

function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function* expectedTensors(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
): Generator<ExpectedTensor> {
  const matrix = [[spec.vocabSize, spec.hiddenSize]];
  yield { name: names.embedding, shapes: matrix, types: MATRICES };
  if (!spec.tieWordEmbeddings) yield { name: names.head, shapes: matrix, types: MATRICES };
  yield { name: names.finalNorm, shapes: [[spec.hiddenSize]], types: FLOATS };
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const which of normsOf(spec)) {
      yield { name: names.norm(layer, which), shapes: [[normSize(spec, which)]], types: FLOATS };
    }
    for (const which of spec.qkNorm ? ["query", "key"] as const : []) {
      yield { name: names.headNorm(layer, which), shapes: [[spec.headDim]], types: FLOATS };
    }
    for (const name of layerLinears(spec)) {
      yield* expectedOfLinear(spec, quantization, names, layer, name);
    }
    if (spec.experts !== undefined) yield* expectedOfExperts(spec, quantization, names, layer);
  }
}

/** The router and all experts: a tensor a kind that holds all, or one an expert. */
function* expectedOfExperts(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  layer: number,
): Generator<ExpectedTensor> {
  const { numExperts } = spec.experts!;
  yield { name: names.router(layer), shapes: [[numExperts, spec.hiddenSize]], types: FLOATS };
  const { stacked } = names.expert(layer, 0, "gate");
  for (let expert = 0; expert < (stacked ? 1 : numExperts); expert++) {
    for (const name of ["gate", "up", "down"] as const) {
      const { n, k } = linearShape(spec, name);
      const { path } = names.expert(layer, expert, name);
      const shape = stacked ? [numExperts, n, k] : [n, k];
      yield { name: `${path}.weight`, shapes: [shape], types: linearTypes(quantization) };
    }
  }
}

function linearTypes({ kind }: Quantization): readonly string[] {
  if (kind === "ternary") return [...TERNARY, ...FLOATS, ...ROUNDED_TERNARY];
  return kind === "absmean" ? MATRICES : FLOATS;
}

function* expectedOfLinear(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  layer: number,
  name: LinearName,
): Generator<ExpectedTensor> {
  const { n, k } = linearShape(spec, name);
  const path = names.linear(layer, name);
  if (isPacked(quantization)) {
    const rows = Math.ceil(n / ROWS_PER_BYTE);
    yield { name: `${path}.weight`, shapes: [[rows, k]], types: ["U8"] };
    yield { name: `${path}.weight_scale`, shapes: [[1], []], types: FLOATS };
  } else {
    yield { name: `${path}.weight`, shapes: [[n, k]], types: linearTypes(quantization) };
  }
  if (names.hasOutputFactors) {
    yield { name: `${path}.${OUTPUT_FACTOR}`, shapes: [[1], []], types: FLOATS };
  }
  if (spec.biases.includes(name)) yield { name: `${path}.bias`, shapes: [[n]], types: FLOATS };
  if (spec.linearNormEps !== null) {
    yield { name: names.inputNorm(layer, name), shapes: [[k]], types: FLOATS };
  }
}

/**
 * Tensors of a layer's linears and sub-norms that the graph as read would leave out: running
 * without them gives words that mean nothing, so that is an error. Other extras are harmless.
 */
function checkNothingElse(
  spec: ModelSpec,
  quantization: Quantization,
  names: TensorNames,
  tensors: Tensors,
): void {
  const expected = new Set<string>();
  for (const { name } of expectedTensors(spec, quantization, names)) expected.add(name);
  const relevant =
    /_proj\.(bias|output_factor|rms_norm\.weight|norm\.weight|weight_scale)$|\.(attn_sub_norm|ffn_sub_norm|inner_attn_ln|ffn_layernorm|q_norm|k_norm|pre_feedforward_layernorm|post_feedforward_layernorm)\.weight$|\.mlp\.experts\..*_proj\.weight$/;
  const unused = [...tensors.keys()].filter((name) => relevant.test(name) && !expected.has(name));
  if (unused.length === 0) return;
  throw new UnsupportedModelError(
    `Cannot run this model: by config.json it would not use ${shownList(unused)}: ` +
      "config.json is not that of this checkpoint",
  );
}
