import type { TernaryLayout } from "../layouts/layout.ts";
import {
  expertShapes,
  type Groups,
  layerLinears,
  type LinearName,
  linearShape,
  type ModelSpec,
  type Shape,
} from "../model_spec.ts";
import { factorBytes } from "./groups.ts";

/** Linears of one shape that a token goes through, in all layers together. */
export interface LinearWork extends Shape {
  /** How many there are. */
  perToken: number;
  /** True if an input is made for each of them; false if they read what was made for another one. */
  makesInput: boolean;
  /** What their inputs are rounded by; the same for all linears of a model. */
  groups?: Groups;
}

/** Linears that read the same input, which is made once. */
const GROUPS: readonly (readonly LinearName[])[] = [
  ["q", "k", "v"],
  ["o"],
  ["gate", "up"],
  ["down"],
];

/** All linears that a token goes through, by shape, in the order of a layer. */
export function linearWork(spec: ModelSpec): LinearWork[] {
  const works = new Map<string, LinearWork>();
  for (const { n, k, makesInput, perToken } of layerWork(spec)) {
    const key = `${n}x${k} ${makesInput}`;
    const before = works.get(key)?.perToken ?? 0;
    works.set(key, { n, k, makesInput, perToken: before + perToken * spec.numHiddenLayers });
  }
  const { groups } = spec;
  return [...works.values()].map((work) => groups === undefined ? work : { ...work, groups });
}

function layerWork(spec: ModelSpec): LinearWork[] {
  const every = layerLinears(spec);
  const linears = GROUPS.flatMap((group) =>
    group.filter((name) => every.includes(name)).map((name, i) => ({
      ...linearShape(spec, name),
      makesInput: i === 0 || spec.linearNormEps !== null,
      perToken: 1,
    }))
  );
  return [...linears, ...expertWork(spec)];
}

/** Picked experts read one input, and each makes one for its own down matrix. */
function expertWork(spec: ModelSpec): LinearWork[] {
  if (spec.experts === undefined) return [];
  const { numExpertsPerTok } = spec.experts;
  const [gateUp, down] = expertShapes(spec);
  return [
    { ...gateUp, makesInput: true, perToken: 1 },
    { ...gateUp, makesInput: false, perToken: numExpertsPerTok - 1 },
    { ...down, makesInput: true, perToken: numExpertsPerTok },
  ].filter(({ perToken }) => perToken > 0);
}

/** Weights that a token is multiplied by. */
export function weightsOf(works: readonly LinearWork[]): number {
  return works.reduce((sum, { n, k, perToken }) => sum + n * k * perToken, 0);
}

/** Bytes of packed weights, and factors of their groups, that a token reads. */
export function bytesPerToken(layout: TernaryLayout, works: readonly LinearWork[]): number {
  return works.reduce((sum, { n, k, groups, perToken }) => {
    return sum + (layout.packedBytes(n, k) + factorBytes(groups, { n, k })) * perToken;
  }, 0);
}
