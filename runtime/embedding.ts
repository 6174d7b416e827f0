import type { Pooling } from "./pooling.ts";
import type { SequenceWork } from "./scheduler.ts";
import type { Embedding, EmbeddingDefaults, EmbedOptions } from "./types.ts";

/** How a text's vector is made. */
export interface EmbeddingPlan extends EmbeddingDefaults {
  /** Tokens of a prompt before the text whose states do not count, where all are pooled. */
  skipped?: number;
}

/** States of positions that come one after the other, as one vector. In doubles. */
class Pool {
  readonly #pooling: Pooling;
  #values: Float64Array | null = null;
  #weights = 0;

  constructor(pooling: Pooling) {
    this.#pooling = pooling;
  }

  add(position: number, state: Float32Array): void {
    const isLargest = this.#pooling === "max";
    const values = this.#values ??= new Float64Array(state.length).fill(isLargest ? -Infinity : 0);
    const weight = this.#pooling === "weightedmean" ? position + 1 : 1;
    for (let i = 0; i < values.length; i++) {
      values[i] = isLargest ? Math.max(values[i], state[i]) : values[i] + weight * state[i];
    }
    this.#weights += weight;
  }

  /** Null where nothing was added. */
  vector(): Float64Array | null {
    if (this.#pooling === "max") return this.#values;
    const divisor = this.#pooling === "mean_sqrt_len_tokens"
      ? Math.sqrt(this.#weights)
      : this.#weights;
    return this.#values?.map((value) => value / divisor) ?? null;
  }
}

/** A sequence that is run once for its hidden states. */
export class EmbeddingWork implements SequenceWork {
  /** A mean is of all positions: none may be skipped because it is known. */
  readonly cachePrompt = false;
  readonly maxTokens: number;
  readonly pending: number[];
  readonly result: Promise<Embedding>;
  #settle!: { resolve: (embedding: Embedding) => void; reject: (error: unknown) => void };
  readonly #pool: Pool;
  #next: number;

  constructor(
    private readonly ids: readonly number[],
    private readonly how: EmbeddingPlan,
    private readonly options: Pick<EmbedOptions, "signal">,
  ) {
    const { pooling } = how;
    // No later token changes what the first one's state is.
    this.pending = pooling === "cls" ? ids.slice(0, 1) : [...ids];
    this.maxTokens = this.pending.length;
    // A text without tokens of its own leaves the last one of its prompt.
    const first = pooling === "cls" ? 0 : how.skipped ?? 0;
    this.#next = Math.min(pooling === "last" ? ids.length : first, ids.length - 1);
    this.#pool = new Pool(pooling);
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
    this.#pool.add(position, state);
    this.#next = position + 1;
  }

  finish(error?: unknown): void {
    if (error !== undefined) return this.#settle.reject(error);
    const vector = this.#pool.vector();
    if (vector === null || this.#next < this.maxTokens) {
      return this.#settle.reject(this.options.signal?.reason ?? new Error("The text was not run"));
    }
    const values = this.how.normalize ? normalized(vector) : vector;
    this.#settle.resolve({ values: Float32Array.from(values), promptTokens: this.ids.length });
  }
}

/** Scaled to length 1; a vector of zeros stays one. */
function normalized(values: Float64Array): Float64Array {
  const length = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return length > 0 ? values.map((value) => value / length) : values;
}
