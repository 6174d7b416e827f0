/** The model that is converted, opened. */
import { type FloatType, type LinearName, linearShape } from "../../codegen/model_spec.ts";
import type { StoredMatrix } from "../../codegen/pack/stored.ts";
import { type Checkpoint, openCheckpoint } from "../checkpoint.ts";
import { openWeights } from "../checkpoint_weights.ts";
import { type ConfigOptions, type ModelConfig, readModelConfig } from "../config.ts";
import { exactFactors, type Grain } from "../exact_ternary.ts";
import { toFloat32 } from "../float_formats.ts";
import { readGenerationDefaults } from "../generation_config.ts";
import { grainOfQuantization } from "../quantization.ts";
import { ternaryOf } from "../ternary.ts";
import { checkTokenizerFits, readTokenizer, type StreamingTokenizer } from "../tokenizer.ts";
import type { GenerationDefaults } from "../types.ts";
import type { WeightSource } from "../weights.ts";

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
export async function openSource(path: string, options: ConfigOptions = {}): Promise<Source> {
  const checkpoint = await openCheckpoint(path);
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
  { config: { spec, quantization }, weights }: Pick<Source, "config" | "weights">,
  layer: number,
  name: LinearName,
): Promise<TernaryMatrix> {
  const { n, k } = linearShape(spec, name);
  const { matrix, what, scale, rowScales, groupScales, bias, inputNorm } = await weights.linear(
    layer,
    name,
  );
  const rest = { what, n, k, bias, inputNorm, stored: matrix };
  if (matrix.exact && quantization.kind === "ternary") {
    const grain = grainOfQuantization(quantization);
    const factors = exactFactors(matrix, grain, what);
    return { ...rest, codes: signCodes(matrix), factors, groupSize: groupSizeOf(grain, k) };
  }
  const { codes, scale: found } = ternaryOf(matrix, what);
  const shape = { ...rest, codes };
  if (groupScales !== undefined) {
    return { ...shape, factors: groupScales, groupSize: spec.groups!.size };
  }
  return { ...shape, factors: rowScales ?? Float32Array.of(scale ?? found!), groupSize: k };
}

/** Codes of floats that are ternary as they stand. */
function signCodes({ kind, bytes }: StoredMatrix): Uint8Array {
  const values = toFloat32(bytes, kind as FloatType);
  return Uint8Array.from(values, (value) => 1 + Math.sign(value));
}

function groupSizeOf(grain: Grain, k: number): number {
  return typeof grain === "number" ? grain : k;
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
