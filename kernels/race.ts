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
  /** What a model of the CPU says that it could do at best; absent where there is none. */
  macsPerCycle?: number;
}

/** Median and spread of one linear for a batch of tokens. */
export interface Measurement {
  /** Output features. */
  n: number;
  /** Input features. */
  k: number;
  /** Sequences of the batch. */
  tokens: number;
  /** Nanoseconds of one linear for the whole batch. */
  medianNs: number;
  /** Distance of the quartiles / median. */
  spread: number;
}

/** What the rounds say of one kernel. */
export interface Figures {
  /** Of the race that it took part in. */
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
  /** One a shape and number of tokens. */
  measurements: Measurement[];
}

/** One kernel in the race. Samples are nanoseconds of one linear: [work][round]. */
export class Contender {
  isOut = false;
  readonly #decode: number[][];
  /** Fewer rounds than of `decode`: it comes from the caches, and neighbours disturb it little. */
  readonly #prompt: number[][];
  /** Which of them is the latest, one a round. */
  readonly #promptOf: number[] = [];

  /** @param promptShare How often a prompt's token counts beside one generated token. */
  constructor(
    readonly kernel: TernaryKernel,
    readonly candidate: Candidate,
    private readonly works: readonly LinearWork[],
    private readonly promptShare: number,
  ) {
    this.#decode = works.map(() => []);
    this.#prompt = works.map(() => []);
  }

  get name(): string {
    return kernelName(this.kernel);
  }

  get rounds(): number {
    return this.#decode[0].length;
  }

  /** Measures one of the linears once for one token, and perhaps for a batch. */
  sample(work: number, withPrompt: boolean): void {
    this.#decode[work].push(this.candidate.timeNs(this.works[work], 1));
    if (work === 0) this.#promptOf.push(this.#prompt[0].length - (withPrompt ? 0 : 1));
    if (withPrompt) this.#prompt[work].push(this.candidate.timeNs(this.works[work], PROMPT_BATCH));
  }

  /** Forgets all samples. */
  restart(): void {
    for (const samples of [this.#promptOf, ...this.#decode, ...this.#prompt]) samples.length = 0;
  }

  /** Nanoseconds of a token with its share of the latest prompt, one a round. */
  scores(): number[] {
    const prompts = this.#prompts();
    return this.#sums(this.#decode).map((ns, round) =>
      ns + this.promptShare * prompts[this.#promptOf[round]]
    );
  }

  /** Scores / those of another one in the same rounds: what slows a round for both cancels out. */
  ratiosTo(other: Contender): number[] {
    const others = other.scores();
    return this.scores().slice(0, others.length).map((score, round) => score / others[round]);
  }

  /** Medians of all linears of one generated token, and of one token of a prompt. */
  times(): { decodeNs: number; promptNs: number } {
    return { decodeNs: median(this.#sums(this.#decode)), promptNs: median(this.#prompts()) };
  }

  /** All linears of one token of a prompt, one a round of those with prompts. */
  #prompts(): number[] {
    return this.#sums(this.#prompt).map((ns) => ns / PROMPT_BATCH);
  }

  /** All linears that a token goes through, one a round. */
  #sums(samples: readonly number[][]): number[] {
    return samples[0].map((_, round) =>
      this.works.reduce((sum, { perToken }, i) => sum + perToken * samples[i][round], 0)
    );
  }

  /** @param peaks Bytes a second, one a round. */
  figures(reference: Contender, peaks: readonly number[]): Figures {
    const ratios = this.ratiosTo(reference);
    const bytes = bytesPerToken(this.kernel.scheme.layout, this.works);
    const decodes = this.#sums(this.#decode);
    const { decodeNs, promptNs } = this.times();
    return {
      rounds: this.rounds,
      decodeNs,
      promptNs,
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

/** What is known of the quotient of two kernels. */
export interface Comparison {
  ratio: number;
  /** How far the ratio of many more rounds may lie from this one. */
  notch: number;
  /** Distance of the rounds' quartiles / the ratio. */
  spread: number;
}

/** One kernel's time / another one's. */
export function compare(one: Contender, other: Contender): Comparison {
  const ratios = one.ratiosTo(other);
  return { ratio: median(ratios), notch: notchOf(ratios), spread: spreadOf(ratios) };
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

/** Distance of the quartiles / median. */
export function spreadOf(values: readonly number[]): number {
  return quartileDistance(values) / median(values);
}

/**
 * How far the median of many more values may lie from that of these: medians of which neither comes
 * into the other's notch differ with about 95 % confidence (McGill, Tukey, Larsen 1978).
 */
export function notchOf(values: readonly number[]): number {
  return 1.57 * quartileDistance(values) / Math.sqrt(values.length);
}
