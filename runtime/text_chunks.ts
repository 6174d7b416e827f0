import { encodePieces, type TextSource } from "./text_source.ts";
import type { Model, Tokenizer } from "./types.ts";

/** How a text is cut into what a model sees at once. */
export interface ChunkOptions {
  /** Tokens of a chunk; default: 512 or the model's context, whichever is less. */
  chunkTokens?: number;
  /**
   * Tokens from one chunk's start to the next's, and predicted in each; default: chunks follow one
   * another, and the second half of each is predicted.
   */
  stride?: number;
  /** Most chunks. Default: all. */
  chunks?: number;
}

/** Tokens that a model sees at once, without those before it. */
export interface Chunk {
  ids: number[];
  /** Position of the first token whose successor is predicted. */
  firstScored: number;
}

/** How far one is in a text. */
export interface TextProgress {
  /** Chunks that have been run. */
  done: number;
  /** Chunks of the whole text; an estimate while the end is not in sight, null without one. */
  total: number | null;
  /** Whether `total` is one. */
  isEstimate: boolean;
}

/** llama.cpp's default. */
const DEFAULT_CHUNK_TOKENS = 512;
/** A chunk needs a context and at least two tokens to predict: one has no deviation. */
const LEAST_CHUNK_TOKENS = 5;

/** Chunks of a text as it is read, so that it need not fit in memory. */
export class ChunkReader {
  readonly size: number;
  readonly #step: number;
  readonly #most: number;
  readonly #bos: number | null;
  readonly #tokenizer: Tokenizer;
  readonly #source: TextSource;
  readonly #firstScored: number;
  #pending: number[] = [];
  #done = 0;
  #tokens = 0;
  #bytes = 0;
  #hasEnded = false;

  /** @throws {RangeError} If an option is out of range. */
  constructor(
    { tokenizer, contextSize }: Pick<Model, "tokenizer" | "contextSize">,
    source: TextSource,
    { chunkTokens, stride, chunks = Infinity }: ChunkOptions = {},
  ) {
    this.size = chunkTokens ?? Math.min(DEFAULT_CHUNK_TOKENS, contextSize);
    checkRange("--ctx", this.size, LEAST_CHUNK_TOKENS, contextSize, "the model's context");
    if (stride !== undefined) {
      checkRange("--stride", stride, 2, this.size - 1, "a chunk but one token");
    }
    if (chunks !== Infinity) checkRange("--chunks", chunks, 1, Number.MAX_SAFE_INTEGER, "any");
    this.#step = stride ?? this.size;
    this.#firstScored = stride === undefined ? Math.floor(this.size / 2) : this.size - stride - 1;
    this.#most = chunks;
    this.#tokenizer = tokenizer;
    this.#source = source;
    this.#bos = bosOf(tokenizer);
  }

  /** @throws {RangeError} If the text has fewer tokens than one chunk. */
  async *chunks(): AsyncGenerator<Chunk> {
    if (this.#bos !== null) this.#take([this.#bos]);
    for await (const { ids, bytes, isLast } of encodePieces(this.#tokenizer, this.#source)) {
      this.#take(ids);
      this.#bytes += bytes;
      this.#hasEnded = isLast;
      yield* this.#whole();
      if (this.#done >= this.#most) return;
    }
    if (this.#done > 0) return;
    throw new RangeError(
      `Cannot measure the text as it must fill a chunk of ${this.size} tokens: it has ` +
        `${this.#tokens}, give a longer text or a smaller --ctx`,
    );
  }

  get progress(): TextProgress {
    const { bytes } = this.#source;
    const left = this.#hasEnded
      ? 0
      : bytes === null || this.#bytes === 0
      ? null
      : this.#tokens * Math.max(0, bytes - this.#bytes) / this.#bytes;
    const known = { done: this.#done, isEstimate: left !== 0 };
    if (left === null) {
      const total = this.#most === Infinity ? null : this.#most;
      return { ...known, total };
    }
    const more = Math.floor((this.#pending.length + left - this.size) / this.#step) + 1;
    return { ...known, total: Math.min(this.#most, this.#done + Math.max(0, more)) };
  }

  #take(ids: readonly number[]): void {
    this.#tokens += ids.length;
    this.#pending = this.#pending.concat(ids);
  }

  *#whole(): Generator<Chunk> {
    let start = 0;
    const pending = this.#pending;
    while (start + this.size <= pending.length && this.#done < this.#most) {
      const ids = pending.slice(start, start + this.size);
      if (this.#bos !== null) ids[0] = this.#bos;
      start += this.#step;
      this.#done++;
      this.#pending = pending.slice(start);
      yield { ids, firstScored: this.#firstScored };
    }
  }
}

function checkRange(flag: string, value: number, least: number, most: number, what: string): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new RangeError(
    `Cannot measure the text as ${flag} must be a whole number from ${least} to ${what} of ` +
      `${most}: current value is ${value}`,
  );
}

/** What the tokenizer adds before any text; tokens added after it would not belong between chunks. */
function bosOf(tokenizer: Tokenizer): number | null {
  const [first] = tokenizer.encode("a");
  return first === tokenizer.encode("a", { addSpecialTokens: false })[0] ? null : first;
}
