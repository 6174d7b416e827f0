/**
 * How many tokens a step may have so that it does not last too long: whoever decodes waits for the
 * whole step, and who arrives or goes away is looked at between steps only.
 */

/** Longest step beside sequences that decode, and where only prompts are run, as far as one can foresee. */
const MOST_MS = { shared: 120, alone: 400 };
/** Tokens before a step of more than a few was measured. */
const FIRST_TOKENS = 64;
/** Steps of fewer tokens read weights rather than compute: they say nothing about longer ones. */
const LEAST_TOKENS = 16;
/** Share of a new measurement in the average. */
const NEW_SHARE = 0.3;

/** Ternary weights that a thread multiplies in a millisecond where many tokens share them: AVX2's rate. */
const WEIGHTS_PER_MS = 150e6;

/** Tokens that steps of a long prompt probably come to. */
export function likelyStepTokens(activeWeights: number, threads: number): number {
  const tokens = Math.floor(MOST_MS.alone * threads * WEIGHTS_PER_MS / activeWeights);
  return Math.max(FIRST_TOKENS, tokens);
}

export class StepPace {
  #msPerToken: number | null = null;

  record(tokens: number, ms: number): void {
    if (tokens < LEAST_TOKENS) return;
    const latest = ms / tokens;
    const before = this.#msPerToken ?? latest;
    this.#msPerToken = before + NEW_SHARE * (latest - before);
  }

  /**
   * Tokens of the coming step: a multiple of 16, and some always.
   *
   * @param decoding Sequences that decode in it.
   */
  tokens(decoding: number): number {
    if (this.#msPerToken === null) return FIRST_TOKENS + decoding;
    const most = (decoding > 0 ? MOST_MS.shared : MOST_MS.alone) / this.#msPerToken;
    const rounded = Math.floor(most / LEAST_TOKENS) * LEAST_TOKENS;
    return Math.max(rounded, decoding + LEAST_TOKENS);
  }
}
