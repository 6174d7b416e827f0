/**
 * Self-speculation: the tokens that followed when a sequence's last tokens stood somewhere before
 * are run together with the next token. Those that the sampler then draws anyway have saved a step
 * each; the first that it does not draw, and those after it, are forgotten. So nothing but the
 * speed depends on any of this.
 */
import { NgramIndex, type Repetition } from "./ngram_index.ts";
import type { HeadKind } from "./types.ts";

/** Most tokens that are drafted at once. */
export const MOST_DRAFT_TOKENS = 15;

/** "auto": as many as pay; "off": none; a number: that many whenever there is something to draft. */
export type SpeculateChoice = "auto" | "off" | number;

/** Guesses of the tokens that come next. */
export interface Draft {
  ids: readonly number[];
  /** chances[i]: that ids[0] to ids[i] all come true. Never rises. */
  chances: readonly number[];
  /** All of them are to be run, whether that pays or not. */
  isFixed: boolean;
}

/** @throws {RangeError} If `choice` is neither a word nor a number of tokens that can be drafted. */
export function checkSpeculate(choice: SpeculateChoice | undefined): void {
  if (choice === undefined || choice === "auto" || choice === "off") return;
  if (Number.isInteger(choice) && choice >= 1 && choice <= MOST_DRAFT_TOKENS) return;
  throw new RangeError(
    `Cannot speculate as speculate must be auto, off or a whole number from 1 to ${MOST_DRAFT_TOKENS}` +
      `: current value is ${choice}`,
  );
}

/**
 * Chance of a guess before anything is known, by the length of the repetition that made it. 0 is
 * for the tokens after one that broke a repetition: the text may go on as if it had been there.
 */
const FIRST_CHANCES = [0.2, 0.2, 0.2, 0.4, 0.55, 0.65, 0.7, 0.75, 0.8];
/** How many guesses' experience these are worth. */
const FIRST_WEIGHT = 4;
/** Old experience fades: a guess counts half after some 30 others. */
const FADING = 0.977;
/** Drafts end where it gets less likely than this that they are still right. */
const LEAST_CHANCE = 0.02;

/** How often the guesses of each length of repetition came true. */
class Experience {
  readonly #weights = new Float64Array(FIRST_CHANCES.length).fill(FIRST_WEIGHT);
  readonly #hits = Float64Array.from(FIRST_CHANCES, (chance) => chance * FIRST_WEIGHT);

  add(length: number, isRight: boolean): void {
    const row = rowOf(length);
    this.#weights[row] = this.#weights[row] * FADING + 1;
    this.#hits[row] = this.#hits[row] * FADING + (isRight ? 1 : 0);
  }

  chance(length: number): number {
    const row = rowOf(length);
    return this.#hits[row] / this.#weights[row];
  }
}

function rowOf(length: number): number {
  return Math.min(length, FIRST_CHANCES.length - 1);
}

/**
 * Drafts for one sequence. It guesses every token, drafted or not, and so knows how good its
 * guesses are without running any.
 */
export class Drafter {
  /** Tokens that were run as drafts, and those of them that came true. */
  draftTokens = 0;
  acceptedTokens = 0;
  readonly #index: NgramIndex;
  readonly #experience = new Experience();
  #repetition: Repetition | null = null;

  /**
   * @param history The sequence, not a copy: whoever adds to it calls `grown` for each token.
   * @param mostTokens As long as it may become.
   */
  constructor(
    private readonly history: readonly number[],
    mostTokens: number,
    private readonly choice: "auto" | number,
  ) {
    this.#index = new NgramIndex(history, mostTokens);
    this.#repetition = this.#index.find();
  }

  /** The history has one more token. */
  grown(): void {
    const { history } = this;
    const last = this.#repetition;
    if (last === null) {
      this.#repetition = this.#index.find();
      return;
    }
    const isRight = history[last.next] === history[history.length - 1];
    this.#experience.add(last.length, isRight);
    const next = last.next + 1;
    // One other token in a copy: until its end is found again, go on behind the copied one.
    const resumed = isRight || last.length > 0 ? { next, length: isRight ? 1 : 0 } : null;
    this.#repetition = this.#index.find(next) ?? resumed;
  }

  /** At most `most` guesses; null without any. */
  draft(most: number): Draft | null {
    const count = Math.min(most, this.choice === "auto" ? MOST_DRAFT_TOKENS : this.choice);
    if (this.#repetition === null || count < 1) return null;
    return this.choice === "auto"
      ? this.#likely(this.#repetition, count)
      : this.#fixed(this.#repetition, count);
  }

  #likely(repetition: Repetition, count: number): Draft | null {
    const chances: number[] = [];
    let chance = 1;
    for (let i = 0; i < count; i++) {
      chance *= this.#experience.chance(repetition.length + i);
      if (chance < LEAST_CHANCE) break;
      chances.push(chance);
    }
    if (chances.length === 0) return null;
    return { ids: this.#following(repetition.next, chances.length), chances, isFixed: false };
  }

  #fixed({ next }: Repetition, count: number): Draft {
    const ids = this.#following(next, count);
    return { ids, chances: ids.map(() => 1), isFixed: true };
  }

  /** The tokens from `next` on; past the sequence's end the guesses themselves go on. */
  #following(next: number, count: number): number[] {
    const ids: number[] = [];
    for (let at = next; ids.length < count; at++) {
      ids.push(at < this.history.length ? this.history[at] : ids[at - this.history.length]);
    }
    return ids;
  }

  /** How many tokens of a draft were run, and how many came true. */
  settle(run: number, accepted: number): void {
    this.draftTokens += run;
    this.acceptedTokens += accepted;
  }
}

/** Most tokens of a step that has drafts. */
export const MOST_STEP_TOKENS = MOST_DRAFT_TOKENS + 1;
/** Measurements of each step size that its median is of. */
const KEPT_TIMES = 5;
/** Steps after which a measurement is forgotten: machines get busy and quiet, contexts long. */
const FRESH_STEPS = 512;
/**
 * Before a size was measured: a token more costs this share of what each did so far. Where it costs
 * less, drafts are worth more than was thought, are tried and then measured.
 */
const MARGINAL_SHARE = 0.4;
const LEAST_MS = 1e-3;

/** How long steps of 1 to MOST_STEP_TOKENS tokens take, as far as it was measured lately. */
export class StepCosts {
  readonly #times: number[][] = Array.from({ length: MOST_STEP_TOKENS + 1 }, () => []);
  readonly #measuredAt = new Float64Array(MOST_STEP_TOKENS + 1).fill(-Infinity);
  #step = 0;
  #estimates: number[] | null = null;

  record(tokens: number, ms: number): void {
    const times = this.#times[tokens];
    // A clock may be coarser than a step is long: ratios need a number above 0.
    times.push(Math.max(ms, LEAST_MS));
    if (times.length > KEPT_TIMES) times.shift();
    this.#measuredAt[tokens] = ++this.#step;
    this.#estimates = null;
  }

  /** Milliseconds of a step of `tokens`: measured, between two that were, or beyond; null: no idea. */
  estimate(tokens: number): number | null {
    this.#estimates ??= estimatesFrom(this.#fresh());
    return this.#estimates[tokens] ?? null;
  }

  /** Sizes with a measurement that still counts, in ascending order, and their medians. */
  #fresh(): Point[] {
    const points: Point[] = [];
    for (let tokens = 1; tokens <= MOST_STEP_TOKENS; tokens++) {
      if (this.#step - this.#measuredAt[tokens] >= FRESH_STEPS) continue;
      points.push({ tokens, ms: median(this.#times[tokens]) });
    }
    return points;
  }
}

interface Point {
  tokens: number;
  ms: number;
}

/** Straight lines through the points; [tokens] for 1 to MOST_STEP_TOKENS, empty without a point. */
function estimatesFrom(points: readonly Point[]): number[] {
  const estimates: number[] = [];
  if (points.length === 0) return estimates;
  const [first] = points;
  const origin = { tokens: 0, ms: first.ms * (1 - MARGINAL_SHARE) };
  const line = [origin, ...points];
  for (let tokens = 1; tokens <= MOST_STEP_TOKENS; tokens++) {
    const above = line.findIndex((point) => point.tokens >= tokens);
    const high = above < 0 ? line.length - 1 : above;
    estimates[tokens] = onLine(line[high - 1], line[high], tokens);
  }
  return estimates;
}

/** Between two points, or beyond the second, where a step never gets faster with more tokens. */
function onLine(low: Point, high: Point, tokens: number): number {
  const slope = (high.ms - low.ms) / (high.tokens - low.tokens);
  const beyond = tokens > high.tokens;
  return high.ms + (beyond ? Math.max(0, slope) : slope) * (tokens - high.tokens);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Drafts must promise this much more speed: estimates are not exact. */
const LEAST_GAIN = 1.03;
/** Steps' worth of time that may be lost before any draft has come true. */
const FIRST_CREDIT = 1;
/** Credit that success leaves behind at most. */
const MOST_CREDIT = 16;
/** Credit that each step without drafts adds: the share of time that failing drafts may cost. */
const CREDIT_A_STEP = 0.01;
/** After so many steps with drafts one goes without, so that its time stays known. */
const MOST_DRAFT_STEPS = 64;

/** A step that has been run. */
export interface SpeculatedStep {
  sequences: number;
  /** Tokens run: one a sequence, and the drafts. */
  tokens: number;
  /** Tokens gained: one a sequence, and the drafts that came true. */
  gained: number;
  /** Which head made the logits: their times have little to do with each other. */
  head: HeadKind;
  ms: number;
}

/**
 * Decides how many drafted tokens a step takes: as many as make the expected tokens a second
 * highest, by how long steps of each size took and by how often guesses came true. A credit, in
 * steps without drafts, bounds what drafts that fail can cost in all: what a step with drafts may
 * lose must be there before it is run.
 */
export class DraftPlanner {
  readonly #costsOf = { "full": new StepCosts(), "two-stage": new StepCosts() };
  /** Of the head that the last step had: sequences seldom change theirs. */
  #costs = this.#costsOf.full;
  #credit = FIRST_CREDIT;
  #draftSteps = 0;

  /** A new sequence is a new chance; alone it starts from nothing, so that no text pays for another. */
  welcome(isAlone: boolean): void {
    this.#credit = isAlone ? FIRST_CREDIT : Math.max(this.#credit, FIRST_CREDIT);
  }

  /**
   * @param drafts One a sequence of the step, null where there is nothing to guess.
   * @param mostTokens Tokens that the step may have in all.
   * @returns How many tokens of each draft to run.
   */
  plan(drafts: readonly (Draft | null)[], mostTokens: number): number[] {
    const counts = fixedCounts(drafts, mostTokens);
    const chances = drafts.map((draft) => draft === null || draft.isFixed ? [] : draft.chances);
    const plainMs = this.#costs.estimate(drafts.length + sum(counts));
    if (plainMs === null || this.#draftSteps >= MOST_DRAFT_STEPS) return counts;
    return this.#best(counts, chances, mostTokens, plainMs);
  }

  /** Adds the likeliest guess of all, one after the other, and keeps the best of these plans. */
  #best(
    fixed: readonly number[],
    chances: readonly (readonly number[])[],
    mostTokens: number,
    plainMs: number,
  ): number[] {
    const counts = [...fixed];
    let tokens = fixed.length + sum(fixed);
    let expected = tokens;
    let best = { counts: [...fixed], speed: LEAST_GAIN * expected / plainMs };
    while (tokens < mostTokens) {
      const row = likeliest(chances, counts);
      if (row === null) break;
      expected += chances[row][counts[row]];
      counts[row]++;
      tokens++;
      const ms = this.#costs.estimate(tokens)!;
      if (ms / plainMs - 1 > this.#credit) break;
      if (expected / ms > best.speed) best = { counts: [...counts], speed: expected / ms };
    }
    return best.counts;
  }

  /** Learns from a step in which all sequences decoded. */
  settle({ sequences, tokens, gained, head, ms }: SpeculatedStep): void {
    this.#costs = this.#costsOf[head];
    this.#costs.record(tokens, ms);
    if (tokens === sequences) {
      this.#draftSteps = 0;
      this.#credit = Math.min(MOST_CREDIT, this.#credit + CREDIT_A_STEP);
      return;
    }
    this.#draftSteps++;
    const cost = this.#costs.estimate(tokens)! / this.#costs.estimate(sequences)!;
    this.#credit = Math.min(MOST_CREDIT, this.#credit + gained / sequences - cost);
  }
}

function fixedCounts(drafts: readonly (Draft | null)[], mostTokens: number): number[] {
  let room = mostTokens - drafts.length;
  return drafts.map((draft) => {
    const count = draft?.isFixed ? Math.min(draft.ids.length, room) : 0;
    room -= count;
    return count;
  });
}

/** The sequence whose next guess is the likeliest; fixed drafts have no chances, so are not among them. */
function likeliest(
  chances: readonly (readonly number[])[],
  counts: readonly number[],
): number | null {
  let best: number | null = null;
  let highest = 0;
  chances.forEach((own, row) => {
    const chance = own[counts[row]] ?? 0;
    if (chance > highest) {
      highest = chance;
      best = row;
    }
  });
  return best;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
