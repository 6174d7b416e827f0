import type { SamplerOptions } from "./types.ts";

/** Draws token ids. Keeps its own random state: one sampler a sequence. */
export interface Sampler {
  /**
   * The next token id.
   *
   * @param logits (vocabSize,), left as they are. -Infinity means never.
   * @param history Ids so far, prompt included: what the penalties look back on.
   * @param allowed Bit `id % 32` of word `id / 32`: tokens that may be drawn; absent: all.
   * @throws {RangeError} If `logits` has another size, a NaN or +Infinity, or bans every token.
   */
  sample(logits: Float32Array, history: readonly number[], allowed?: Uint32Array): number;
  /**
   * Whether the `candidates` largest logits are enough where only some tokens are allowed: so many
   * of the largest must be allowed ones.
   *
   * @param logits What `candidates` of at least `count` asked for.
   */
  isEnough(
    logits: Float32Array,
    count: number,
    history: readonly number[],
    allowed: Uint32Array,
  ): boolean;
  /**
   * How many of the largest logits `sample` needs to draw the token that it would draw from all of
   * them, the others being exact or -Infinity; 0: it needs all.
   *
   * @param history As for `sample`.
   * @param ahead Tokens, whichever, that the history may have more of by then.
   */
  candidates(history: readonly number[], ahead?: number): number;
}

/** Beyond so many the head scores all: finding the largest would save little. */
const MOST_CANDIDATES = 256;

/** What a numeric option may be. `flag` is its name on the command line. */
export interface OptionRange {
  flag: string;
  least: number;
  most: number;
  whole?: boolean;
  /** True when `least` itself is not allowed. */
  aboveLeast?: boolean;
}

type NumericOption = Exclude<keyof SamplerOptions, "logitBias">;

/** The registry of numeric sampler options: validation here and in the command line reads it. */
export const SAMPLER_RANGES: Readonly<Record<NumericOption, OptionRange>> = {
  temperature: { flag: "--temperature", least: 0, most: 1e6 },
  topK: { flag: "--top-k", least: 0, most: 2 ** 31 - 1, whole: true },
  topP: { flag: "--top-p", least: 0, most: 1 },
  minP: { flag: "--min-p", least: 0, most: 1 },
  typicalP: { flag: "--typical-p", least: 0, most: 1 },
  repeatPenalty: { flag: "--repeat-penalty", least: 0, most: 1e6, aboveLeast: true },
  presencePenalty: { flag: "--presence-penalty", least: -1e6, most: 1e6 },
  frequencyPenalty: { flag: "--frequency-penalty", least: -1e6, most: 1e6 },
  penaltyLastN: { flag: "--penalty-last-n", least: -1, most: 2 ** 31 - 1, whole: true },
  seed: { flag: "--seed", least: 0, most: Number.MAX_SAFE_INTEGER, whole: true },
};

/** The rule as a person reads it: "a whole number from 0 to 7". */
export function ruleOf({ least, most, whole, aboveLeast }: OptionRange): string {
  const kind = whole ? "a whole number" : "a number";
  const from = aboveLeast ? `above ${least}` : `from ${least}`;
  return `${kind} ${from} to ${most}`;
}

export function isWithin(value: number, { least, most, whole, aboveLeast }: OptionRange): boolean {
  if (!(value >= least && value <= most)) return false;
  return (!whole || Number.isInteger(value)) && !(aboveLeast && value === least);
}

/** @throws {RangeError} Naming the first option that breaks its rule. */
export function checkSamplerOptions(options: SamplerOptions, vocabSize: number): void {
  for (const [name, range] of Object.entries(SAMPLER_RANGES) as [NumericOption, OptionRange][]) {
    const value = options[name];
    if (value === undefined || isWithin(value, range)) continue;
    throw new RangeError(
      `Cannot sample as ${name} (${range.flag}) must be ${
        ruleOf(range)
      }: current value is ${value}`,
    );
  }
  for (const [id, bias] of options.logitBias ?? []) checkBias(id, bias, vocabSize);
}

function checkBias(id: number, bias: number, vocabSize: number): void {
  if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
    throw new RangeError(
      `Cannot sample as logitBias (--logit-bias) must name token ids from 0 to ${vocabSize - 1}` +
        `: current id is ${id}`,
    );
  }
  if (Number.isFinite(bias) || bias === -Infinity) return;
  throw new RangeError(
    `Cannot sample as logitBias (--logit-bias) of token ${id} must be a finite number or -Infinity` +
      `: current value is ${bias}`,
  );
}

/** Tokens that penalties look back on when nobody says: llama.cpp's number. */
const DEFAULT_PENALTY_LAST_N = 64;

/**
 * A sampler in pure IEEE arithmetic: the same options, seed and logits give the same tokens in
 * every JavaScript engine.
 *
 * The order is: logit bias; repeat, presence and frequency penalties; greedy when temperature is 0
 * (ties: the lowest id); else temperature, top-k, typical-p, top-p, min-p, each on what the one
 * before left; draw. llama.cpp has the same order except that its temperature comes last, so that
 * its top-p and min-p see the distribution at temperature 1; Hugging Face's comes first, as here.
 *
 * Fields that are not set do nothing: no temperature means 1, and no seed means a random one.
 *
 * @throws {RangeError} If an option is out of its range.
 */
export function createSampler(options: SamplerOptions, vocabSize: number): Sampler {
  checkSamplerOptions(options, vocabSize);
  return new VocabularySampler(options, vocabSize);
}

/**
 * Room for a vocabulary's scores, which all samplers use in turn: a call leaves nothing behind in it,
 * and of a vocabulary of 128 k it is 6 MB.
 */
class Scratch {
  readonly scores: Scores;
  #candidates: Candidates | null = null;
  static #last: Scratch | null = null;

  private constructor(readonly vocabSize: number) {
    this.scores = new Scores(vocabSize);
  }

  static of(vocabSize: number): Scratch {
    if (Scratch.#last?.vocabSize !== vocabSize) Scratch.#last = new Scratch(vocabSize);
    return Scratch.#last;
  }

  /** Room for `most` candidates at least. */
  candidates(most: number): Candidates {
    if (this.#candidates === null || this.#candidates.most < most) {
      this.#candidates = new Candidates(most);
    }
    return this.#candidates;
  }
}

class VocabularySampler implements Sampler {
  readonly #scratch: Scratch;
  readonly #random: () => number;
  /** Tokens that are drawn from at most, and logits that are lowered by a bias. */
  readonly #kept: number;
  readonly #biased: number;
  readonly #isPenalising: boolean;

  constructor(private readonly options: SamplerOptions, private readonly vocabSize: number) {
    const { temperature, topK, logitBias = new Map() } = options;
    this.#scratch = Scratch.of(vocabSize);
    this.#random = randomUnits(options.seed ?? randomSeed());
    this.#kept = temperature === 0 ? 1 : topK || Infinity;
    this.#biased = [...logitBias.values()].filter((bias) => bias < 0).length;
    this.#isPenalising = isPenalising(options);
  }

  sample(logits: Float32Array, history: readonly number[], allowed?: Uint32Array): number {
    if (logits.length !== this.vocabSize) {
      throw new RangeError(
        `Cannot sample as logits must have ${this.vocabSize} values: current length is ${logits.length}`,
      );
    }
    const { scores } = this.#scratch;
    if (allowed === undefined) scores.read(logits);
    else scores.readAllowed(logits, allowed);
    for (const [id, bias] of this.options.logitBias ?? []) {
      scores.change(id, (score) => score + bias);
    }
    if (this.#isPenalising) applyPenalties(scores, history, this.options);
    const best = argmax(scores);
    return scores.idOf(this.options.temperature === 0 ? best : this.#draw(scores.values, best));
  }

  /**
   * Let k tokens be kept of the adjusted scores (1 when greedy), no adjustment raise a score, and at
   * most p lower one. Of the k + p largest logits at least k are not lowered. A token that is not
   * among the k + p has a logit no larger than theirs, so its adjusted score is no larger than those
   * k, and it is not kept; where it equals one of them it is among the exact ones, as the head
   * returns all that equal the last of the largest. So the kept tokens, their scores and hence the
   * draw are the same as with all logits. Without top-k the mass of all tokens counts.
   */
  candidates(history: readonly number[], ahead = 0): number {
    if (this.#kept > MOST_CANDIDATES || raises(this.options)) return 0;
    const penalised = this.#isPenalising ? this.#penalised(history, ahead) : 0;
    const needed = this.#kept + this.#biased + penalised;
    return needed <= MOST_CANDIDATES && needed < this.vocabSize ? needed : 0;
  }

  /**
   * The argument of `candidates` again, for the allowed tokens alone: let t be the least of the
   * `count` largest logits. Those at t or above are exact, and no allowed token below t can be kept if
   * enough allowed ones are not below it.
   */
  isEnough(
    logits: Float32Array,
    count: number,
    history: readonly number[],
    allowed: Uint32Array,
  ): boolean {
    const needed = this.candidates(history);
    if (needed === 0) return false;
    const finite = logits.filter((logit) => logit !== -Infinity).sort();
    const threshold = finite[Math.max(0, finite.length - count)];
    let found = 0;
    for (let id = 0; id < logits.length && found < needed; id++) {
      if (logits[id] >= threshold && isAllowed(allowed, id)) found++;
    }
    return found >= needed;
  }

  /** Different tokens that a penalty may meet; counting stops where it no longer matters. */
  #penalised(history: readonly number[], ahead: number): number {
    const start = penaltyStart(history, this.options.penaltyLastN);
    const seen = new Set<number>();
    for (let i = history.length - 1; i >= start && seen.size <= MOST_CANDIDATES; i--) {
      seen.add(history[i]);
    }
    return seen.size + ahead;
  }

  #draw(scores: Float64Array, best: number): number {
    const { temperature = 1, topK, typicalP, topP, minP } = this.options;
    const most = Math.min(topK || this.vocabSize, this.vocabSize);
    const candidates = this.#scratch.candidates(most);
    candidates.fill(scores, most);
    candidates.weigh(scores, scores[best], temperature);
    if (typicalP !== undefined && typicalP < 1) candidates.keepTypical(typicalP);
    if (topP !== undefined && topP < 1) candidates.keepTopP(topP);
    if (minP !== undefined && minP > 0) candidates.keepMinP(minP);
    return candidates.draw(this.#random());
  }
}

function isPenalising(options: SamplerOptions): boolean {
  const { repeatPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = options;
  return repeatPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
}

/** Whether an adjustment can make a token likelier, so that any token may become one of the best. */
function raises(options: SamplerOptions): boolean {
  const { repeatPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  if (repeatPenalty < 1 || presencePenalty < 0 || frequencyPenalty < 0) return true;
  return [...logitBias?.values() ?? []].some((bias) => bias > 0);
}

/** Logits that are looked at to tell whether most of a row is -Infinity. */
const PROBES = 64;
const NEGATIVE_INFINITY_BITS = new Int32Array(Float32Array.of(-Infinity).buffer)[0];

/**
 * A row's scores. Of a row that is mostly -Infinity, as the two-stage head makes it, only the others
 * are kept: 128 k logits are passed once, and all further work is on a few.
 */
class Scores {
  /** In ascending order of ids. An index is a slot. */
  values: Float64Array;
  readonly #all: Float64Array;
  readonly #ids: Int32Array;
  #isSparse = false;

  constructor(vocabSize: number) {
    this.#all = new Float64Array(vocabSize);
    this.#ids = new Int32Array(vocabSize);
    this.values = this.#all;
  }

  read(logits: Float32Array): void {
    this.#isSparse = isMostlyBanned(logits);
    if (this.#isSparse) {
      this.values = this.#all.subarray(0, this.#collect(logits));
    } else {
      this.values = this.#all;
      this.values.set(logits);
    }
  }

  /** As `read`, of the allowed tokens alone. */
  readAllowed(logits: Float32Array, allowed: Uint32Array): void {
    this.#isSparse = true;
    let count = 0;
    for (let word = 0; word < allowed.length; word++) {
      for (let bits = allowed[word]; bits !== 0; bits &= bits - 1) {
        const id = 32 * word + 31 - Math.clz32(bits & -bits);
        if (id >= logits.length || logits[id] === -Infinity) continue;
        this.#ids[count] = id;
        this.#all[count++] = logits[id];
      }
    }
    this.values = this.#all.subarray(0, count);
  }

  /** Logits that are not -Infinity; NaN is one of them. */
  #collect(logits: Float32Array): number {
    const bits = new Int32Array(logits.buffer, logits.byteOffset, logits.length);
    let count = 0;
    for (let start = 0; start < bits.length; start += 8) {
      if (areAllBanned(bits, start)) continue;
      const end = Math.min(start + 8, bits.length);
      for (let id = start; id < end; id++) {
        if (bits[id] === NEGATIVE_INFINITY_BITS) continue;
        this.#ids[count] = id;
        this.#all[count++] = logits[id];
      }
    }
    return count;
  }

  idOf(slot: number): number {
    return this.#isSparse ? this.#ids[slot] : slot;
  }

  /** Does nothing to a token of -Infinity, which no adjustment would change. */
  change(id: number, adjust: (score: number) => number): void {
    const slot = this.#isSparse ? this.#find(id) : id;
    if (slot < this.values.length) this.values[slot] = adjust(this.values[slot]);
  }

  /** The slot of an id; past the last one for an id without. */
  #find(id: number): number {
    let low = 0;
    let high = this.values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ids[middle] < id) low = middle + 1;
      else high = middle;
    }
    return this.#ids[low] === id ? low : this.values.length;
  }
}

function isAllowed(allowed: Uint32Array, id: number): boolean {
  return (allowed[id >> 5] >>> (id & 31) & 1) === 1;
}

/** A guess from some logits: it decides what is faster, not what is right. */
function isMostlyBanned(logits: Float32Array): boolean {
  const stride = Math.max(1, Math.floor(logits.length / PROBES));
  let balance = 0;
  for (let id = 0; id < logits.length; id += stride) balance += logits[id] === -Infinity ? 1 : -1;
  return balance > 0;
}

/** Whether eight logits from `start` on are all -Infinity; false near the end, where there are fewer. */
function areAllBanned(bits: Int32Array, start: number): boolean {
  const banned = NEGATIVE_INFINITY_BITS;
  return ((bits[start] ^ banned) | (bits[start + 1] ^ banned) | (bits[start + 2] ^ banned) |
    (bits[start + 3] ^ banned) | (bits[start + 4] ^ banned) | (bits[start + 5] ^ banned) |
    (bits[start + 6] ^ banned) | (bits[start + 7] ^ banned)) === 0;
}

/** As llama.cpp: repeat divides what is positive and multiplies what is not, the others subtract. */
function applyPenalties(scores: Scores, history: readonly number[], options: SamplerOptions): void {
  const { repeatPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = options;
  for (const [id, count] of recentCounts(history, options.penaltyLastN)) {
    scores.change(id, (score) => {
      const repeated = score > 0 ? score / repeatPenalty : score * repeatPenalty;
      return repeated - (presencePenalty + frequencyPenalty * count);
    });
  }
}

/** Where in the history the tokens begin that penalties look back on. */
function penaltyStart(history: readonly number[], lastN = DEFAULT_PENALTY_LAST_N): number {
  return lastN === -1 ? 0 : Math.max(0, history.length - lastN);
}

function recentCounts(history: readonly number[], lastN: number | undefined): Map<number, number> {
  const counts = new Map<number, number>();
  for (let i = penaltyStart(history, lastN); i < history.length; i++) {
    counts.set(history[i], (counts.get(history[i]) ?? 0) + 1);
  }
  return counts;
}

/** The slot of the lowest id of the highest score. */
function argmax(scores: Scores): number {
  const { values } = scores;
  let best = -1;
  let highest = -Infinity;
  for (let slot = 0; slot < values.length; slot++) {
    const score = values[slot];
    // One comparison finds both a new maximum and a NaN, for which every comparison is false.
    if (score <= highest) continue;
    if (!(score < Infinity)) throwUnusable(scores.idOf(slot), score);
    highest = score;
    best = slot;
  }
  if (best >= 0) return best;
  throw new RangeError(
    "Cannot sample as every token has a logit of -Infinity: lift a logit bias, or let the grammar take more",
  );
}

function throwUnusable(id: number, score: number): never {
  throw new RangeError(
    `Cannot sample as logits must be finite or -Infinity: token ${id} has ${score}` +
      `, the model's weights are probably damaged`,
  );
}

/**
 * The tokens (their slots in `Scores`) that may still be drawn, with unnormalised probabilities.
 * Filters keep sets, in no order; where order counts it is by score, and by id among equals.
 */
class Candidates {
  readonly #ids: Int32Array;
  /** exp(delta) of #ids at the same index: 1 for the best token. */
  readonly #weights: Float64Array;
  /** (score - best score) / temperature, so never above 0. */
  readonly #deltas: Float64Array;
  readonly #order: Int32Array;
  readonly #distances: Float64Array;
  #count = 0;

  constructor(readonly most: number) {
    this.#ids = new Int32Array(most);
    this.#weights = new Float64Array(most);
    this.#deltas = new Float64Array(most);
    this.#order = new Int32Array(most);
    this.#distances = new Float64Array(most);
  }

  /** Takes the `most` best tokens. */
  fill(scores: Float64Array, most: number): void {
    this.#count = Math.min(most, scores.length);
    if (this.#count < scores.length) return selectTop(scores, this.#ids, this.#count);
    for (let id = 0; id < scores.length; id++) this.#ids[id] = id;
  }

  weigh(scores: Float64Array, highest: number, temperature: number): void {
    for (let i = 0; i < this.#count; i++) {
      const delta = (scores[this.#ids[i]] - highest) / temperature;
      this.#deltas[i] = delta;
      this.#weights[i] = expOfNegative(delta);
    }
  }

  /**
   * Locally typical sampling (arXiv 2202.00666): keeps the fewest tokens of at least mass `p` whose
   * surprise is nearest to its mean. With -log p_i = log z - delta_i the log z cancels.
   */
  keepTypical(p: number): void {
    let total = 0;
    let sum = 0;
    for (let i = 0; i < this.#count; i++) {
      const weight = this.#weights[i];
      total += weight;
      if (weight > 0) sum += weight * this.#deltas[i];
    }
    const mean = sum / total;
    for (let i = 0; i < this.#count; i++) this.#distances[i] = Math.abs(this.#deltas[i] - mean);
    this.#keepMass(p * total);
  }

  /** Nucleus sampling (arXiv 1904.09751): keeps the fewest most likely tokens of at least mass `p`. */
  keepTopP(p: number): void {
    const total = this.#total();
    // All tokens below this weight together have less than mass 1 - p: the nucleus is above it.
    const floor = (1 - p) * total / this.#count;
    this.#keepWeightsFrom(floor * (1 - 1e-9));
    for (let i = 0; i < this.#count; i++) this.#distances[i] = -this.#deltas[i];
    this.#keepMass(p * total);
  }

  /** Keeps tokens that are at least `p` times as likely as the best one. */
  keepMinP(p: number): void {
    let best = 0;
    for (let i = 0; i < this.#count; i++) best = Math.max(best, this.#weights[i]);
    this.#keepWeightsFrom(p * best);
  }

  /** The token at which the running sum of weights passes `unit` (0 <= unit < 1) of their sum. */
  draw(unit: number): number {
    let left = unit * this.#total();
    let last = this.#ids[0];
    for (let i = 0; i < this.#count; i++) {
      if (this.#weights[i] === 0) continue;
      last = this.#ids[i];
      left -= this.#weights[i];
      if (left < 0) return last;
    }
    // Rounding may leave a rest: it belongs to the last token that has a weight.
    return last;
  }

  #total(): number {
    let total = 0;
    for (let i = 0; i < this.#count; i++) total += this.#weights[i];
    return total;
  }

  #keepWeightsFrom(least: number): void {
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      if (this.#weights[i] >= least) this.#move(i, kept++);
    }
    this.#count = kept;
  }

  /** Keeps the nearest tokens (by #distances) whose mass together reaches `mass`. */
  #keepMass(mass: number): void {
    const order = this.#order.subarray(0, this.#count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    const kept = selectMass(order, this.#distances, this.#ids, this.#weights, mass);
    const keptOrder = order.subarray(0, kept).sort();
    for (let i = 0; i < kept; i++) this.#move(keptOrder[i], i);
    this.#count = kept;
  }

  /** `to` never passes `from`, so nothing that is still needed is overwritten. */
  #move(from: number, to: number): void {
    this.#ids[to] = this.#ids[from];
    this.#weights[to] = this.#weights[from];
    this.#deltas[to] = this.#deltas[from];
  }
}

/** Ids of the `count` best scores, in ascending order, by a heap whose root is the worst of them. */
function selectTop(scores: Float64Array, ids: Int32Array, count: number): void {
  for (let id = 0; id < count; id++) ids[id] = id;
  for (let at = (count >> 1) - 1; at >= 0; at--) siftDown(ids, scores, at, count);
  let worst = scores[ids[0]];
  for (let id = count; id < scores.length; id++) {
    // Among equals the lower id stays, and ids come in ascending order.
    if (scores[id] <= worst) continue;
    ids[0] = id;
    siftDown(ids, scores, 0, count);
    worst = scores[ids[0]];
  }
  ids.subarray(0, count).sort();
}

function siftDown(heap: Int32Array, scores: Float64Array, start: number, count: number): void {
  const id = heap[start];
  let at = start;
  while (true) {
    let child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && isWorse(heap[child + 1], heap[child], scores)) child++;
    if (!isWorse(heap[child], id, scores)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = id;
}

function isWorse(a: number, b: number, scores: Float64Array): boolean {
  return scores[a] < scores[b] || (scores[a] === scores[b] && a > b);
}

/**
 * Quickselect by mass: reorders `order` so that its first entries are the nearest ones whose
 * weights together reach `mass`, and returns how many these are: at least one.
 */
function selectMass(
  order: Int32Array,
  distances: Float64Array,
  ids: Int32Array,
  weights: Float64Array,
  mass: number,
): number {
  let low = 0;
  let high = order.length;
  let missing = mass;
  while (high - low > 1) {
    const middle = partition(order, distances, ids, low, high);
    let lowerMass = 0;
    for (let i = low; i < middle; i++) lowerMass += weights[order[i]];
    if (lowerMass >= missing) {
      high = middle;
    } else {
      missing -= lowerMass;
      low = middle;
    }
  }
  return Math.max(1, high);
}

/** Splits order[low, high) in two parts, neither empty, all of the first nearer than the second. */
function partition(
  order: Int32Array,
  distances: Float64Array,
  ids: Int32Array,
  low: number,
  high: number,
): number {
  const pivot = order[(low + high - 1) >> 1];
  const pivotDistance = distances[pivot];
  const pivotId = ids[pivot];
  const nearer = (i: number) =>
    distances[i] < pivotDistance || (distances[i] === pivotDistance && ids[i] < pivotId);
  const farther = (i: number) =>
    distances[i] > pivotDistance || (distances[i] === pivotDistance && ids[i] > pivotId);
  let left = low - 1;
  let right = high;
  while (true) {
    do left++; while (nearer(order[left]));
    do right--; while (farther(order[right]));
    if (left >= right) return right + 1;
    const swapped = order[left];
    order[left] = order[right];
    order[right] = swapped;
  }
}

/** ln 2 in two parts; the first has 33 bits, so that its multiples here are exact (FreeBSD msun). */
const LN2_HIGH = 6.93147180369123816490e-01;
const LN2_LOW = 1.90821492927058770002e-10;
const LOG2_E = 1.4426950408889634;

/** e^x is 0 for us below this: 2^-1009, while the best token's weight is 1. */
const LOWEST_EXPONENT = -699;

/** 2^-n at n. Products with it are exact. */
const NEGATIVE_POWERS = new Float64Array(1024);
for (let n = 0, power = 1; n < NEGATIVE_POWERS.length; n++, power /= 2) NEGATIVE_POWERS[n] = power;

/**
 * e^x for x <= 0, relative error below 1e-15, from + - * alone, so equal in all JavaScript engines.
 * Written out (`exactExp` has loops), as it runs for each of the vocabulary's tokens.
 */
export function expOfNegative(x: number): number {
  if (x < LOWEST_EXPONENT) return 0;
  const n = Math.round(-x * LOG2_E);
  const r = (x + n * LN2_HIGH) + n * LN2_LOW;
  // Taylor's series to r^13 / 13!: |r| <= ln(2) / 2, so the rest is below 5e-18.
  let sum = 1 / 6227020800;
  sum = sum * r + 1 / 479001600;
  sum = sum * r + 1 / 39916800;
  sum = sum * r + 1 / 3628800;
  sum = sum * r + 1 / 362880;
  sum = sum * r + 1 / 40320;
  sum = sum * r + 1 / 5040;
  sum = sum * r + 1 / 720;
  sum = sum * r + 1 / 120;
  sum = sum * r + 1 / 24;
  sum = sum * r + 1 / 6;
  sum = sum * r + 1 / 2;
  sum = sum * r + 1;
  sum = sum * r + 1;
  return sum * NEGATIVE_POWERS[n];
}

function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
}

/** Uniform doubles in [0, 1) with 53 random bits. */
function randomUnits(seed: number): () => number {
  const next = xoshiro128(seed);
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

/**
 * xoshiro128** of Blackman and Vigna (arXiv 1805.01407, public domain reference code), its state
 * from the seed by splitmix32: neighbouring seeds give unrelated streams.
 */
function xoshiro128(seed: number): () => number {
  const mix = splitmix32(seed >>> 0);
  // The seed's upper 21 bits go in as well.
  const upper = splitmix32(Math.floor(seed / 2 ** 32) ^ 0x9e3779b9);
  let [s0, s1, s2, s3] = [mix() ^ upper(), mix() ^ upper(), mix() ^ upper(), mix() | 1];
  return () => {
    const result = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0;
    const shifted = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= shifted;
    s3 = rotateLeft(s3, 11);
    return result;
  };
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function splitmix32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return mixed ^ (mixed >>> 15);
  };
}
