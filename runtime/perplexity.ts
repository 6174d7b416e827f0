import { exactExp, exactLog } from "./exact_math.ts";
import { expOfNegative } from "./sampler.ts";
import type { Model, Tokenizer } from "./types.ts";

export interface PerplexityOptions {
  /** Tokens of a chunk; default: 512 or the model's context, whichever is less. */
  chunkTokens?: number;
  /** After each chunk, with the estimate so far. */
  onChunk?: (progress: PerplexityProgress) => void;
  signal?: AbortSignal;
}

export interface PerplexityProgress {
  done: number;
  total: number;
  perplexity: number;
}

export interface PerplexityResult {
  perplexity: number;
  /** Of `perplexity`, were the tokens independent. */
  standardError: number;
  /** Tokens that were predicted. */
  tokens: number;
  /** Information of the predicted tokens over the UTF-8 bytes that they stand for. */
  bitsPerByte: number;
  chunks: number;
}

/** llama.cpp's default. */
const DEFAULT_CHUNK_TOKENS = 512;
/** A chunk needs a context and at least two tokens to predict: one has no deviation. */
const LEAST_CHUNK_TOKENS = 5;

/**
 * Perplexity of a text: exp of the mean negative log likelihood of its tokens.
 *
 * As llama.cpp's perplexity tool does it: the text (special tokens in it are ordinary text), with
 * BOS before it where the tokenizer adds one, is cut into chunks of c = `chunkTokens` tokens that do
 * not see one another; a rest shorter than that is left out. With a BOS, it takes the place of each
 * chunk's first token. The first c / 2 tokens (rounded down) of a chunk and the one after them are
 * context only; the c - c / 2 - 1 others are predicted, each from all before it in its chunk.
 *
 * standardError = perplexity * sqrt(var / (tokens - 1)), var the variance of the negative log
 * likelihoods: the first-order error of exp(mean).
 *
 * @throws {RangeError} If the text has fewer tokens than one chunk, or chunkTokens is out of range.
 */
export async function perplexity(
  model: Model,
  text: string,
  { chunkTokens, onChunk, signal }: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const size = chunkTokens ?? Math.min(DEFAULT_CHUNK_TOKENS, model.contextSize);
  const { ids, bos } = textIds(model.tokenizer, text);
  checkSizes(size, ids.length, model.contextSize);
  const total = Math.floor(ids.length / size);
  const sums = new Sums();
  for (let chunk = 0; chunk < total; chunk++) {
    const chunkIds = ids.slice(chunk * size, (chunk + 1) * size);
    if (bos !== null) chunkIds[0] = bos;
    await scoreChunk(model, chunkIds, sums, signal);
    onChunk?.({ done: chunk + 1, total, perplexity: sums.perplexity });
  }
  return { ...sums.result(), chunks: total };
}

function checkSizes(chunkTokens: number, textTokens: number, contextSize: number): void {
  const inRange = Number.isInteger(chunkTokens) && chunkTokens >= LEAST_CHUNK_TOKENS &&
    chunkTokens <= contextSize;
  if (!inRange) {
    throw new RangeError(
      `Cannot compute a perplexity as --ctx must be a whole number from ${LEAST_CHUNK_TOKENS} to ` +
        `the model's context of ${contextSize}: current value is ${chunkTokens}`,
    );
  }
  if (textTokens >= chunkTokens) return;
  throw new RangeError(
    `Cannot compute a perplexity as the text must fill a chunk of ${chunkTokens} tokens: it has ` +
      `${textTokens}, give a longer text or a smaller --ctx`,
  );
}

/** Ids of the text, and the BOS with which they start if the tokenizer adds one. */
function textIds(tokenizer: Tokenizer, text: string): { ids: number[]; bos: number | null } {
  const plain = tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
  const [first] = tokenizer.encode("a");
  // What is added before any text; tokens added after it would not belong between chunks.
  const addsFirst = first !== tokenizer.encode("a", { addSpecialTokens: false })[0];
  return addsFirst ? { ids: [first, ...plain], bos: first } : { ids: plain, bos: null };
}

async function scoreChunk(
  model: Model,
  ids: readonly number[],
  sums: Sums,
  signal: AbortSignal | undefined,
): Promise<void> {
  const firstScored = Math.floor(ids.length / 2);
  for await (const { position, logits } of model.logits(ids, { positions: "all", signal })) {
    if (position < firstScored || position === ids.length - 1) continue;
    const next = ids[position + 1];
    sums.add(negativeLogLikelihood(logits, next), model.tokenizer.tokenBytes(next).length);
  }
}

/** -log softmax(logits)[id]. */
export function negativeLogLikelihood(logits: Float32Array, id: number): number {
  let highest = -Infinity;
  for (const logit of logits) if (logit > highest) highest = logit;
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += expOfNegative(logits[i] - highest);
  return exactLog(total) - (logits[id] - highest);
}

class Sums {
  #tokens = 0;
  #bytes = 0;
  #sum = 0;
  #squares = 0;

  add(negativeLogLikelihood: number, bytes: number): void {
    this.#tokens++;
    this.#bytes += bytes;
    this.#sum += negativeLogLikelihood;
    this.#squares += negativeLogLikelihood ** 2;
  }

  get perplexity(): number {
    return exactExp(this.#sum / this.#tokens);
  }

  result(): Omit<PerplexityResult, "chunks"> {
    const mean = this.#sum / this.#tokens;
    // Rounding may make the variance of equal numbers a little negative.
    const variance = Math.max(0, this.#squares / this.#tokens - mean ** 2);
    return {
      perplexity: this.perplexity,
      standardError: this.perplexity * Math.sqrt(variance / (this.#tokens - 1)),
      tokens: this.#tokens,
      bitsPerByte: this.#sum / Math.LN2 / this.#bytes,
    };
  }
}
