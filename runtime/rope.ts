/**
 * RoPE tables: cos and sin of position * inverse frequency, rounded as transformers rounds them
 * with float32 tensors, and with the same bits in every JavaScript engine (see `exact_math.ts`).
 *
 * Sources: arXiv 2104.09864; transformers' modeling_rope_utils.py.
 */
import { type ModelSpec, rotaryDim } from "../codegen/model_spec.ts";
import type { RopeTables } from "../codegen/step/reference.ts";
import type { ModelConfig } from "./config.ts";
import { exactPow, exactSinCos, MAX_ANGLE } from "./exact_math.ts";
import type { RopeScaling } from "./rope_scaling.ts";

/** (positions, rotaryDim / 2) each, row-major. Feature i turns together with i + rotaryDim / 2. */
export type { RopeTables };

/** What the tables need of a ModelConfig. */
export type RopeConfig = Pick<ModelConfig, "ropeTheta" | "ropeScaling"> & {
  spec: Pick<ModelSpec, "headDim" | "rotaryDim">;
};

const f = Math.fround;
const TWO_PI = f(6.283185307179586);

/** @throws {RangeError} If the last position's largest angle is beyond 2^20 radians. */
export function ropeTables(config: RopeConfig, positions: number): RopeTables {
  const frequencies = inverseFrequencies(config);
  checkPositions(positions, frequencies);
  const half = frequencies.length;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const turned = exactSinCos(f(frequencies[i] * position));
      cos[position * half + i] = turned.cos;
      sin[position * half + i] = turned.sin;
    }
  }
  return { cos, sin };
}

function checkPositions(positions: number, frequencies: Float32Array): void {
  const isCount = Number.isSafeInteger(positions) && positions >= 0;
  const fastest = frequencies.reduce((a, b) => Math.max(a, b), 0);
  if (isCount && positions * fastest <= MAX_ANGLE) return;
  throw new RangeError(
    `Cannot make RoPE tables as positions must be an integer from 0 to ${MAX_ANGLE}: ` +
      `current value is ${positions}`,
  );
}

/** Radians per position of each of the rotaryDim / 2 pairs of features. */
export function inverseFrequencies({ ropeTheta, ropeScaling, spec }: RopeConfig): Float32Array {
  const theta = f(ropeTheta);
  const features = rotaryDim(spec);
  const frequencies = new Float32Array(features / 2);
  for (let i = 0; i < frequencies.length; i++) {
    const exponent = f(2 * i / features);
    frequencies[i] = scaled(f(1 / f(exactPow(theta, exponent))), ropeScaling, i);
  }
  return frequencies;
}

function scaled(frequency: number, scaling: RopeScaling | null, i: number): number {
  if (scaling === null) return frequency;
  if (scaling.ropeType === "divisors") return f(frequency / f(scaling.divisors[i]));
  if (scaling.ropeType === "linear") return f(frequency / f(scaling.factor));
  return scaledLlama3(frequency, scaling);
}

/** Long waves are stretched by `factor`, short ones kept, those between interpolated. */
function scaledLlama3(
  frequency: number,
  scaling: Extract<RopeScaling, { ropeType: "llama3" }>,
): number {
  const { lowFreqFactor: low, highFreqFactor: high } = scaling;
  const original = scaling.originalMaxPositionEmbeddings;
  const factor = f(scaling.factor);
  // PyTorch divides a number by a tensor as reciprocal times number: two roundings.
  const wavelength = f(f(1 / frequency) * TWO_PI);
  if (wavelength > f(original / low)) return f(frequency / factor);
  if (wavelength < f(original / high)) return frequency;
  const ratio = f(f(1 / wavelength) * f(original));
  const smooth = f(f(ratio - f(low)) / f(high - low));
  const stretched = f(f(f(1 - smooth) * frequency) / factor);
  return f(stretched + f(smooth * frequency));
}

/** cos then sin in one array, as native models take them; then those of sliding layers. */
export function joinedTables({ cos, sin, local }: RopeTables): Float32Array {
  const parts = [cos, sin, ...(local === undefined ? [] : [local.cos, local.sin])];
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
