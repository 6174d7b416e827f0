import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";

/** Hands out the KV cache's blocks of 16 positions. */
export class KvBlocks {
  readonly #free: number[];

  constructor(readonly count: number) {
    // Low numbers are given out first, so that a short conversation touches little memory.
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  /** Blocks that hold `positions` tokens. */
  static needed(positions: number): number {
    return Math.ceil(positions / KV_BLOCK_POSITIONS);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** @returns `count` block numbers, or null when so many are not free. */
  take(count: number): Int32Array | null {
    if (count > this.#free.length) return null;
    return Int32Array.from({ length: count }, () => this.#free.pop()!);
  }

  give(blocks: Int32Array): void {
    for (const block of blocks.toReversed()) this.#free.push(block);
  }
}
