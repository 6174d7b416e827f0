/**
 * RoPE tables: cos and sin of position * inverse frequency, rounded as transformers rounds them
 * with float32 tensors, and with the same bits in every JavaScript engine (see `exact_math.ts`).
 *
 * Sources: arXiv 2104.09864; transformers' modeling_rope_utils.py.
 */
import { type ModelSpec, rotaryDim } from "../codegen/model_spec.ts";
import type { RopeTables } from "../codegen/step/reference.ts";
import type { ModelConfig } from "./config.ts";
import type { Rope } from "./models/architecture.ts";
import { exactLog, exactPow, exactSinCos, MAX_ANGLE } from "./exact_math.ts";
import type { RopeScaling } from "./rope_scaling.ts";

/** (positions, rotaryDim / 2) each, row-major. Feature i turns together with i + rotaryDim / 2. */
export type { RopeTables };

/** What the tables need of a ModelConfig. */
export type RopeConfig = Pick<ModelConfig, "ropeTheta" | "ropeScaling"> & {
  spec: Pick<ModelSpec, "headDim" | "rotaryDim" | "sliding">;
  /** The table of sliding layers, where they have one; absent: the same. */
  localRope?: Rope | null;
};

/** One table's share of that. */
type TableConfig = Rope & { spec: RopeConfig["spec"] };

const f = Math.fround;
const TWO_PI = f(6.283185307179586);

/**
 * @throws {RangeError} If the last position's largest angle is beyond 2^20 radians, or the model's
 *   frequencies are for fewer positions.
 */
export function ropeTables(config: RopeConfig, positions: number): RopeTables {
  const tables = tablesOf(config, positions);
  if (!config.spec.sliding?.localRope) return tables;
  const local = config.localRope ?? config;
  return { ...tables, local: tablesOf({ ...local, spec: config.spec }, positions) };
}

function tablesOf(config: TableConfig, positions: number): RopeTables {
  const frequencies = inverseFrequencies(config);
  checkPositions(positions, frequencies, config.ropeScaling);
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
  const factor = attentionFactor(config.ropeScaling);
  if (factor === 1) return { cos, sin };
  return { cos: cos.map((value) => value * factor), sin: sin.map((value) => value * factor) };
}

/** What cosines and sines are multiplied by, a float32. */
export function attentionFactor(scaling: RopeScaling | null): number {
  return scaling !== null && "attentionFactor" in scaling ? f(scaling.attentionFactor) : 1;
}

function checkPositions(
  positions: number,
  frequencies: Float32Array,
  scaling: RopeScaling | null,
): void {
  const most = scaling?.ropeType === "longrope" ? scaling.originalMaxPositionEmbeddings : Infinity;
  if (positions > most) {
    throw new RangeError(
      `Cannot make RoPE tables as this model's are for ${most} positions: current value is ` +
        `${positions}, use a smaller --ctx`,
    );
  }
  const isCount = Number.isSafeInteger(positions) && positions >= 0;
  const fastest = frequencies.reduce((a, b) => Math.max(a, b), 0);
  if (isCount && positions * fastest <= MAX_ANGLE) return;
  throw new RangeError(
    `Cannot make RoPE tables as positions must be an integer from 0 to ${MAX_ANGLE}: ` +
      `current value is ${positions}`,
  );
}

/** Radians per position of each of the rotaryDim / 2 pairs of features. */
export function inverseFrequencies({ ropeTheta, ropeScaling, spec }: TableConfig): Float32Array {
  const theta = f(ropeTheta);
  const features = rotaryDim(spec);
  const powers = Float32Array.from(
    { length: features / 2 },
    (_, i) => exactPow(theta, f(2 * i / features)),
  );
  if (ropeScaling?.ropeType === "longrope") {
    return powers.map((power, i) => 1 / f(f(ropeScaling.shortFactor[i]) * power));
  }
  if (ropeScaling?.ropeType === "yarn") return yarnFrequencies(powers, ropeTheta, ropeScaling);
  return powers.map((power, i) => scaled(f(1 / power), ropeScaling, i));
}

function scaled(
  frequency: number,
  scaling: Extract<RopeScaling, { ropeType: "linear" | "llama3" | "divisors" }> | null,
  i: number,
): number {
  if (scaling === null) return frequency;
  if (scaling.ropeType === "divisors") return f(frequency / f(scaling.divisors[i]));
  if (scaling.ropeType === "linear") return f(frequency / f(scaling.factor));
  return scaledLlama3(frequency, scaling);
}

type Yarn = Extract<RopeScaling, { ropeType: "yarn" }>;

/** Short waves are kept, long ones stretched by `factor`, with a ramp over the pairs between. */
function yarnFrequencies(powers: Float32Array, theta: number, scaling: Yarn): Float32Array {
  const [first, last] = yarnBorders(2 * powers.length, theta, scaling);
  return powers.map((power, i) => {
    const ramp = f(Math.min(Math.max(f(f(i - first) / f(last - first)), 0), 1));
    const kept = f(1 - ramp);
    const stretched = f(1 / f(f(scaling.factor) * power));
    return f(stretched * f(1 - kept)) + f(f(1 / power) * kept);
  });
}

/** The pairs of features between which the ramp lies. */
function yarnBorders(features: number, theta: number, scaling: Yarn): [number, number] {
  const { originalMaxPositionEmbeddings: original, truncate } = scaling;
  const pairOf = (turns: number) =>
    features * exactLog(original / (turns * 2 * Math.PI)) / (2 * exactLog(theta));
  const [low, high] = [pairOf(scaling.betaFast), pairOf(scaling.betaSlow)];
  const first = Math.max(truncate ? Math.floor(low) : low, 0);
  const last = Math.min(truncate ? Math.ceil(high) : high, features - 1);
  return [first, first === last ? last + 0.001 : last];
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
