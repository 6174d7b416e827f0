/**
 * Byte-pair encoding over a vocabulary: joins the adjacent pair of lowest rank, leftmost first,
 * until no pair is left that the merges have.
 *
 * Source: Hugging Face tokenizers' models/bpe (merge_word, Word::merge_all).
 */

export interface BpeModel {
  readonly vocab: ReadonlyMap<string, number>;
  /**
   * Pairs in the order in which they may be joined: [left, right, joined] ids, flat. Called once, on the
   * first word that needs it: half of a vocabulary's loading time, which decoding never needs.
   */
  readonly merges: () => Int32Array;
  /** Id for what the vocabulary lacks, or null to leave it out. */
  readonly unkId: number | null;
  /** One unk for a run of unknown characters. */
  readonly fuseUnk: boolean;
  /** Id of each byte for unknown characters, or null. */
  readonly byteIds: readonly number[] | null;
  /** A word that is in the vocabulary stands for itself, whatever the merges would do. */
  readonly ignoreMerges: boolean;
}

/** Words of ordinary text repeat; long ones don't and would only fill the cache. */
const CACHED_WORD_LENGTH = 64;
const CACHED_WORDS = 20_000;
/** Larger than any word's length, so that rank * POSITIONS + position orders by rank first. */
const POSITIONS = 2 ** 32;

const encoder = new TextEncoder();

export class Bpe {
  readonly #model: BpeModel;
  #merges: Merges | null = null;
  readonly #cache = new Map<string, readonly number[]>();

  constructor(model: BpeModel) {
    this.#model = model;
  }

  /** Appends the ids of one word (a piece that pre-tokenization made) to `ids`. */
  encodeWord(word: string, ids: number[]): void {
    const whole = this.#model.ignoreMerges ? this.#model.vocab.get(word) : undefined;
    if (whole !== undefined) {
      ids.push(whole);
      return;
    }
    // No spread: a long word has more tokens than a call may have arguments.
    for (const id of this.#cached(word)) ids.push(id);
  }

  #cached(word: string): readonly number[] {
    if (word.length > CACHED_WORD_LENGTH) return this.#merged(this.#symbols(word));
    let ids = this.#cache.get(word);
    if (ids === undefined) {
      ids = this.#merged(this.#symbols(word));
      if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
      this.#cache.set(word, ids);
    }
    return ids;
  }

  /** Ids of a word's characters. */
  #symbols(word: string): number[] {
    const { vocab, unkId, fuseUnk } = this.#model;
    const ids: number[] = [];
    let wasUnknown = false;
    for (const character of word) {
      const id = vocab.get(character);
      const bytes = id === undefined ? this.#bytesOf(character) : null;
      const isUnknown = id === undefined && bytes === null;
      if (id !== undefined) ids.push(id);
      else if (bytes !== null) ids.push(...bytes);
      else if (unkId !== null && !(wasUnknown && fuseUnk)) ids.push(unkId);
      wasUnknown = isUnknown;
    }
    return ids;
  }

  #bytesOf(character: string): number[] | null {
    const { byteIds } = this.#model;
    return byteIds && Array.from(encoder.encode(character), (byte) => byteIds[byte]);
  }

  /**
   * Joins pairs. `ids` becomes a doubly linked list (`next`, `previous`; a joined right symbol has
   * id -1), and a heap has the pairs that could be joined; entries that no longer hold are skipped.
   */
  #merged(ids: number[]): readonly number[] {
    if (ids.length < 2) return ids;
    const merges = this.#merges ??= new Merges(this.#model.merges());
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const previous = Int32Array.from(ids, (_, i) => i - 1);
    const heap = new MinHeap();
    const propose = (left: number) => {
      if (left < 0 || next[left] >= ids.length) return;
      const rank = merges.rankOf(ids[left], ids[next[left]]);
      if (rank !== undefined) heap.push(rank * POSITIONS + left);
    };
    for (let i = 0; i + 1 < ids.length; i++) propose(i);
    for (let entry = heap.pop(); entry !== undefined; entry = heap.pop()) {
      const left = entry % POSITIONS;
      const rank = (entry - left) / POSITIONS;
      const right = next[left];
      if (ids[left] < 0 || right >= ids.length) continue;
      if (merges.rankOf(ids[left], ids[right]) !== rank) continue;
      ids[left] = merges.joined(rank);
      ids[right] = -1;
      next[left] = next[right];
      if (next[left] < ids.length) previous[next[left]] = left;
      propose(previous[left]);
      propose(left);
    }
    return ids.filter((id) => id >= 0);
  }
}

/**
 * The merges by pair, in a table with open addressing: a Map of half a million pairs is 30 MB larger. One
 * that is listed twice keeps its last rank.
 */
class Merges {
  readonly #ids: Int32Array;
  /** Ranks plus 1; 0 where there is none. At most half of them are taken. */
  readonly #slots: Int32Array;

  constructor(ids: Int32Array) {
    this.#ids = ids;
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(2 * ids.length / 3 + 2)));
    for (let rank = 0; 3 * rank < ids.length; rank++) {
      this.#slots[this.#slotOf(ids[3 * rank], ids[3 * rank + 1])] = rank + 1;
    }
  }

  rankOf(left: number, right: number): number | undefined {
    const rank = this.#slots[this.#slotOf(left, right)] - 1;
    return rank < 0 ? undefined : rank;
  }

  /** The pair's slot, or the free one in which it would be. */
  #slotOf(left: number, right: number): number {
    const ids = this.#ids;
    const slots = this.#slots;
    const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    for (let slot = mixed ^ mixed >>> 15;; slot++) {
      slot &= slots.length - 1;
      const at = 3 * (slots[slot] - 1);
      if (at < 0 || (ids[at] === left && ids[at + 1] === right)) return slot;
    }
  }

  /** Id of what the pair of this rank becomes. */
  joined(rank: number): number {
    return this.#ids[3 * rank + 2];
  }
}

/** A binary heap of numbers, the smallest on top. */
class MinHeap {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent] <= item) break;
      items[at] = items[parent];
      at = parent;
    }
    items[at] = item;
  }

  pop(): number | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (last !== undefined && items.length > 0) this.#sinkFromTop(last);
    return top;
  }

  #sinkFromTop(item: number): void {
    const items = this.#items;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && items[child + 1] < items[child]) child++;
      if (items[child] >= item) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = item;
  }
}
