import type { SequenceWork } from "./scheduler.ts";
import type { PositionLogits } from "./types.ts";

/** A sequence that is run once for its logits. */
export class LogitsWork implements SequenceWork {
  /** All positions are looked at: none may be skipped because it is known. */
  readonly cachePrompt = false;
  readonly maxTokens: number;
  readonly pending: number[];
  /** Positions below it have been handed out, and are not asked for again when computed anew. */
  #next = 0;
  readonly #results: PositionLogits[] = [];
  #left: number;
  #wake: () => void = () => {};
  #ended = false;
  #error: unknown;

  constructor(
    ids: readonly number[],
    private readonly positions: "all" | "last",
    private readonly signal?: AbortSignal,
  ) {
    this.pending = [...ids];
    this.maxTokens = ids.length;
    this.#left = positions === "all" ? ids.length : 1;
  }

  get active(): boolean {
    return this.#left > 0 && !this.signal?.aborted;
  }

  candidatesAt(position: number): number | null {
    if (position < this.#next) return null;
    return this.positions === "all" || position === this.maxTokens - 1 ? 0 : null;
  }

  accept(position: number, logits: Float32Array): void {
    this.#results.push({ position, logits: logits.slice() });
    this.#left--;
    this.#next = position + 1;
    this.#wake();
  }

  finish(error?: unknown): void {
    this.#error = error;
    this.#ended = true;
    this.#wake();
  }

  async *results(): AsyncGenerator<PositionLogits> {
    while (true) {
      while (this.#results.length > 0) yield this.#results.shift()!;
      if (this.#ended) break;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (this.#error !== undefined) throw this.#error;
    this.signal?.throwIfAborted();
  }
}
