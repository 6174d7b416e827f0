import type { SequenceWork } from "./scheduler.ts";
import type { LogitPositions, PositionLogits } from "./types.ts";

/** A sequence that is run once for its logits. */
export class LogitsWork implements SequenceWork {
  /** All positions are looked at: none may be skipped because it is known. */
  readonly cachePrompt = false;
  readonly maxTokens: number;
  readonly pending: number[];
  /** Positions below it have been handed out, and are not asked for again when computed anew. */
  #next: number;
  readonly #end: number;
  readonly #results: PositionLogits[] = [];
  #wake: () => void = () => {};
  #ended = false;
  #error: unknown;

  constructor(
    ids: readonly number[],
    positions: LogitPositions,
    private readonly signal?: AbortSignal,
  ) {
    this.pending = [...ids];
    this.maxTokens = ids.length;
    const { from, to } = rangeOf(positions, ids.length);
    this.#next = from;
    this.#end = to;
  }

  get active(): boolean {
    return this.#next < this.#end && !this.signal?.aborted;
  }

  candidatesAt(position: number): number | null {
    return position >= this.#next && position < this.#end ? 0 : null;
  }

  accept(position: number, logits: Float32Array): void {
    this.#results.push({ position, logits: logits.slice() });
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

/** @throws {RangeError} If there are no such positions. */
function rangeOf(positions: LogitPositions, tokens: number): { from: number; to: number } {
  if (positions === "all") return { from: 0, to: tokens };
  if (positions === "last") return { from: tokens - 1, to: tokens };
  const { from, to } = positions;
  if (Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from < to && to <= tokens) {
    return positions;
  }
  throw new RangeError(
    `Cannot give the logits of positions ${from} to ${to}: give whole numbers, the second larger ` +
      `and at most ${tokens}`,
  );
}
