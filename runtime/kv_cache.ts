import { KV_BLOCK_POSITIONS, kvBlockBytes } from "../codegen/attention/cache.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";

/** What a cache keeps keys and values as unless the caller says otherwise. */
export const DEFAULT_KV_TYPE: KvType = "f32";

/** As far as RoPE's tables go. */
export const MAX_POSITIONS = 1 << 20;

/** Bytes that the cache keeps of one position, all layers together. */
export function kvBytesPerPosition(spec: ModelSpec, kvType: KvType): number {
  return kvBlockBytes(spec, kvType) / KV_BLOCK_POSITIONS;
}

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
