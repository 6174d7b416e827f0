import type { SequenceWork } from "./scheduler.ts";
import type { Embedding, EmbeddingDefaults, EmbedOptions } from "./types.ts";

/** A sequence that is run once for its hidden states. */
export class EmbeddingWork implements SequenceWork {
  /** A mean is of all positions: none may be skipped because it is known. */
  readonly cachePrompt = false;
  readonly maxTokens: number;
  readonly pending: number[];
  readonly result: Promise<Embedding>;
  #settle!: { resolve: (embedding: Embedding) => void; reject: (error: unknown) => void };
  /** Sum of the states so far, in doubles. */
  #sum: Float64Array | null = null;
  #states = 0;
  #next: number;

  constructor(
    private readonly ids: readonly number[],
    private readonly how: EmbeddingDefaults,
    private readonly options: Pick<EmbedOptions, "signal">,
  ) {
    const { pooling } = how;
    // No later token changes what the first one's state is.
    this.pending = pooling === "cls" ? ids.slice(0, 1) : [...ids];
    this.maxTokens = this.pending.length;
    this.#next = pooling === "last" ? ids.length - 1 : 0;
    this.result = new Promise((resolve, reject) => this.#settle = { resolve, reject });
  }

  get active(): boolean {
    return this.#next < this.maxTokens && !this.options.signal?.aborted;
  }

  candidatesAt(): null {
    return null;
  }

  wantsHiddenAt(position: number): boolean {
    return position >= this.#next;
  }

  accept(): never {
    throw new Error("An embedding has no use for logits");
  }

  acceptHidden(position: number, state: Float32Array): void {
    const sum = this.#sum ??= new Float64Array(state.length);
    for (let i = 0; i < sum.length; i++) sum[i] += state[i];
    this.#next = position + 1;
    this.#states++;
  }

  finish(error?: unknown): void {
    if (error !== undefined) return this.#settle.reject(error);
    if (this.#sum === null || this.#next < this.maxTokens) {
      return this.#settle.reject(this.options.signal?.reason ?? new Error("The text was not run"));
    }
    const mean = this.#sum.map((value) => value / this.#states);
    const values = this.how.normalize ? normalized(mean) : mean;
    this.#settle.resolve({ values: Float32Array.from(values), promptTokens: this.ids.length });
  }
}

/** Scaled to length 1; a vector of zeros stays one. */
function normalized(values: Float64Array): Float64Array {
  const length = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return length > 0 ? values.map((value) => value / length) : values;
}
