/** Walks that are kept, the most recent ones, up to a number of words. */
import { type Walk, wordsOf } from "./token_walk.ts";

export class WalkCache {
  readonly #walks = new Map<string, Walk>();
  readonly #maxWords: number;
  #words = 0;

  constructor(maxWords: number) {
    this.#maxWords = maxWords;
  }

  get(key: string): Walk | undefined {
    const walk = this.#walks.get(key);
    if (walk === undefined) return undefined;
    // A map keeps its order: what was used last comes to its end.
    this.#walks.delete(key);
    this.#walks.set(key, walk);
    return walk;
  }

  set(key: string, walk: Walk): void {
    this.#walks.set(key, walk);
    this.#words += wordsOf(walk);
    for (const [oldest, old] of this.#walks) {
      if (this.#words <= this.#maxWords) break;
      this.#walks.delete(oldest);
      this.#words -= wordsOf(old);
    }
  }
}
