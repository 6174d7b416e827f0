/** The model that is converted, opened. */
import type { LinearName } from "../../codegen/model_spec.ts";
import type { StoredMatrix } from "../../codegen/pack/stored.ts";
import { type Checkpoint, openCheckpoint } from "../checkpoint.ts";
import { openWeights } from "../checkpoint_weights.ts";
import { type ConfigOptions, type ModelConfig, readModelConfig } from "../config.ts";
import { exactFactors, signCodes } from "../exact_ternary.ts";
import { free } from "../free.ts";
import type { GgufOptions } from "../gguf/checkpoint.ts";
import { readGenerationDefaults } from "../generation_config.ts";
import { ternaryOf } from "../ternary.ts";
import { checkTokenizerFits, readTokenizer, type StreamingTokenizer } from "../tokenizer.ts";
import type { GenerationDefaults } from "../types.ts";
import type { ExpertMatrix, TernaryWeights, WeightSource } from "../weights.ts";

export interface Source extends AsyncDisposable {
  checkpoint: Checkpoint;
  config: ModelConfig;
  weights: WeightSource;
  tokenizer: StreamingTokenizer;
  defaults: GenerationDefaults;
}

/** One ternary matrix: W[row, column] = factor * (code - 1). */
export interface TernaryMatrix {
  what: string;
  n: number;
  k: number;
  /** (n, k), one a byte. */
  codes: Uint8Array;
  /** (n, ceil(k / groupSize)) factors, or one a row, or one for all. */
  factors: Float32Array;
  /** Features that a factor is for; k and more where a row has one. */
  groupSize: number;
  /** (n,), added after scaling. */
  bias: Float32Array | null;
  /** (k,), weight of the RMSNorm that the linear applies to its own input. */
  inputNorm: Float32Array | null;
  /** As it was read: float masters, where it was ternarised. */
  stored: StoredMatrix;
}

/** @throws As `loadModel` of a model that can't be read. */
export async function openSource(
  path: string,
  options: ConfigOptions & GgufOptions = {},
): Promise<Source> {
  const checkpoint = await openCheckpoint(path, options);
  try {
    const config = await readModelConfig(checkpoint, options);
    const tokenizer = await readTokenizer(checkpoint.companions);
    checkTokenizerFits(tokenizer, config.spec.vocabSize);
    return {
      checkpoint,
      config,
      weights: openWeights(config, checkpoint),
      tokenizer,
      defaults: await readGenerationDefaults(checkpoint.companions, config, tokenizer),
      [Symbol.asyncDispose]: () => checkpoint.close(),
    };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Reads a matrix and takes its codes out. */
export async function ternaryMatrix(
  { config, weights }: Weights,
  layer: number,
  name: LinearName,
): Promise<TernaryMatrix> {
  return codedMatrix(config, await weights.linear(layer, name));
}

/** The same source, whose reader is told of each matrix. */
export function observed(
  { config, weights }: Weights,
  onMatrix: (matrix: TernaryMatrix) => void,
): Weights {
  const linear: WeightSource["linear"] = async (layer, name, allocate) => {
    const found = await weights.linear(layer, name, allocate);
    onMatrix(codedMatrix(config, found));
    return found;
  };
  // A proxy, as the reader's private fields are those of its own class only.
  const observer = new Proxy(weights, {
    get(target, key) {
      if (key === "linear") return linear;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { config, weights: observer };
}

type Weights = Pick<Source, "config" | "weights">;

/** Takes the codes out of a matrix. */
export function codedMatrix(
  { spec }: ModelConfig,
  { matrix, what, scale, rowScales, groupScales, bias, inputNorm }: TernaryWeights,
): TernaryMatrix {
  const { n, k } = matrix;
  const rest = { what, n, k, bias, inputNorm, stored: matrix };
  if (matrix.exact) {
    const grain = spec.groups?.weightScales ? spec.groups.size : spec.rowScales ? "row" : "matrix";
    const factors = exactFactors(matrix, grain, what);
    const groupSize = typeof grain === "number" ? grain : k;
    return { ...rest, codes: signCodes(matrix), factors, groupSize };
  }
  const { codes, scale: found } = ternaryOf(matrix, what);
  if (groupScales !== undefined) {
    return { ...rest, codes, factors: groupScales, groupSize: spec.groups!.size };
  }
  return { ...rest, codes, factors: rowScales ?? Float32Array.of(scale ?? found!), groupSize: k };
}

/** Takes the codes out of an expert's matrix, which has a factor a row. */
export function codedExpert({ matrix, rowScales }: ExpertMatrix, what: string) {
  const { n, k } = matrix;
  const factors = rowScales ?? exactFactors(matrix, "row", what);
  return {
    what,
    n,
    k,
    codes: ternaryOf(matrix, what).codes,
    factors,
    groupSize: k,
    stored: matrix,
  };
}

/** Gives back what only this matrix has. */
export function freeMatrix({ codes, stored }: Pick<TernaryMatrix, "codes" | "stored">): void {
  free(codes, stored.bytes);
}

/** The factor of a weight. */
export function factorOf(
  { n, k, factors, groupSize }: Pick<TernaryMatrix, "n" | "k" | "factors" | "groupSize">,
  row: number,
  column: number,
): number {
  if (factors.length === 1) return factors[0];
  if (factors.length === n) return factors[row];
  return factors[row * Math.ceil(k / groupSize) + Math.floor(column / groupSize)];
}
