/** The rope_scaling (or rope_parameters) section of a config.json. */
import type { ConfigReader } from "./config_reader.ts";
import { shown, UnsupportedModelError } from "./errors.ts";

/** Ways to stretch RoPE to longer contexts, under transformers' names. */
export type RopeScaling =
  | { ropeType: "linear"; factor: number }
  /** What each frequency is divided by: a GGUF file's rope_freqs.weight, not a type of transformers. */
  | { ropeType: "divisors"; divisors: readonly number[] }
  | {
    ropeType: "llama3";
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    originalMaxPositionEmbeddings: number;
  };

const MAX_FACTOR = 1e6;

/**
 * @param section Null when the config has none.
 * @returns Null when nothing is scaled.
 * @throws {UnsupportedModelError} If the kind is one that this version does not know.
 */
export function readRopeScaling(
  section: ConfigReader | null,
  maxPositionEmbeddings: number,
): RopeScaling | null {
  // Before transformers 4.45 the key was `type`.
  const ropeType = section?.string("rope_type") ?? section?.string("type") ?? "default";
  if (section === null || ropeType === "default") return null;
  if (ropeType === "linear") return { ropeType, factor: section.number("factor", 1, MAX_FACTOR) };
  if (ropeType === "divisors") return { ropeType, divisors: readDivisors(section) };
  if (ropeType === "llama3") return readLlama3(section, maxPositionEmbeddings);
  throw new UnsupportedModelError(
    `Cannot run this model: rope_scaling of type ${shown(ropeType)} is not known: ` +
      "this version has linear and llama3",
  );
}

function readDivisors(section: ConfigReader): number[] {
  const divisors = section.get("divisors");
  const isSound = Array.isArray(divisors) &&
    divisors.every((divisor) => typeof divisor === "number" && divisor > 0);
  return isSound ? divisors as number[] : section.fail("divisors", "positive numbers", divisors);
}

function readLlama3(section: ConfigReader, maxPositionEmbeddings: number): RopeScaling {
  const lowFreqFactor = section.number("low_freq_factor", 1e-6, MAX_FACTOR);
  const highFreqFactor = section.number("high_freq_factor", 1e-6, MAX_FACTOR);
  if (highFreqFactor <= lowFreqFactor) {
    section.fail("high_freq_factor", `above low_freq_factor ${lowFreqFactor}`, highFreqFactor);
  }
  return {
    ropeType: "llama3",
    factor: section.number("factor", 1, MAX_FACTOR),
    lowFreqFactor,
    highFreqFactor,
    originalMaxPositionEmbeddings: section.count(
      "original_max_position_embeddings",
      2 ** 31 - 1,
      maxPositionEmbeddings,
    ),
  };
}
