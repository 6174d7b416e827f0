/** A model as GGUF files: which keys and tensors they have. */
import {
  type FloatType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import type { ModelConfig, RopeScaling } from "../config.ts";
import { UnsupportedModelError } from "../errors.ts";
import { NO_FOLDS } from "../models/architecture.ts";
import { normSize, normsOf } from "../norms.ts";
import type { Pooling } from "../pooling.ts";
import type { FloatMatrix, NormName } from "../weights.ts";
import { RangeFault } from "./errors.ts";
import type { TernaryType } from "./formats.ts";
import { FLOAT_BYTES, floatsAs, matrixChunks } from "./floats.ts";
import {
  encodeHalves,
  encodeTernary,
  I2S_WEIGHTS,
  ternaryBytes,
  TQ_WEIGHTS,
} from "./ggml_blocks.ts";
import {
  encodeGgufHeader,
  type GgufTensor,
  type GgufValue,
  placeTensors,
  type TensorType,
} from "./gguf_file.ts";
import { ggufTokenizer } from "./gguf_tokenizer.ts";
import { type Part, type PlannedFile, whole } from "./plan.ts";
import { factorOf, type Source, type TernaryMatrix, ternaryMatrix } from "./source.ts";

export interface GgufOptions {
  type: TernaryType;
  /** Default: as the model has them. */
  embeddingType?: FloatType;
  /** tokenizer.ggml.pre. */
  pre?: string;
  /** Bytes that no file is to exceed, but for a single tensor that does. */
  splitMaxBytes?: number;
  /** Told of each matrix before it is written. */
  onMatrix?: (matrix: TernaryMatrix) => void;
}

/** Names of the keys' section, as llama.cpp and microsoft/BitNet have graphs for them. */
type Architecture = "llama" | "bitnet" | "bitnet-b1.58";

/** A tensor that knows how it is made. */
type Planned = GgufTensor & Pick<Part, "chunks">;

const FLOAT_TENSORS: Readonly<Record<FloatType, TensorType>> = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
};
const TERNARY_TENSORS = { tq1_0: "TQ1_0", tq2_0: "TQ2_0", i2_s: "I2_S" } as const;

/** What llama.cpp calls the linears and the norms of a layer. */
export const LINEAR_TENSORS: Readonly<Record<LinearName, string>> = {
  q: "attn_q",
  k: "attn_k",
  v: "attn_v",
  o: "attn_output",
  gate: "ffn_gate",
  up: "ffn_up",
  down: "ffn_down",
};
const NORM_TENSORS: Readonly<Partial<Record<NormName, string>>> = {
  input: "attn_norm",
  postAttention: "ffn_norm",
  attnSub: "attn_sub_norm",
  ffnSub: "ffn_sub_norm",
};

/** general.file_type. 40 is microsoft/BitNet's number for I2_S. */
const FILE_TYPES: Readonly<Record<TernaryType, number>> = { tq1_0: 36, tq2_0: 37, i2_s: 40 };

/**
 * @param name The file's name; those of several are made from it as llama.cpp's gguf-split does.
 * @throws {UnsupportedModelError} If no reader of such files would run the model as it is.
 */
export async function planGguf(
  source: Source,
  name: string,
  options: GgufOptions,
): Promise<PlannedFile[]> {
  refuseFolds(source.config);
  const architecture = architectureOf(source.config.spec, options.type);
  const tensors = tensorsOf(source, architecture, options);
  const keys = await keysOf(source, architecture, options);
  const groups = splitBySize(tensors, options.splitMaxBytes ?? Infinity);
  return groups.map((group, no) => {
    const values = groups.length === 1 ? keys : [
      ...(no === 0 ? keys : []),
      ...splitKeys(no, groups.length, tensors.length),
    ];
    return plannedFile(splitName(name, no, groups.length), values, group);
  });
}

function plannedFile(
  name: string,
  values: readonly GgufValue[],
  tensors: readonly Planned[],
): PlannedFile {
  const placed = placeTensors(tensors);
  const head = encodeGgufHeader(values, placed);
  const parts = placed.map(({ name: what, offset, bytes, chunks }) => ({
    what,
    offset: head.length + offset,
    bytes,
    chunks,
  }));
  const last = parts[parts.length - 1];
  return { name, head, parts, bytes: last.offset + last.bytes };
}

// ---------------------------------------------------------------- architectures

const cannot = (reason: string) => new UnsupportedModelError(`Cannot write a GGUF file: ${reason}`);

function architectureOf(spec: ModelSpec, type: TernaryType): Architecture {
  refuseOtherGraphs(spec);
  refuseShapes(spec, type);
  if (!spec.subNorms) {
    if (spec.hiddenAct === "silu") return "llama";
    throw cannot("readers run arch llama with SiLU only, this model has squared ReLU");
  }
  if (spec.hiddenAct === "relu2") {
    if (type === "i2_s") return "bitnet-b1.58";
    throw cannot(
      "llama.cpp, which reads TQ1_0 and TQ2_0, runs sub-norms with SiLU only and this model has " +
        "squared ReLU: use --type i2_s, which bitnet.cpp and Trilith read",
    );
  }
  if (!spec.tieWordEmbeddings) {
    throw cannot("readers of arch bitnet tie the head to the embedding, this model has its own");
  }
  return "bitnet";
}

function refuseOtherGraphs(spec: ModelSpec): void {
  const foreign: [boolean | undefined, string][] = [
    [spec.linearNormEps !== null, "norms inside its linears"],
    [spec.experts !== undefined, "experts"],
    [spec.qkNorm, "norms of queries and keys"],
    [spec.postNorms, "norms behind attention and MLP"],
    [spec.sliding !== undefined, "sliding attention"],
    [spec.ternaryHead, "a ternary head"],
    [spec.rotaryDim !== undefined && spec.rotaryDim !== spec.headDim, "partial RoPE"],
    [(spec.embeddingScale ?? 1) !== 1, "a factor of its embeddings"],
    [(spec.residualScale ?? 1) !== 1, "a factor of its residuals"],
    [spec.subNorms && spec.biases.length > 0, "sub-norms and biases together"],
  ];
  const found = foreign.filter(([has]) => has).map(([, what]) => what);
  if (found.length === 0) return;
  throw cannot(
    `this version writes the archs llama and bitnet, and this model has ${found.join(", ")}: ` +
      "use --to packed",
  );
}

/** What reading has put into weights would be applied again by whoever reads the file. */
function refuseFolds({ folds, modelType }: ModelConfig): void {
  if (JSON.stringify(folds) === JSON.stringify(NO_FOLDS)) return;
  throw cannot(`models of type ${modelType} are not written by this version: use --to packed`);
}

function refuseShapes(spec: ModelSpec, type: TernaryType): void {
  const size = spec.groups?.weightScales ? spec.groups.size : 0;
  if (size > 0 && (type === "i2_s" || size % TQ_WEIGHTS !== 0)) {
    throw cannot(
      `this model has a factor for each ${size} weights, ` +
        (type === "i2_s" ? "I2_S one a matrix" : `TQ1_0 and TQ2_0 one for each ${TQ_WEIGHTS}`) +
        ": use --to packed",
    );
  }
  if (type !== "i2_s") return;
  if (spec.rowScales) {
    throw cannot("this model has a factor a row, I2_S one a matrix: use --type tq2_0");
  }
  const odd = LINEAR_NAMES.find((name) => linearShape(spec, name).k % I2S_WEIGHTS !== 0);
  if (odd === undefined) return;
  throw cannot(
    `rows of I2_S must be a multiple of ${I2S_WEIGHTS} long: ${LINEAR_TENSORS[odd]} has ` +
      `${linearShape(spec, odd).k}, use --type tq2_0, which falls back to F16 there`,
  );
}

// ---------------------------------------------------------------- keys

async function keysOf(
  { checkpoint: { companions }, config, tokenizer, defaults }: Source,
  arch: Architecture,
  { type, pre }: GgufOptions,
): Promise<GgufValue[]> {
  const { spec, ropeTheta, ropeScaling, maxPositionEmbeddings, name } = config;
  const counts = {
    block_count: spec.numHiddenLayers,
    context_length: maxPositionEmbeddings,
    embedding_length: spec.hiddenSize,
    feed_forward_length: spec.intermediateSize,
    "attention.head_count": spec.numAttentionHeads,
    "attention.head_count_kv": spec.numKeyValueHeads,
    "attention.key_length": spec.headDim,
    "attention.value_length": spec.headDim,
    vocab_size: spec.vocabSize,
    "rope.dimension_count": spec.headDim,
  };
  return [
    ["general.architecture", "string", arch],
    ["general.type", "string", "model"],
    ["general.name", "string", name],
    ["general.file_type", "uint32", FILE_TYPES[type]],
    ["general.quantization_version", "uint32", 2],
    ...Object.entries(counts).map(([key, count]): GgufValue => [`${arch}.${key}`, "uint32", count]),
    [`${arch}.rope.freq_base`, "float32", ropeTheta],
    [`${arch}.attention.layer_norm_rms_epsilon`, "float32", spec.rmsNormEps],
    ...linearScalingKeys(arch, ropeScaling),
    ...poolingKeys(arch, config),
    ...await ggufTokenizer({ companions, tokenizer, defaults, vocabSize: spec.vocabSize, pre }),
  ];
}

const POOLING_TYPES: Readonly<Record<Pooling, number>> = { mean: 1, cls: 2, last: 3 };

/** No key says whether vectors have length 1: that is up to those who ask for them. */
function poolingKeys(arch: Architecture, { task, embedding }: ModelConfig): GgufValue[] {
  if (task !== "embed") return [];
  return [[`${arch}.pooling_type`, "uint32", POOLING_TYPES[embedding.pooling]]];
}

function linearScalingKeys(arch: Architecture, scaling: RopeScaling | null): GgufValue[] {
  if (scaling?.ropeType !== "linear") return [];
  return [
    [`${arch}.rope.scaling.type`, "string", "linear"],
    [`${arch}.rope.scaling.factor`, "float32", scaling.factor],
  ];
}

/**
 * What each pair's frequency is divided by, as llama.cpp keeps it in rope_freqs.weight; null where
 * keys say it all.
 *
 * Source: transformers' modeling_rope_utils.py, _compute_llama3_parameters.
 */
export function ropeDivisors(
  theta: number,
  headDim: number,
  scaling: RopeScaling | null,
): Float32Array | null {
  if (scaling === null || scaling.ropeType === "linear") return null;
  if (scaling.ropeType === "divisors") return Float32Array.from(scaling.divisors);
  if (scaling.ropeType !== "llama3") {
    throw cannot("its scaling of RoPE has no keys: use --to packed");
  }
  const { factor, lowFreqFactor: low, highFreqFactor: high } = scaling;
  const original = scaling.originalMaxPositionEmbeddings;
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** (2 * i / headDim);
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return factor;
    const smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

// ---------------------------------------------------------------- tensors

function tensorsOf(source: Source, arch: Architecture, options: GgufOptions): Planned[] {
  const { config: { spec, ropeTheta, ropeScaling }, weights } = source;
  const embeddings: Planned[] = [matrixTensor("token_embd.weight", weights.embedding(), options)];
  if (!spec.tieWordEmbeddings) {
    embeddings.push(matrixTensor("output.weight", weights.head(), options));
  }
  const divisors = ropeDivisors(ropeTheta, spec.headDim, ropeScaling);
  const factors: Planned[] = divisors === null
    ? []
    : [vectorTensor("rope_freqs.weight", divisors.length, () => Promise.resolve(divisors))];
  const layers = Array.from(
    { length: spec.numHiddenLayers },
    (_, layer) => layerTensors(source, arch, layer, options),
  );
  return [
    ...factors,
    ...embeddings,
    vectorTensor("output_norm.weight", spec.hiddenSize, () => weights.finalNorm()),
    ...layers.flat(),
  ];
}

function layerTensors(
  source: Source,
  arch: Architecture,
  layer: number,
  options: GgufOptions,
): Planned[] {
  const { config: { spec }, weights } = source;
  const norms = normsOf(spec).map((which) =>
    vectorTensor(
      `blk.${layer}.${NORM_TENSORS[which]}.weight`,
      normSize(spec, which),
      () => weights.norm(layer, which),
    )
  );
  const linears = LINEAR_NAMES.map((name) => linearTensor(source, arch, layer, name, options));
  const biases = spec.biases.map((name) =>
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
  return [...norms, ...linears, ...biases];
}

function vectorTensor(name: string, size: number, read: () => Promise<Float32Array>): Planned {
  const bytes = async () => floatsAs(await read(), "f32");
  return { name, dims: [size], type: "F32", bytes: 4 * size, chunks: () => whole(bytes()) };
}

function matrixTensor(name: string, matrix: FloatMatrix, { embeddingType }: GgufOptions): Planned {
  const { rows, columns } = matrix;
  const type = embeddingType ?? matrix.type;
  return {
    name,
    dims: [columns, rows],
    type: FLOAT_TENSORS[type],
    bytes: rows * columns * FLOAT_BYTES[type],
    chunks: () => matrixChunks(matrix, type, name),
  };
}

function linearTensor(
  source: Source,
  arch: Architecture,
  layer: number,
  name: LinearName,
  { type, onMatrix }: GgufOptions,
): Planned {
  const { spec } = source.config;
  const { n, k } = linearShape(spec, name);
  const isHalf = type !== "i2_s" && k % TQ_WEIGHTS !== 0;
  const bytes = async () => {
    const matrix = await ternaryMatrix(source, layer, name);
    onMatrix?.(matrix);
    return encoded(matrix, isHalf ? "f16" : type, rowOrder(spec, arch, name));
  };
  return {
    name: `blk.${layer}.${LINEAR_TENSORS[name]}.weight`,
    dims: [k, n],
    type: isHalf ? "F16" : TERNARY_TENSORS[type],
    bytes: isHalf ? 2 * n * k : ternaryBytes(type, n, k),
    chunks: () => whole(bytes()),
  };
}

function encoded(
  matrix: TernaryMatrix,
  type: TernaryType | "f16",
  order: Int32Array | null,
): Uint8Array {
  const { n, k, what } = matrix;
  const codes = order === null ? matrix.codes : reordered(matrix.codes, k, order);
  const factorAt = (row: number, column: number) => factorOf(matrix, order?.[row] ?? row, column);
  try {
    const coded = { codes, n, k, factorAt };
    return type === "f16" ? encodeHalves(coded) : encodeTernary(type, coded);
  } catch (error) {
    if (!(error instanceof RangeFault)) throw error;
    throw new UnsupportedModelError(`Cannot write ${what}: ${error.message}`, { cause: error });
  }
}

/**
 * Which row of a Hugging Face matrix each row of a GGUF one is; null where they are the same. Arch
 * llama turns neighbouring features, Hugging Face's the two halves of a head.
 */
export function rowOrder(
  spec: ModelSpec,
  arch: Architecture,
  name: LinearName,
): Int32Array | null {
  if (arch !== "llama" || (name !== "q" && name !== "k")) return null;
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

// ---------------------------------------------------------------- several files

function splitBySize(tensors: readonly Planned[], most: number): Planned[][] {
  const groups: Planned[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    if (size > 0 && size + tensor.bytes > most) {
      groups.push([]);
      size = 0;
    }
    groups[groups.length - 1].push(tensor);
    size += tensor.bytes;
  }
  return groups;
}

/** llama.cpp finds the other files by these names. */
function splitName(name: string, no: number, count: number): string {
  if (count === 1) return name;
  const five = (value: number) => String(value).padStart(5, "0");
  return `${name.replace(/\.gguf$/i, "")}-${five(no + 1)}-of-${five(count)}.gguf`;
}

function splitKeys(no: number, count: number, tensors: number): GgufValue[] {
  return [
    ["split.no", "uint16", no],
    ["split.count", "uint16", count],
    ["split.tensors.count", "int32", tensors],
  ];
}
