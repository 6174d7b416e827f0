/** Kernels measured against each other: samples round by round, and what they say. */
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { bytesPerToken, type LinearWork, weightsOf } from "../codegen/ternary_linear/work.ts";

/** Tokens of a batch of a prompt: every tile's best, and few enough to measure quickly. */
export const PROMPT_BATCH = 64;

/** A kernel that is compiled, loaded and has run once without a crash. */
export interface Candidate {
  /** Nanoseconds of one run of a linear for a batch of tokens; weights of one token come from memory. */
  timeNs(work: LinearWork, tokens: number): number;
  /** Compares every linear with the reference. @throws {ProofError} If a sum is wrong. */
  prove(): void;
}

/** Median and spread of one linear for a batch of tokens. */
export interface Measurement {
  n: number;
  k: number;
  tokens: number;
  /** Nanoseconds of one linear for the whole batch. */
  medianNs: number;
  /** Distance of the quartiles / median. */
  spread: number;
}

/** What the rounds say of one kernel. */
export interface Figures {
  rounds: number;
  /** All ternary linears of one generated token. */
  decodeNs: number;
  /** All ternary linears of one token of a prompt. */
  promptNs: number;
  /** A token with its share of a prompt / that of the default in the same round: the median. */
  ratio: number;
  /** Distance of the ratio's quartiles / its median. */
  spread: number;
  /** Of decode. */
  weightsPerSecond: number;
  /** Bytes a second of decode / the peak of the same round: the median. */
  peakFraction: number;
  measurements: Measurement[];
}

/** One kernel in the race. */
export class Contender {
  isOut = false;
  /** Nanoseconds of a token and its share of a prompt, one a round. */
  readonly scores: number[] = [];
  /** Nanoseconds of one linear: [work][round]. */
  readonly #decode: number[][];
  readonly #prompt: number[][];

  constructor(
    readonly kernel: TernaryKernel,
    readonly candidate: Candidate,
    private readonly works: readonly LinearWork[],
  ) {
    this.#decode = works.map(() => []);
    this.#prompt = works.map(() => []);
  }

  get name(): string {
    return kernelName(this.kernel);
  }

  /** Measures one of the linears once. */
  sample(work: number): void {
    this.#decode[work].push(this.candidate.timeNs(this.works[work], 1));
    this.#prompt[work].push(this.candidate.timeNs(this.works[work], PROMPT_BATCH));
  }

  /** Ends a round in which each linear was measured; a prompt's token counts `promptShare` times. */
  endRound(promptShare: number): void {
    const round = this.scores.length;
    const prompt = this.#sum(this.#prompt, round) / PROMPT_BATCH;
    this.scores.push(this.#sum(this.#decode, round) + promptShare * prompt);
  }

  /** Forgets all samples. */
  restart(): void {
    for (const samples of [this.scores, ...this.#decode, ...this.#prompt]) samples.length = 0;
  }

  /** Scores / those of another one in the same rounds: what slows a round for both cancels out. */
  ratiosTo(other: Contender): number[] {
    return this.scores.map((score, round) => score / other.scores[round]);
  }

  /** @param peaks Bytes a second, one a round. */
  figures(reference: Contender, peaks: readonly number[]): Figures {
    const ratios = this.ratiosTo(reference);
    const bytes = bytesPerToken(this.kernel.scheme.layout, this.works);
    const decodes = this.scores.map((_, round) => this.#sum(this.#decode, round));
    const decodeNs = median(decodes);
    return {
      rounds: this.scores.length,
      decodeNs,
      promptNs: median(this.scores.map((_, round) => this.#sum(this.#prompt, round))) /
        PROMPT_BATCH,
      ratio: median(ratios),
      spread: spreadOf(ratios),
      weightsPerSecond: weightsOf(this.works) / (decodeNs / 1e9),
      peakFraction: median(decodes.map((ns, round) => bytes / (ns / 1e9) / peaks[round])),
      measurements: [
        ...this.#measurements(this.#decode, 1),
        ...this.#measurements(this.#prompt, PROMPT_BATCH),
      ],
    };
  }

  #sum(samples: readonly number[][], round: number): number {
    return this.works.reduce((sum, { perToken }, i) => sum + perToken * samples[i][round], 0);
  }

  #measurements(samples: readonly number[][], tokens: number): Measurement[] {
    return this.works.map(({ n, k }, i) => ({
      n,
      k,
      tokens,
      medianNs: median(samples[i]),
      spread: spreadOf(samples[i]),
    }));
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Between the two nearest values; NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)], high = sorted[Math.ceil(at)];
  return low + (high - low) * (at - Math.floor(at));
}

function quartileDistance(values: readonly number[]): number {
  return quantile(values, 0.75) - quantile(values, 0.25);
}

function spreadOf(values: readonly number[]): number {
  return quartileDistance(values) / median(values);
}

/**
 * How far the median of many more values may lie from that of these: medians of which neither comes
 * into the other's notch differ with about 95 % confidence (McGill, Tukey, Larsen 1978).
 */
export function notchOf(values: readonly number[]): number {
  return 1.57 * quartileDistance(values) / Math.sqrt(values.length);
}
