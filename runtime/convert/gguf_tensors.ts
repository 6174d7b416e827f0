/** A model's tensors in a GGUF file, each with what makes its bytes. */
import {
  type FloatType,
  HEAD_ROWS,
  layerLinears,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import { UnsupportedModelError } from "../errors.ts";
import { free } from "../free.ts";
import { hasTurnedRows } from "../gguf/config.ts";
import { normSize, normsOf } from "../norms.ts";
import type { ExpertLinear } from "../tensor_names.ts";
import type { FloatMatrix } from "../weights.ts";
import { RangeFault } from "./errors.ts";
import { FLOAT_BYTES, floatsAs, matrixChunks } from "./floats.ts";
import type { TernaryType } from "./formats.ts";
import {
  blockWeights,
  codedBytes,
  type CodedMatrix,
  type CodedType,
  encodeCoded,
} from "./ggml_blocks.ts";
import { cannot, type GgufArchitecture, LINEAR_TENSORS } from "./gguf_architectures.ts";
import type { GgufTensor, TensorType } from "./gguf_file.ts";
import { ropeTables } from "./gguf_rope.ts";
import { type Part, whole } from "./plan.ts";
import {
  codedExpert,
  codedMatrix,
  factorOf,
  freeMatrix,
  type Source,
  type TernaryMatrix,
  ternaryMatrix,
} from "./source.ts";

export interface TensorOptions {
  type: TernaryType;
  /** Default: as the model has them. */
  embeddingType?: FloatType;
  /** Told of each matrix before it is written. */
  onMatrix?: (matrix: TernaryMatrix) => void;
}

/** A tensor that knows how it is made. */
export type PlannedTensor = GgufTensor & Pick<Part, "chunks">;

const FLOAT_TENSORS: Readonly<Record<FloatType, TensorType>> = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
};
const CODED_TENSORS: Readonly<Record<CodedType, TensorType>> = {
  f16: "F16",
  tq1_0: "TQ1_0",
  tq2_0: "TQ2_0",
  q2_0: "Q2_0",
  pq2_0: "PQ2_0",
  i2_s: "I2_S",
};

export function ggufTensors(
  source: Source,
  arch: GgufArchitecture,
  options: TensorOptions,
): PlannedTensor[] {
  const { config, weights, checkpoint: { configText } } = source;
  const { spec } = config;
  const layers = Array.from(
    { length: spec.numHiddenLayers },
    (_, layer) => layerTensors(source, arch, layer, options),
  );
  return [
    ...ropeTables(config, arch.name, configText).map(([name, values]) =>
      vectorTensor(name, values.length, () => Promise.resolve(values))
    ),
    ...endTensors(source, options),
    vectorTensor("output_norm.weight", spec.hiddenSize, () => weights.finalNorm()),
    ...layers.flat(),
  ];
}

/** Embedding and head. */
function endTensors(source: Source, options: TensorOptions): PlannedTensor[] {
  const { config: { spec }, weights } = source;
  if ((spec.ternaryEmbedding || spec.ternaryHead) && options.embeddingType !== undefined) {
    throw cannot("its embedding or head is ternary and stays so: leave --embedding-type out");
  }
  const ends = [
    spec.ternaryEmbedding
      ? ternaryEnd(source, "embedding", options)
      : matrixTensor("token_embd.weight", weights.embedding(), options.embeddingType),
  ];
  if (!spec.tieWordEmbeddings) {
    ends.push(
      spec.ternaryHead
        ? ternaryEnd(source, "head", options)
        : matrixTensor("output.weight", weights.head(), options.embeddingType),
    );
  }
  return ends;
}

function layerTensors(
  source: Source,
  arch: GgufArchitecture,
  layer: number,
  options: TensorOptions,
): PlannedTensor[] {
  const { config: { spec } } = source;
  return [
    ...normTensors(source, arch, layer),
    ...layerLinears(spec).map((name) => linearTensor(source, arch, layer, name, options)),
    ...biasTensors(source, arch, layer),
    ...(spec.experts === undefined ? [] : expertTensors(source, layer, options)),
  ];
}

function normTensors(
  { config: { spec }, weights }: Source,
  { norms }: GgufArchitecture,
  layer: number,
): PlannedTensor[] {
  const tensor = (name: string, size: number, read: () => Promise<Float32Array>) =>
    vectorTensor(`blk.${layer}.${name}.weight`, size, read);
  const heads = spec.qkNorm ? ["query", "key"] as const : [];
  const linears = spec.linearNormEps === null ? [] : layerLinears(spec);
  return [
    ...normsOf(spec).map((which) =>
      tensor(norms[which]!, normSize(spec, which), () => weights.norm(layer, which))
    ),
    ...heads.map((which) =>
      tensor(`attn_${which[0]}_norm`, spec.headDim, () => weights.headNorm!(layer, which))
    ),
    ...linears.map((name) =>
      tensor(
        `${LINEAR_TENSORS[name]}_norm_in`,
        linearShape(spec, name).k,
        async () => (await weights.linear(layer, name)).inputNorm!,
      )
    ),
  ];
}

function biasTensors(
  { config: { spec }, weights }: Source,
  arch: GgufArchitecture,
  layer: number,
): PlannedTensor[] {
  return spec.biases.map((name) =>
    vectorTensor(
      `blk.${layer}.${LINEAR_TENSORS[name]}.bias`,
      linearShape(spec, name).n,
      async () => {
        const { bias } = await weights.linear(layer, name);
        const order = rowOrder(spec, arch, name);
        return order === null ? bias! : Float32Array.from(order, (row) => bias![row]);
      },
    )
  );
}

// ---------------------------------------------------------------- floats

function vectorTensor(
  name: string,
  size: number,
  read: () => Promise<Float32Array>,
): PlannedTensor {
  const bytes = async () => floatsAs(await read(), "f32");
  return { name, dims: [size], type: "F32", bytes: 4 * size, chunks: () => whole(bytes()) };
}

function matrixTensor(
  name: string,
  matrix: FloatMatrix,
  type: FloatType = matrix.type,
): PlannedTensor {
  const { rows, columns } = matrix;
  return {
    name,
    dims: [columns, rows],
    type: FLOAT_TENSORS[type],
    bytes: rows * columns * FLOAT_BYTES[type],
    chunks: () => matrixChunks(matrix, type, name),
  };
}

// ---------------------------------------------------------------- ternary matrices

/** A matrix, or some of its rows, or one of several in a tensor. */
interface Piece extends CodedMatrix, Pick<TernaryMatrix, "what" | "stored"> {}

/** @param groupSize Features that have a factor: readers want whole groups, too. */
function ternaryTensor(
  name: string,
  dims: readonly [k: number, n: number, ...number[]],
  { type, groupSize }: { type: TernaryType; groupSize: number },
  pieces: () => AsyncIterable<Piece>,
): PlannedTensor {
  const [k, ...others] = dims;
  const rows = others.reduce((product, size) => product * size, 1);
  const isWhole = k % blockWeights(type) === 0 && k % groupSize === 0;
  const written: CodedType = isWhole ? type : "f16";
  async function* chunks() {
    for await (const piece of pieces()) {
      const bytes = encoded(written, piece);
      freeMatrix(piece);
      yield bytes;
      free(bytes);
    }
  }
  return { name, dims, type: CODED_TENSORS[written], bytes: codedBytes(written, rows, k), chunks };
}

function encoded(type: CodedType, piece: Piece): Uint8Array {
  try {
    return encodeCoded(type, piece);
  } catch (error) {
    if (!(error instanceof RangeFault)) throw error;
    const message = `Cannot write ${piece.what}: ${error.message}`;
    throw new UnsupportedModelError(message, { cause: error });
  }
}

function linearTensor(
  source: Source,
  arch: GgufArchitecture,
  layer: number,
  name: LinearName,
  { type, onMatrix }: TensorOptions,
): PlannedTensor {
  const { spec } = source.config;
  const { n, k } = linearShape(spec, name);
  async function* pieces() {
    const matrix = await ternaryMatrix(source, layer, name);
    onMatrix?.(matrix);
    yield inOrder(matrix, rowOrder(spec, arch, name));
  }
  const form = { type, groupSize: groupSizeOf(spec) };
  return ternaryTensor(`blk.${layer}.${LINEAR_TENSORS[name]}.weight`, [k, n], form, pieces);
}

function groupSizeOf({ groups }: ModelSpec): number {
  return groups?.weightScales ? groups.size : 1;
}

function inOrder(matrix: TernaryMatrix, order: Int32Array | null): Piece {
  const { codes, k } = matrix;
  if (order === null) {
    return { ...matrix, factorAt: (row, column) => factorOf(matrix, row, column) };
  }
  const ordered = reordered(codes, k, order);
  free(codes);
  return {
    ...matrix,
    codes: ordered,
    factorAt: (row, column) => factorOf(matrix, order[row], column),
  };
}

/** A ternary embedding or head, some rows at a time. */
function ternaryEnd(
  { config, weights }: Source,
  which: "embedding" | "head",
  { type }: TensorOptions,
): PlannedTensor {
  const { vocabSize, hiddenSize, tieWordEmbeddings } = config.spec;
  const asked = tieWordEmbeddings ? "head" : which;
  async function* pieces() {
    for (let first = 0; first < vocabSize; first += HEAD_ROWS) {
      const count = Math.min(HEAD_ROWS, vocabSize - first);
      yield inOrder(codedMatrix(config, await weights.ternaryRows!(asked, first, count)), null);
    }
  }
  const name = which === "head" ? "output.weight" : "token_embd.weight";
  const form = { type, groupSize: groupSizeOf(config.spec) };
  return ternaryTensor(name, [hiddenSize, vocabSize], form, pieces);
}

/** The router, and each kind of matrix of all experts as one tensor. */
function expertTensors(
  { config: { spec }, weights }: Source,
  layer: number,
  { type }: TensorOptions,
): PlannedTensor[] {
  const experts = weights.experts!;
  const { numExperts } = spec.experts!;
  const pieces = async function* (name: ExpertLinear) {
    for (let expert = 0; expert < numExperts; expert++) {
      const what = `${name} of expert ${expert} of layer ${layer}`;
      const matrix = codedExpert(await experts.matrix(layer, expert, name), what);
      yield { ...matrix, factorAt: (row: number) => matrix.factors[row] };
    }
  };
  return [
    matrixTensor(`blk.${layer}.ffn_gate_inp.weight`, experts.router(layer), "f32"),
    ...(["gate", "up", "down"] as const).map((name) => {
      const shape = linearShape(spec, name);
      const tensor = `blk.${layer}.${LINEAR_TENSORS[name]}_exps.weight`;
      const dims = [shape.k, shape.n, numExperts] as const;
      return ternaryTensor(tensor, dims, { type, groupSize: 1 }, () => pieces(name));
    }),
  ];
}

/**
 * Which row of a Hugging Face matrix each row of a GGUF one is; null where they are the same. Some
 * architectures turn neighbouring features, Hugging Face's the two halves of a head.
 */
function rowOrder(
  spec: ModelSpec,
  { name: arch }: GgufArchitecture,
  name: LinearName,
): Int32Array | null {
  if (!hasTurnedRows(arch) || (name !== "q" && name !== "k")) return null;
  const { headDim } = spec;
  return Int32Array.from({ length: linearShape(spec, name).n }, (_, row) => {
    const inHead = row % headDim;
    return row - inHead + (inHead >> 1) + (inHead & 1) * headDim / 2;
  });
}

function reordered(codes: Uint8Array, k: number, order: Int32Array): Uint8Array {
  const out = new Uint8Array(codes.length);
  for (const [row, from] of order.entries()) {
    out.set(codes.subarray(from * k, (from + 1) * k), row * k);
  }
  return out;
}
