/** What of a sampler the caller says, and what the model's authors advise for the rest. */
import type { GenerationDefaults, SamplerOptions } from "./types.ts";

/** What decides how bold the choice of a token is; the others only say what is repeated. */
const SHAPE_OPTIONS = ["temperature", "topK", "topP", "minP", "typicalP"] as const;

const SAMPLER_OPTIONS = [
  ...SHAPE_OPTIONS,
  "repeatPenalty",
  "presencePenalty",
  "frequencyPenalty",
  "penaltyLastN",
  "logitBias",
  "seed",
] as const;

/**
 * The sampler that a caller and the model's advice make together. The model advises to sample: its
 * advice fills in what the caller leaves open. It does not: the most likely token is taken, unless the
 * caller names an option that shapes the choice.
 *
 * @param given May have other fields, which are left out.
 */
export function samplerOptionsOf(
  given: SamplerOptions,
  defaults: GenerationDefaults,
): SamplerOptions {
  const own = pick(given, SAMPLER_OPTIONS);
  const hasShape = SHAPE_OPTIONS.some((name) => given[name] !== undefined);
  const advised = pick(defaults, [...SHAPE_OPTIONS, "repeatPenalty"]);
  if (defaults.doSample) return { ...advised, ...own };
  const penalties = pick(defaults, ["repeatPenalty"]);
  return hasShape ? { ...penalties, ...own } : { temperature: 0, ...penalties, ...own };
}

function pick<T extends object, K extends keyof T>(from: T, names: readonly K[]): Pick<T, K> {
  const picked = {} as Pick<T, K>;
  for (const name of names) if (from[name] !== undefined) picked[name] = from[name];
  return picked;
}
