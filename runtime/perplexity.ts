import { exactExp, exactLog } from "./exact_math.ts";
import { expOfNegative } from "./sampler.ts";
import { type ChunkOptions, ChunkReader, type TextProgress } from "./text_chunks.ts";
import { type TextSource, textSource } from "./text_source.ts";
import type { Model } from "./types.ts";

/** What of the text is run. */
export interface PerplexityOptions extends ChunkOptions {
  /** After each chunk, with the estimate so far. */
  onChunk?: (progress: PerplexityProgress) => void;
  /** Ends it. */
  signal?: AbortSignal;
}

/** How far it is, and the estimate so far. */
export interface PerplexityProgress extends TextProgress {
  /** Of the chunks so far. */
  perplexity: number;
  /** Its error, were the tokens independent. */
  standardError: number;
}

/** How well a model predicts a text. */
export interface PerplexityResult {
  /** exp of the mean negative log likelihood of the predicted tokens. */
  perplexity: number;
  /** Of `perplexity`, were the tokens independent. */
  standardError: number;
  /**
   * Of `perplexity`, from how much chunks differ: larger where the text changes its subject. Null with
   * a single chunk, and to be taken with care with fewer than ten.
   */
  chunkStandardError: number | null;
  /** Tokens that were predicted. */
  tokens: number;
  /** Information of the predicted tokens over the UTF-8 bytes that they stand for. */
  bitsPerByte: number;
  /** Of the text, that were run. */
  chunks: number;
}

/**
 * Perplexity of a text: exp of the mean negative log likelihood of its tokens.
 *
 * As llama.cpp's perplexity tool does it: the text (special tokens in it are ordinary text), with
 * BOS before it where the tokenizer adds one, is cut into chunks of c = `chunkTokens` tokens that do
 * not see one another; a rest shorter than that is left out. With a BOS, it takes the place of each
 * chunk's first token. The first c / 2 tokens (rounded down) of a chunk and the one after them are
 * context only; the c - c / 2 - 1 others are predicted, each from all before it in its chunk.
 *
 * With a `stride` s, a chunk begins every s tokens and its last s tokens are predicted: all of them
 * from at least c - s tokens of context, at c / s times the work.
 *
 * standardError = perplexity * sqrt(var / (tokens - 1)), var the variance of the negative log
 * likelihoods: the first-order error of exp(mean).
 *
 * @throws {RangeError} If the text has fewer tokens than one chunk, or an option is out of range.
 */
export async function perplexity(
  model: Pick<Model, "tokenizer" | "contextSize" | "logits">,
  text: string | TextSource,
  { onChunk, signal, ...options }: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const source = typeof text === "string" ? textSource(text) : text;
  const reader = new ChunkReader(model, source, options);
  const losses = new Losses();
  for await (const { ids, firstScored } of reader.chunks()) {
    const positions = { from: firstScored, to: ids.length - 1 };
    for await (const { position, logits } of model.logits(ids, { positions, signal })) {
      const next = ids[position + 1];
      losses.add(negativeLogLikelihood(logits, next), model.tokenizer.tokenBytes(next).length);
    }
    losses.endChunk();
    onChunk?.({ ...reader.progress, ...losses.estimate });
  }
  return losses.result();
}

/** -log softmax(logits)[id]. */
export function negativeLogLikelihood(logits: Float32Array, id: number): number {
  let highest = -Infinity;
  for (const logit of logits) if (logit > highest) highest = logit;
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += expOfNegative(logits[i] - highest);
  return exactLog(total) - (logits[id] - highest);
}

/** Negative log likelihoods of tokens, in chunks. */
export class Losses {
  #tokens = 0;
  #bytes = 0;
  #sum = 0;
  #squares = 0;
  #chunks = 0;
  /** Of the means of chunks. */
  #chunkSum = 0;
  #chunkSquares = 0;
  #before = { tokens: 0, sum: 0 };

  add(negativeLogLikelihood: number, bytes: number): void {
    this.#tokens++;
    this.#bytes += bytes;
    this.#sum += negativeLogLikelihood;
    this.#squares += negativeLogLikelihood ** 2;
  }

  endChunk(): void {
    const mean = (this.#sum - this.#before.sum) / (this.#tokens - this.#before.tokens);
    this.#chunks++;
    this.#chunkSum += mean;
    this.#chunkSquares += mean ** 2;
    this.#before = { tokens: this.#tokens, sum: this.#sum };
  }

  get mean(): number {
    return this.#sum / this.#tokens;
  }

  get estimate(): { perplexity: number; standardError: number } {
    const perplexity = exactExp(this.mean);
    const error = errorOfMean(this.#sum, this.#squares, this.#tokens);
    return { perplexity, standardError: perplexity * error };
  }

  result(): PerplexityResult {
    const { perplexity, standardError } = this.estimate;
    const chunkError = errorOfMean(this.#chunkSum, this.#chunkSquares, this.#chunks);
    return {
      perplexity,
      standardError,
      chunkStandardError: this.#chunks < 2 ? null : perplexity * chunkError,
      tokens: this.#tokens,
      bitsPerByte: this.#sum / Math.LN2 / this.#bytes,
      chunks: this.#chunks,
    };
  }
}

/** Standard error of the mean of `count` independent numbers, from their sum and that of their squares. */
export function errorOfMean(sum: number, squares: number, count: number): number {
  // Rounding may make the variance of equal numbers a little negative.
  const variance = Math.max(0, squares / count - (sum / count) ** 2);
  return Math.sqrt(variance / (count - 1));
}
