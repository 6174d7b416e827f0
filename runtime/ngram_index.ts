/** A place earlier in a sequence where its last tokens stand as well. */
export interface Repetition {
  /** Position of the token that followed there. */
  next: number;
  /** Tokens before it that are the same as the sequence's last, as far as they were compared. */
  length: number;
}

/** Shortest run of tokens that counts as a repetition. */
export const LEAST_LENGTH = 2;
/** Longer runs are not told apart: they predict no better. */
export const MOST_LENGTH = 16;

/** Earlier places that are compared, the latest first: common pairs of tokens have many. */
const MOST_PLACES = 64;
/** Tokens that are looked back on: bounds the memory of a sequence to 512 KiB. */
const MOST_WINDOW = 1 << 16;
const LEAST_WINDOW = 1 << 8;

/**
 * Finds where a growing sequence has been before: chains of the places where each pair of tokens
 * ended, as in Lempel-Ziv compressors. A token costs the same however long the sequence is.
 */
export class NgramIndex {
  readonly #mask: number;
  /** By hash of a pair: position after its last place, 0 when there is none. */
  readonly #heads: Int32Array;
  /** By position modulo the window: the place before it in its chain. */
  readonly #earlier: Int32Array;
  #indexed = 0;

  /**
   * @param tokens The sequence itself, not a copy: it may only grow.
   * @param mostTokens As long as it may become.
   */
  constructor(private readonly tokens: readonly number[], mostTokens: number) {
    const window = windowOf(mostTokens);
    this.#mask = window - 1;
    this.#heads = new Int32Array(window);
    this.#earlier = new Int32Array(window);
  }

  /**
   * The longest repetition of the sequence's end, and null without one.
   *
   * @param preferred The position that is taken among equals; else it is the latest.
   */
  find(preferred = 0): Repetition | null {
    const { tokens } = this;
    const end = tokens.length;
    if (end < LEAST_LENGTH) return null;
    this.#indexUpTo(end - 1);
    const length = this.#sharedLength(preferred, end);
    let best = length >= LEAST_LENGTH ? { next: preferred, length } : null;
    let next = this.#heads[this.#hash(end)];
    for (let places = 0; this.#isKept(next, end) && places < MOST_PLACES; places++) {
      const length = this.#sharedLength(next, end);
      if (length >= LEAST_LENGTH && length > (best?.length ?? 0)) best = { next, length };
      if (length === MOST_LENGTH) break;
      next = this.#earlier[next & this.#mask];
    }
    return best;
  }

  /** Indexes the pairs that end before `end`: the sequence's last pair must not find itself. */
  #indexUpTo(end: number): void {
    for (let at = Math.max(this.#indexed + 1, LEAST_LENGTH); at <= end; at++) {
      const hash = this.#hash(at);
      this.#earlier[at & this.#mask] = this.#heads[hash];
      this.#heads[hash] = at;
    }
    this.#indexed = Math.max(this.#indexed, end);
  }

  /** Of the two tokens before `end`. */
  #hash(end: number): number {
    const mixed = Math.imul(this.tokens[end - 2], 0x9e3779b1) ^
      Math.imul(this.tokens[end - 1], 0x85ebca77);
    return (mixed ^ (mixed >>> 15)) & this.#mask;
  }

  /** Older places have been overwritten. */
  #isKept(next: number, end: number): boolean {
    return next > 0 && end - next <= this.#mask;
  }

  #sharedLength(next: number, end: number): number {
    const { tokens } = this;
    const most = Math.min(next, MOST_LENGTH);
    let length = 0;
    while (length < most && tokens[next - 1 - length] === tokens[end - 1 - length]) length++;
    return length;
  }
}

/** A power of two that holds the sequence, within bounds. */
function windowOf(mostTokens: number): number {
  let window = LEAST_WINDOW;
  while (window < mostTokens && window < MOST_WINDOW) window *= 2;
  return window;
}
