/** The rope_scaling (or rope_parameters) section of a config.json. */
import type { ConfigReader } from "./config_reader.ts";
import { shown, UnsupportedModelError } from "./errors.ts";
import { exactLog } from "./exact_math.ts";

/** Ways to stretch RoPE to longer contexts, under transformers' names. */
export type RopeScaling =
  | { ropeType: "linear"; factor: number }
  | {
    ropeType: "llama3";
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    originalMaxPositionEmbeddings: number;
  }
  | {
    ropeType: "yarn";
    factor: number;
    /** Waves that turn more often than this in the original context are kept. */
    betaFast: number;
    /** Those that turn less often than this are stretched; between, a mixture. */
    betaSlow: number;
    /** Whether the borders in between are whole pairs of features. */
    truncate: boolean;
    originalMaxPositionEmbeddings: number;
    /** Cosines and sines are multiplied by this, and so scores by its square. */
    attentionFactor: number;
  }
  | {
    ropeType: "longrope";
    /** What the frequencies of the original context are divided by. */
    shortFactor: readonly number[];
    originalMaxPositionEmbeddings: number;
    attentionFactor: number;
  }
  /** What each frequency is divided by: a GGUF file's rope_freqs.weight, not a type of transformers. */
  | { ropeType: "divisors"; divisors: readonly number[] };

const MAX_FACTOR = 1e6;
const MAX_POSITIONS = 2 ** 31 - 1;

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
  switch (ropeType) {
    case "linear":
      return { ropeType, factor: section.number("factor", 1, MAX_FACTOR) };
    case "llama3":
      return readLlama3(section, maxPositionEmbeddings);
    case "yarn":
      return readYarn(section, maxPositionEmbeddings);
    case "longrope":
    case "su":
      return readLongRope(section, maxPositionEmbeddings);
    case "divisors":
      return { ropeType, divisors: section.numbers("divisors", 1e-6, MAX_FACTOR) };
  }
  throw new UnsupportedModelError(
    `Cannot run this model: rope_scaling of type ${shown(ropeType)} is not known: ` +
      "this version has linear, llama3, yarn and longrope",
  );
}

function readOriginal(section: ConfigReader, maxPositionEmbeddings: number): number {
  return section.count("original_max_position_embeddings", MAX_POSITIONS, maxPositionEmbeddings);
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
    originalMaxPositionEmbeddings: readOriginal(section, maxPositionEmbeddings),
  };
}

/** Source: arXiv 2309.00071; transformers' _compute_yarn_parameters. */
function readYarn(section: ConfigReader, maxPositionEmbeddings: number): RopeScaling {
  const original = readOriginal(section, maxPositionEmbeddings);
  const factor = section.number("factor", 1, MAX_FACTOR, maxPositionEmbeddings / original);
  const betaFast = section.number("beta_fast", 1e-6, MAX_FACTOR, 32);
  const betaSlow = section.number("beta_slow", 1e-6, MAX_FACTOR, 1);
  if (betaFast <= betaSlow) section.fail("beta_fast", `above beta_slow ${betaSlow}`, betaFast);
  return {
    ropeType: "yarn",
    factor,
    betaFast,
    betaSlow,
    truncate: section.flag("truncate", true),
    originalMaxPositionEmbeddings: original,
    attentionFactor: section.number(
      "attention_factor",
      1e-6,
      MAX_FACTOR,
      yarnAttention(section, factor),
    ),
  };
}

/** 0.1 ln(factor) + 1, or the ratio of two such with weights of their own. */
function yarnAttention(section: ConfigReader, factor: number): number {
  const weight = (key: string) => section.has(key) ? section.number(key, 0, MAX_FACTOR) : 0;
  const scale = (share: number) => factor <= 1 ? 1 : 0.1 * share * exactLog(factor) + 1;
  const [all, own] = [weight("mscale_all_dim"), weight("mscale")];
  return all > 0 && own > 0 ? scale(own) / scale(all) : scale(1);
}

/**
 * The divisors of the original context. Those for longer ones are other models' in effect: they
 * change the keys of all positions, so that a running text could not get there.
 *
 * Source: arXiv 2402.13753; transformers' _compute_longrope_parameters.
 */
function readLongRope(section: ConfigReader, maxPositionEmbeddings: number): RopeScaling {
  const original = readOriginal(section, maxPositionEmbeddings);
  const factor = section.number("factor", 1e-6, MAX_FACTOR, maxPositionEmbeddings / original);
  const attention = factor <= 1 ? 1 : Math.sqrt(1 + exactLog(factor) / exactLog(original));
  return {
    ropeType: "longrope",
    shortFactor: section.numbers("short_factor", 1e-6, MAX_FACTOR),
    originalMaxPositionEmbeddings: original,
    attentionFactor: section.number("attention_factor", 1e-6, MAX_FACTOR, attention),
  };
}
