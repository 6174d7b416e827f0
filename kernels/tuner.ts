/**
 * Which of several kernels is best for a model on this machine: measured in interleaved rounds,
 * decided by ratios within a round, proved before it may win. What it asks of the machine is a
 * `Lab`, so that tests decide what is slow, wrong or broken.
 */
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { bytesPerToken, type LinearWork, weightsOf } from "../codegen/ternary_linear/work.ts";
import { CompileError } from "./compile.ts";
import { ProofError } from "./proof.ts";
import { type Candidate, compare, Contender, type Figures, median } from "./race.ts";

/**
 * Prompt tokens that count beside one generated token. Conversations have about half as many (means
 * of ShareGPT: 161 in, 338 out; of Alpaca: 19 in, 58 out; arXiv 2309.06180, section 6.1), as a chat's
 * history stays in the KV cache.
 */
export const PROMPT_TOKENS_PER_TOKEN = 0.5;

/** A kernel that wins by less than this is not worth packing the weights anew. */
export const LEAST_GAIN = 0.02;

/**
 * Part of the rounds' spread by which a kernel must be better, too: what a machine that is busy with
 * other things shows may be no more than how well a kernel bears interruptions.
 */
const DOUBT = 0.5;

/**
 * Rounds after which a kernel may be dropped, and decided upon. How many are needed is decided by
 * what is seen; `most` only ends what nothing else does.
 */
const ROUNDS = { toDrop: 5, toDecide: 11, most: 300 };

/** Rounds that measure prompts too: the first ones and every fourth. */
const PROMPT_ROUNDS = { first: 3, every: 4 };

/** Notches that two kernels must be apart, as they are compared after every round until they are. */
const CAUTION = 2;

/** Who is slower than the leader by this much, beyond doubt, is not measured any longer. */
const DROPPED_BEHIND = 0.05;

/** A bound is the memory peak's, which another moment may beat by this much. */
const PEAK_MARGIN = 1.05;

/** A model of the CPU may be wrong about the quotient of two kernels by this much. */
const MODEL_MARGIN = 1.3;

/** Part of the time that compiling may take: the rest is for measuring. */
const OPENING_SHARE = 0.7;

/** Compilers that run at once, as most machines have two cores or more. */
const COMPILERS = 2;

/** A machine to measure on. */
export interface Lab {
  /**
   * @throws {CompileError} If there is no such kernel.
   * @throws {BrokenKernelError} If it can't be run.
   * @throws The signal's reason.
   */
  open(kernel: TernaryKernel, signal: AbortSignal): Promise<Candidate>;
  /** Bytes a second that the team of threads reads from memory, now. Some kernel is open. */
  peakBytesPerSecond(): Promise<number>;
  nowMs(): number;
  /** Aborted after so long. */
  deadline(ms: number): AbortSignal;
  /** Lets signals in. */
  pause(): Promise<void>;
}

/** A kernel stops with a signal where it is run, whatever the CPU claims. */
export class BrokenKernelError extends Error {
  override readonly name = "BrokenKernelError";
}

export interface TuneTask {
  works: readonly LinearWork[];
  /** The one that is used untuned, then the others, the most likely first. */
  kernels: readonly TernaryKernel[];
  promptTokensPerToken: number;
}

export interface TuneLimits {
  budgetMs: number;
  signal?: AbortSignal;
  onProgress?: (message: string) => void;
}

/** `equal`: too near to the chosen one to matter; `pruned`: it could not have won. */
export type Outcome = "chosen" | "slower" | "equal" | "pruned" | "rejected" | "unmeasured";
export const OUTCOMES: readonly Outcome[] = [
  "chosen",
  "slower",
  "equal",
  "pruned",
  "rejected",
  "unmeasured",
];

/** What was found out about one kernel. */
export interface Finding {
  /** Such as avx512-lookup48. */
  kernel: string;
  /** How its weights lie. */
  layout: string;
  /** Of that layout. */
  bitsPerWeight: number;
  /** What became of it. */
  outcome: Outcome;
  /** In words, for a person. */
  why: string;
  /** Absent where nothing was measured. */
  figures?: Figures;
  /** Of the CPU's model, where there is one. */
  macsPerCycle?: number;
}

export interface Tuned {
  kernel: TernaryKernel;
  /** In words. */
  why: string;
  /** Bytes a second, the median of all rounds. */
  peakReadBytesPerSecond: number;
  /** In the order of the task. */
  findings: Finding[];
}

/**
 * Chooses a kernel.
 *
 * @returns Null if the time was up before anything could be said.
 * @throws The signal's reason.
 */
export async function tuneKernels(
  task: TuneTask,
  lab: Lab,
  limits: TuneLimits,
): Promise<Tuned | null> {
  const tuner = new Tuner(task, lab, limits);
  await tuner.open();
  await tuner.measure();
  return tuner.decide();
}

class Tuner {
  readonly #startedMs: number;
  readonly #contenders: Contender[] = [];
  readonly #findings = new Map<TernaryKernel, Finding>();
  /** Bytes a second, one a round. */
  readonly #peaks: number[] = [];
  /** Multiply-adds a cycle by a model of the CPU. */
  readonly #estimates = new Map<TernaryKernel, number>();
  /** What the default reached in the first round, before the others were there. */
  #alone = { peak: 0, scoreNs: 0, promptNs: 0 };

  constructor(
    private readonly task: TuneTask,
    private readonly lab: Lab,
    private readonly limits: TuneLimits,
  ) {
    this.#startedMs = lab.nowMs();
  }

  // -------------------------------------------------------------- opening

  /** The default first, as what it reaches says which of the others can't win. */
  async open(): Promise<void> {
    const opening = this.#openingSignal();
    const waiting = [...this.task.kernels];
    while (this.#contenders.length === 0 && waiting.length > 0) {
      await this.#openOne(waiting.shift()!, opening);
    }
    if (this.#contenders.length === 0) return;
    await this.#round();
    const { promptNs } = this.#default.times();
    this.#alone = { peak: this.#peaks[0], scoreNs: this.#default.scores()[0], promptNs };
    const compile = async () => {
      for (let kernel; (kernel = waiting.shift()) !== undefined;) {
        if (!this.#prune(kernel)) await this.#openOne(kernel, opening);
      }
    };
    await Promise.all(Array.from({ length: COMPILERS }, compile));
    this.#restart();
  }

  /** Aborted when the person stops, or when what is left of the time is for measuring. */
  #openingSignal(): AbortSignal {
    const deadline = this.lab.deadline(this.limits.budgetMs * OPENING_SHARE);
    const { signal } = this.limits;
    return signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  }

  async #openOne(kernel: TernaryKernel, opening: AbortSignal): Promise<void> {
    if (opening.aborted) return this.#passOver(kernel);
    this.#progress(`compiling ${kernelName(kernel)}`);
    try {
      const candidate = await this.lab.open(kernel, opening);
      const { works, promptTokensPerToken } = this.task;
      const { macsPerCycle } = candidate;
      if (macsPerCycle !== undefined) this.#estimates.set(kernel, macsPerCycle);
      if (this.#contenders.length > 0 && this.#prune(kernel)) return;
      this.#contenders.push(new Contender(kernel, candidate, works, promptTokensPerToken));
    } catch (error) {
      if (opening.aborted) return this.#passOver(kernel);
      if (!(error instanceof CompileError || error instanceof BrokenKernelError)) throw error;
      this.#find(kernel, "rejected", error.message.split("\n", 1)[0]);
    }
  }

  #passOver(kernel: TernaryKernel): void {
    this.limits.signal?.throwIfAborted();
    this.#find(kernel, "unmeasured", "the time was up before it was compiled");
  }

  /** Whether it can't be quicker than the default was when that was alone. */
  #prune(kernel: TernaryKernel): boolean {
    const readNs = bytesPerToken(kernel.scheme.layout, this.task.works) / this.#alone.peak * 1e9;
    const promptNs = this.task.promptTokensPerToken * this.#promptBound(kernel);
    if (readNs + promptNs <= this.#alone.scoreNs * PEAK_MARGIN) return false;
    const prompt = promptNs === 0
      ? ""
      : `, its prompts ${milliseconds(promptNs)} by the CPU's model`;
    const why = `its weights take ${milliseconds(readNs)} a token at the memory's peak${prompt}` +
      `, the default needs ${milliseconds(this.#alone.scoreNs)} for all`;
    this.#find(kernel, "pruned", why);
    return true;
  }

  /**
   * The least time of one token of a prompt: the default's, if the CPU's model is right about how
   * much slower this kernel is. 0 where there is no model.
   */
  #promptBound(kernel: TernaryKernel): number {
    const own = this.#estimates.get(kernel), other = this.#estimates.get(this.#default.kernel);
    if (own === undefined || other === undefined) return 0;
    return this.#alone.promptNs * other / own / MODEL_MARGIN;
  }

  // -------------------------------------------------------------- measuring

  async measure(): Promise<void> {
    if (this.#contenders.length === 0) return;
    for (let round = 1; round <= ROUNDS.most; round++) {
      this.#progress(`measuring ${this.#alive.length} kernels, round ${round}`);
      await this.lab.pause();
      this.limits.signal?.throwIfAborted();
      if (this.#isTimeUp()) return;
      await this.#round();
      if (round >= ROUNDS.toDrop) this.#drop();
      if (round >= ROUNDS.toDecide && this.#isClear()) return;
    }
  }

  get #alive(): Contender[] {
    return this.#contenders.filter(({ isOut }) => !isOut);
  }

  get #default(): Contender {
    return this.#contenders[0];
  }

  /**
   * All kernels by turns for each linear, so that they meet the same moments; another one begins each
   * time, so that nobody always comes after the same one.
   */
  async #round(): Promise<void> {
    this.#peaks.push(await this.lab.peakBytesPerSecond());
    const round = this.#peaks.length;
    const withPrompt = round <= PROMPT_ROUNDS.first || round % PROMPT_ROUNDS.every === 0;
    const alive = this.#alive;
    this.task.works.forEach((_, work) => {
      const first = (round + work) % alive.length;
      for (const contender of [...alive.slice(first), ...alive.slice(0, first)]) {
        contender.sample(work, withPrompt);
      }
    });
  }

  /** What was measured while nothing was there to compare it with does not count. */
  #restart(): void {
    this.#peaks.length = 0;
    this.#default.restart();
  }

  #drop(): void {
    const leader = this.#ranked(this.#alive)[0];
    for (const contender of this.#alive) {
      if (contender === leader || contender === this.#default) continue;
      const { ratio, notch } = compare(contender, leader);
      contender.isOut = ratio - notch > 1 + DROPPED_BEHIND;
    }
  }

  /** Whether more rounds would not change who leads, or by how little. */
  #isClear(): boolean {
    const [leader, ...others] = this.#ranked(this.#alive);
    return others.every((other) => {
      const { ratio, notch } = compare(other, leader);
      return ratio - CAUTION * notch > 1 || notch < LEAST_GAIN / 2;
    });
  }

  /** Time / the default's. */
  #ratio(contender: Contender): number {
    return compare(contender, this.#default).ratio;
  }

  #ranked(contenders: readonly Contender[]): Contender[] {
    return contenders.toSorted((a, b) => this.#ratio(a) - this.#ratio(b));
  }

  #isTimeUp(): boolean {
    return this.lab.nowMs() - this.#startedMs > this.limits.budgetMs;
  }

  // -------------------------------------------------------------- deciding

  decide(): Tuned | null {
    if (this.#peaks.length < ROUNDS.toDrop) return null;
    const ranked = this.#ranked(this.#contenders);
    const winner = this.#candidatesFor(ranked).find((contender) => this.#isProved(contender));
    if (winner === undefined) return null;
    const next = ranked.find((other) => other !== winner && !this.#findings.has(other.kernel));
    for (const contender of ranked) this.#tell(contender, winner, next);
    return {
      kernel: winner.kernel,
      why: this.#findings.get(winner.kernel)!.why,
      peakReadBytesPerSecond: median(this.#peaks),
      findings: this.task.kernels.map((kernel) => this.#findings.get(kernel)!),
    };
  }

  /** Who may win, best first: the default comes before those that gain too little over it. */
  #candidatesFor(ranked: readonly Contender[]): Contender[] {
    const better = ranked.filter((contender) => {
      const { ratio, notch, spread } = compare(contender, this.#default);
      return ratio <= 1 - Math.max(LEAST_GAIN, spread * DOUBT) && ratio + notch < 1;
    });
    return [...new Set([...better, this.#default, ...ranked])];
  }

  #isProved(contender: Contender): boolean {
    this.#progress(`proving ${contender.name}`);
    try {
      contender.candidate.prove();
      return true;
    } catch (error) {
      if (!(error instanceof ProofError)) throw error;
      this.#find(contender.kernel, "rejected", error.message, this.#figures(contender));
      return false;
    }
  }

  /** Says how a contender did, unless that was said already. */
  #tell(contender: Contender, winner: Contender, next: Contender | undefined): void {
    if (this.#findings.has(contender.kernel)) return;
    const figures = this.#figures(contender);
    if (contender === winner) {
      return this.#find(contender.kernel, "chosen", this.#reason(contender, next), figures);
    }
    const behind = figures.ratio / this.#ratio(winner) - 1;
    const outcome = behind < LEAST_GAIN ? "equal" : "slower";
    const why = `${signedPercent(behind)} time a token with its share of a prompt`;
    this.#find(contender.kernel, outcome, why, figures);
  }

  #reason(winner: Contender, next: Contender | undefined): string {
    const speed = (contender: Contender) =>
      `${(this.#figures(contender).weightsPerSecond / 1e9).toFixed(1)} G weights/s`;
    const against = next === undefined ? "" : `, ${next.name} ${speed(next)}`;
    const kept = winner === this.#default ? "no other was 2 % better: " : "";
    return `${kept}${speed(winner)}${against}`;
  }

  #figures(contender: Contender): Figures {
    return contender.figures(this.#default, this.#peaks);
  }

  #find(kernel: TernaryKernel, outcome: Outcome, why: string, figures?: Figures): void {
    const { layout } = kernel.scheme;
    const { works } = this.task;
    const macsPerCycle = this.#estimates.get(kernel);
    this.#findings.set(kernel, {
      kernel: kernelName(kernel),
      layout: layout.name,
      bitsPerWeight: bytesPerToken(layout, works) * 8 / weightsOf(works),
      outcome,
      why,
      ...(figures === undefined ? {} : { figures }),
      ...(macsPerCycle === undefined ? {} : { macsPerCycle }),
    });
  }

  #progress(message: string): void {
    this.limits.onProgress?.(message);
  }
}

function milliseconds(ns: number): string {
  return `${(ns / 1e6).toFixed(2)} ms`;
}

function signedPercent(share: number): string {
  return `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)} %`;
}
