import { exactLog } from "./exact_math.ts";
import { LogHistogram } from "./log_histogram.ts";
import { errorOfMean, Losses } from "./perplexity.ts";
import { expOfNegative } from "./sampler.ts";
import { type ChunkOptions, ChunkReader, type TextProgress } from "./text_chunks.ts";
import { type TextSource, textSource } from "./text_source.ts";
import type { Model, PositionLogits } from "./types.ts";

/** What of the text is run. */
export interface CompareOptions extends ChunkOptions {
  /** After each chunk, with the figures so far. */
  onChunk?: (progress: CompareProgress) => void;
  /** Ends it. */
  signal?: AbortSignal;
}

/** How far a comparison is, and what it has found. */
export interface CompareProgress extends TextProgress {
  /** KL(A || B) of the positions so far, in nats. */
  meanDivergence: number;
  /** Positions of which all logits are the same bits. */
  identicalPositions: number;
  /** Predicted tokens. */
  positions: number;
}

/** A number with its standard error, were the positions independent. */
export interface Estimate {
  /** The mean of the positions. */
  mean: number;
  /** Its error. */
  standardError: number;
}

/** One of the two that are compared. */
export interface ComparedModel {
  /** The model's. */
  name: string;
  /** That it ran with. */
  kernels: string;
  /** How they multiply. */
  scheme: string;
  /** Of the same tokens. */
  perplexity: number;
  /** Were the tokens independent. */
  standardError: number;
  /** From how much chunks differ; null with a single one. */
  chunkStandardError: number | null;
  /** Information of the predicted tokens over their UTF-8 bytes. */
  bitsPerByte: number;
}

/** How far two models' predictions of the same tokens of a text are apart. */
export interface CompareReport {
  /** The first. */
  a: ComparedModel;
  /** The second. */
  b: ComparedModel;
  /** Chunks of the text that both have run. */
  chunks: number;
  /** Predicted tokens: the same that `perplexity` counts. */
  positions: number;
  /** Positions of which all logits are the same bits. */
  identicalPositions: number;
  /** KL(A || B) = sum over tokens of p_A * ln(p_A / p_B), in nats. */
  divergence: Estimate & { median: number; p99: number; max: number };
  /** Share of positions at which both have the same most likely token (the first of equals). */
  topAgreement: Estimate;
  /** Of the logits as they are, over all tokens of the vocabulary at all positions. */
  logitDifference: { mean: number; max: number };
  /** B's perplexity less A's. The error is that of a difference on the same tokens. */
  perplexityDifference: Estimate;
}

/**
 * Runs two models over the same chunks of a text, those of `perplexity`, and compares their
 * distributions at every predicted token. Holds A's logits of half a chunk, whatever the text's length.
 *
 * @throws {RangeError} If their vocabularies differ, the text has fewer tokens than one chunk, or an
 * option is out of range.
 */
export async function compareModels(
  a: Model,
  b: Model,
  text: string | TextSource,
  { onChunk, signal, ...options }: CompareOptions = {},
): Promise<CompareReport> {
  checkSameTokens(a, b);
  const source = typeof text === "string" ? textSource(text) : text;
  const contextSize = Math.min(a.contextSize, b.contextSize);
  const reader = new ChunkReader({ tokenizer: a.tokenizer, contextSize }, source, options);
  const comparison = new Comparison(a, b);
  for await (const { ids, firstScored } of reader.chunks()) {
    const asked = { positions: { from: firstScored, to: ids.length - 1 }, signal };
    const ofA: PositionLogits[] = [];
    for await (const result of a.logits(ids, asked)) ofA.push(result);
    let row = 0;
    for await (const { position, logits } of b.logits(ids, asked)) {
      comparison.add(ofA[row].logits, logits, ids[position + 1]);
      row++;
    }
    comparison.endChunk();
    onChunk?.({ ...reader.progress, ...comparison.estimate });
  }
  return comparison.report();
}

/** Logits can be compared only where a position of the vocabulary is the same token in both. */
function checkSameTokens(a: Model, b: Model): void {
  if (a.spec.vocabSize !== b.spec.vocabSize) {
    throw new RangeError(
      `Cannot compare ${a.name} with ${b.name} as their vocabularies differ: ` +
        `${a.spec.vocabSize} and ${b.spec.vocabSize} tokens, give models with the same tokenizer`,
    );
  }
  for (let id = 0; id < a.spec.vocabSize; id++) {
    const [textA, textB] = [a.tokenizer.tokenText(id), b.tokenizer.tokenText(id)];
    if (textA === textB) continue;
    throw new RangeError(
      `Cannot compare ${a.name} with ${b.name} as their tokenizers differ: token ${id} is ` +
        `${JSON.stringify(textA)} in one and ${JSON.stringify(textB)} in the other, ` +
        "give models with the same tokenizer",
    );
  }
}

/** Sums over positions, in memory that does not grow. */
class Comparison {
  readonly #losses: readonly [Losses, Losses] = [new Losses(), new Losses()];
  readonly #divergences = new LogHistogram();
  readonly #rows: readonly [Distribution, Distribution];
  #positions = 0;
  #identical = 0;
  #sameTop = 0;
  #divergence = 0;
  #divergenceSquares = 0;
  #maxDivergence = 0;
  #logitDifference = 0;
  #maxLogitDifference = 0;
  /** Of the products of both losses. */
  #lossProducts = 0;

  constructor(private readonly a: Model, private readonly b: Model) {
    const { vocabSize } = a.spec;
    this.#rows = [new Distribution(vocabSize), new Distribution(vocabSize)];
  }

  /** @param next The token that came. */
  add(logitsA: Float32Array, logitsB: Float32Array, next: number): void {
    const [rowA, rowB] = this.#rows;
    rowA.read(logitsA);
    rowB.read(logitsB);
    this.#positions++;
    if (rowA.top === rowB.top) this.#sameTop++;
    const isIdentical = this.#addDifferences(logitsA, logitsB);
    if (isIdentical) this.#identical++;
    this.#addDivergence(isIdentical ? 0 : divergenceOf(rowA, rowB));
    const { length } = this.a.tokenizer.tokenBytes(next);
    const losses = [rowA.loss(next), rowB.loss(next)] as const;
    this.#losses.forEach((sums, side) => sums.add(losses[side], length));
    this.#lossProducts += losses[0] * losses[1];
  }

  endChunk(): void {
    for (const losses of this.#losses) losses.endChunk();
  }

  /** @returns Whether all are the same bits. */
  #addDifferences(a: Float32Array, b: Float32Array): boolean {
    const [bitsA, bitsB] = [bitsOf(a), bitsOf(b)];
    let isIdentical = true;
    let sum = 0;
    for (let i = 0; i < bitsA.length; i++) {
      if (bitsA[i] === bitsB[i]) continue;
      isIdentical = false;
      const difference = Math.abs(a[i] - b[i]);
      sum += difference;
      if (difference > this.#maxLogitDifference) this.#maxLogitDifference = difference;
    }
    this.#logitDifference += sum;
    return isIdentical;
  }

  #addDivergence(divergence: number): void {
    this.#divergence += divergence;
    this.#divergenceSquares += divergence ** 2;
    this.#maxDivergence = Math.max(this.#maxDivergence, divergence);
    this.#divergences.add(divergence);
  }

  get estimate() {
    return {
      meanDivergence: this.#divergence / this.#positions,
      identicalPositions: this.#identical,
      positions: this.#positions,
    };
  }

  report(): CompareReport {
    const n = this.#positions;
    const agreement = this.#sameTop / n;
    return {
      a: this.#side(0),
      b: this.#side(1),
      chunks: this.#losses[0].result().chunks,
      positions: n,
      identicalPositions: this.#identical,
      divergence: {
        mean: this.#divergence / n,
        standardError: errorOfMean(this.#divergence, this.#divergenceSquares, n),
        // The histogram's bins are a little wide: never more than what was seen.
        median: Math.min(this.#divergences.quantile(0.5), this.#maxDivergence),
        p99: Math.min(this.#divergences.quantile(0.99), this.#maxDivergence),
        max: this.#maxDivergence,
      },
      topAgreement: {
        mean: agreement,
        standardError: errorOfMean(this.#sameTop, this.#sameTop, n),
      },
      logitDifference: {
        mean: this.#logitDifference / n / this.a.spec.vocabSize,
        max: this.#maxLogitDifference,
      },
      perplexityDifference: this.#perplexityDifference(),
    };
  }

  #side(side: 0 | 1): ComparedModel {
    const { name, kernels, scheme } = side === 0 ? this.a : this.b;
    const { perplexity, standardError, chunkStandardError, bitsPerByte } = this.#losses[side]
      .result();
    return { name, kernels, scheme, perplexity, standardError, chunkStandardError, bitsPerByte };
  }

  /** First order in the means: var = P_A^2 v_A + P_B^2 v_B - 2 P_A P_B cov, of means. */
  #perplexityDifference(): Estimate {
    const [a, b] = this.#losses.map((losses) => losses.estimate);
    const n = this.#positions;
    const [meanA, meanB] = this.#losses.map(({ mean }) => mean);
    const covariance = (this.#lossProducts / n - meanA * meanB) / (n - 1);
    const variance = a.standardError ** 2 + b.standardError ** 2 -
      2 * a.perplexity * b.perplexity * covariance;
    return {
      mean: b.perplexity - a.perplexity,
      standardError: Math.sqrt(Math.max(0, variance)),
    };
  }
}

function bitsOf(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length);
}

/** softmax of a row of logits, with memory that is used again. */
class Distribution {
  top = 0;
  logits: Float32Array = new Float32Array();
  highest = 0;
  /** exp(logit - highest). */
  readonly weights: Float64Array;
  total = 0;
  /** ln(total). */
  logTotal = 0;

  constructor(vocabSize: number) {
    this.weights = new Float64Array(vocabSize);
  }

  /** @throws {Error} If a logit is no number. */
  read(logits: Float32Array): void {
    this.logits = logits;
    this.top = 0;
    for (let i = 1; i < logits.length; i++) if (logits[i] > logits[this.top]) this.top = i;
    this.highest = logits[this.top];
    this.total = 0;
    for (let i = 0; i < logits.length; i++) {
      this.total += this.weights[i] = expOfNegative(logits[i] - this.highest);
    }
    if (!Number.isFinite(this.total)) {
      throw new Error("Cannot compare the models as one has logits that are no numbers");
    }
    this.logTotal = exactLog(this.total);
  }

  /** -ln p of a token. */
  loss(id: number): number {
    return this.logTotal - (this.logits[id] - this.highest);
  }
}

/** KL(A || B) in nats; rounding may make that of nearly equal ones a little negative: then 0. */
function divergenceOf(a: Distribution, b: Distribution): number {
  const shift = a.highest + a.logTotal - b.highest - b.logTotal;
  let sum = 0;
  for (let i = 0; i < a.weights.length; i++) {
    // Weights that are 0 are below e^-700: what they would add is nothing.
    if (a.weights[i] > 0) sum += a.weights[i] * (a.logits[i] - b.logits[i] - shift);
  }
  return Math.max(0, sum / a.total);
}
