/** A checkpoint as a WeightSource: packed, ternary or master weights, as they are stored. */
import { type LinearName, linearShape, type Shape } from "../codegen/model_spec.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { floatTypeOf, isPacked, type ModelConfig } from "./config.ts";
import { CheckpointError, shown } from "./errors.ts";
import { exactFactors, signCodes } from "./exact_ternary.ts";
import { toFloat32 } from "./float_formats.ts";
import { widenedAsTernary, widenedType } from "./gguf/float_blocks.ts";
import { blockKindOf } from "./gguf/ternary_blocks.ts";
import { ternaryBlocks, wideMatrix } from "./gguf/weights.ts";
import { grainOfQuantization } from "./quantization.ts";
import { type ExpertLinear, OUTPUT_FACTOR } from "./tensor_names.ts";
import { packedWeights } from "./trilith/weights.ts";
import type {
  Allocate,
  ExpertMatrix,
  ExpertSource,
  FloatMatrix,
  NormName,
  TernaryWeights,
  WeightSource,
} from "./weights.ts";

/** `config` must come from the same checkpoint: its shapes were checked against these tensors. */
export function openWeights(config: ModelConfig, checkpoint: Checkpoint): WeightSource {
  const { packed } = checkpoint;
  return packed === undefined ? new CheckpointWeights(config, checkpoint) : packedWeights(packed);
}

/** What is stored of a linear. */
type Stored = Pick<TernaryWeights, "matrix" | "scale" | "rowScales" | "groupScales">;

class CheckpointWeights implements WeightSource {
  readonly #config: ModelConfig;
  readonly #checkpoint: Checkpoint;
  readonly experts: ExpertSource;

  constructor(config: ModelConfig, checkpoint: Checkpoint) {
    this.#config = config;
    this.#checkpoint = checkpoint;
    this.experts = {
      matrix: (layer, expert, name) => this.#expert(layer, expert, name),
      router: (layer) => this.#matrix(config.tensorNames.router(layer)),
    };
  }

  async linear(layer: number, name: LinearName, allocate?: Allocate): Promise<TernaryWeights> {
    const { spec, tensorNames } = this.#config;
    const path = tensorNames.linear(layer, name);
    const stored = await this.#scaled(path, linearShape(spec, name), allocate);
    const hasNorm = spec.linearNormEps !== null;
    return {
      ...stored,
      what: shown(`${path}.weight`),
      bias: spec.biases.includes(name) ? await this.#bias(path, stored.scale) : null,
      inputNorm: hasNorm ? await this.#vector(tensorNames.inputNorm(layer, name)) : null,
    };
  }

  /** As stored, with the factor of its outputs. */
  async #scaled(path: string, shape: Shape, allocate?: Allocate): Promise<Stored> {
    const { tensorNames, quantization } = this.#config;
    const stored = await this.#stored(path, shape, allocate);
    if (!tensorNames.hasOutputFactors) return stored;
    const what = `${path}.${OUTPUT_FACTOR}`;
    const [factor] = await this.#vector(what);
    const isOne = quantization.kind === "ternary" && quantization.scales === "matrix";
    if (!(factor > 0) || !isOne) {
      throw new CheckpointError(
        `Cannot use ${
          shown(what)
        }: it must be positive, and its matrix ternary with one magnitude: ` +
          `current value is ${factor}`,
      );
    }
    return outputsTimes(factor, stored, shown(`${path}.weight`));
  }

  async #stored(path: string, shape: Shape, allocate?: Allocate): Promise<Stored> {
    const { quantization } = this.#config;
    const name = `${path}.weight`;
    if (isPacked(quantization)) {
      const scale = await this.#packedScale(`${path}.weight_scale`);
      const bytes = await this.#checkpoint.read(name, allocate);
      return { matrix: { kind: "quarters", bytes, ...shape }, scale };
    }
    const { dtype } = this.#checkpoint.tensors.get(name)!;
    const kind = blockKindOf(dtype);
    if (kind !== null && quantization.kind === "ternary") {
      const bytes = await this.#checkpoint.read(name, allocate);
      const grain = grainOfQuantization(quantization);
      return ternaryBlocks({ kind, bytes, ...shape }, grain, shown(name));
    }
    const exact = quantization.kind === "ternary";
    if (widenedType(dtype) !== null) {
      const bytes = exact
        ? await this.#asTernary(name)
        : await wideMatrix(this.#checkpoint, name, "f32").readRows(0, shape.n);
      return { matrix: { kind: "f32", bytes, ...shape, exact }, scale: null };
    }
    const bytes = await this.#checkpoint.read(name, allocate);
    const matrix = { kind: floatTypeOf(this.#checkpoint.tensors, name), bytes, ...shape };
    return { matrix: exact ? { ...matrix, exact } : matrix, scale: null };
  }

  /** The float32 weights of a ternary matrix in one of the types of floats. */
  async #asTernary(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { dtype } = this.#checkpoint.tensors.get(name)!;
    const values = widenedAsTernary(await this.#checkpoint.read(name), dtype, shown(name));
    return new Uint8Array(values.buffer as ArrayBuffer);
  }

  async norm(layer: number, which: NormName): Promise<Float32Array> {
    return this.#folded(await this.#vector(this.#config.tensorNames.norm(layer, which)), 1);
  }

  async finalNorm(): Promise<Float32Array> {
    const { folds, tensorNames } = this.#config;
    return this.#folded(await this.#vector(tensorNames.finalNorm), folds.finalNorm);
  }

  async headNorm(layer: number, which: "query" | "key"): Promise<Float32Array> {
    const { folds, tensorNames } = this.#config;
    const weights = await this.#vector(tensorNames.headNorm(layer, which));
    return this.#folded(weights, which === "query" ? folds.queryNorm : 1);
  }

  embedding(): FloatMatrix {
    return this.#matrix(this.#config.tensorNames.embedding);
  }

  head(): FloatMatrix {
    return this.#matrix(this.#config.tensorNames.head);
  }

  async ternaryRows(
    which: "head" | "embedding",
    first: number,
    count: number,
    allocate?: Allocate,
  ): Promise<TernaryWeights> {
    const { spec, tensorNames } = this.#config;
    const { tensors } = this.#checkpoint;
    const name = tensorNames[which];
    const { dtype, shape: [rows, k], byteLength } = tensors.get(name)!;
    const rowBytes = byteLength / rows;
    const at = first * rowBytes;
    const bytes = await this.#checkpoint.readRange(name, at, count * rowBytes, allocate);
    const what = `${shown(name)}, rows from ${first} on`;
    const none = { what, bias: null, inputNorm: null };
    const kind = blockKindOf(dtype);
    if (kind !== null) {
      return { ...ternaryBlocks({ kind, bytes, n: count, k }, spec.groups!.size, what), ...none };
    }
    const matrix = { kind: floatTypeOf(tensors, name), bytes, n: count, k, exact: true };
    return { matrix, scale: null, ...none };
  }

  /** Weights of a norm as the graph has them. */
  #folded(weights: Float32Array, factor: number): Float32Array {
    const { normOffset } = this.#config.folds;
    return weights.map((weight) => (weight + normOffset) * factor);
  }

  async #expert(layer: number, expert: number, name: ExpertLinear): Promise<ExpertMatrix> {
    const { spec, tensorNames } = this.#config;
    const { path, stacked } = tensorNames.expert(layer, expert, name);
    const weight = `${path}.weight`;
    const what = stacked ? `${shown(weight)}, expert ${expert}` : shown(weight);
    const kind = blockKindOf(this.#checkpoint.tensors.get(weight)!.dtype);
    const bytes = await this.#part(weight, stacked, expert);
    const shape = linearShape(spec, name);
    if (kind !== null) return expertOfBlocks({ kind, bytes, ...shape }, what);
    const matrix = { kind: floatTypeOf(this.#checkpoint.tensors, weight), bytes, ...shape };
    return { matrix: { ...matrix, exact: true }, rowScales: null };
  }

  /** A tensor, or an expert's part of one that holds those of all. */
  #part(name: string, stacked: boolean, expert: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!stacked) return this.#checkpoint.read(name);
    const bytes = this.#checkpoint.tensors.get(name)!.byteLength /
      this.#config.spec.experts!.numExperts;
    return this.#checkpoint.readRange(name, expert * bytes, bytes);
  }

  /** weight_scale is mean|W| for autobitlinear and its reciprocal for bitlinear. */
  async #packedScale(name: string): Promise<number> {
    const [stored] = await this.#vector(name);
    const scale = this.#multiplies() ? stored : Math.fround(1 / stored);
    if (stored > 0 && scale > 0 && Number.isFinite(scale)) return scale;
    throw new CheckpointError(
      `Cannot use ${shown(name)}: a scale must be positive and finite, and so its reciprocal: ` +
        `current value is ${stored}`,
    );
  }

  #multiplies(): boolean {
    const { quantization } = this.#config;
    return quantization.kind === "bitnet" && quantization.linearClass === "autobitlinear";
  }

  /** transformers' AutoBitLinear adds the bias before it multiplies by weight_scale. */
  async #bias(path: string, scale: number | null): Promise<Float32Array> {
    const bias = await this.#vector(`${path}.bias`);
    return scale !== null && this.#multiplies() ? bias.map((value) => value * scale) : bias;
  }

  async #vector(name: string): Promise<Float32Array> {
    const bytes = await this.#checkpoint.read(name);
    const values = toFloat32(bytes, floatTypeOf(this.#checkpoint.tensors, name));
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad < 0) return values;
    throw new CheckpointError(
      `Cannot use ${shown(name)}: its values must be finite: element ${bad} is ${values[bad]}`,
    );
  }

  #matrix(name: string): FloatMatrix {
    const checkpoint = this.#checkpoint;
    const { shape: [rows, columns], byteLength, dtype } = checkpoint.tensors.get(name)!;
    const widened = widenedType(dtype);
    if (widened !== null) return wideMatrix(checkpoint, name, widened);
    const rowBytes = byteLength / rows;
    return {
      type: floatTypeOf(checkpoint.tensors, name),
      rows,
      columns,
      readRows: (first, count, allocate) =>
        checkpoint.readRange(name, first * rowBytes, count * rowBytes, allocate),
    };
  }
}

/** A matrix of one magnitude, times a factor. */
function outputsTimes(factor: number, { matrix, scale }: Stored, what: string): Stored {
  if (scale !== null) return { matrix, scale: Math.fround(scale * factor) };
  const [magnitude] = exactFactors(matrix, "matrix", what);
  const codes: StoredMatrix = { kind: "codes", bytes: signCodes(matrix), n: matrix.n, k: matrix.k };
  return { matrix: codes, scale: Math.fround(magnitude * factor) };
}

/** An expert of a stack of GGUF's blocks. I2_S has its factor behind all experts, so it can't be one. */
function expertOfBlocks(matrix: StoredMatrix, what: string): ExpertMatrix {
  const { rowScales, scale } = ternaryBlocks(matrix, "row", what);
  return { matrix, rowScales: rowScales ?? new Float32Array(matrix.n).fill(scale!) };
}
