/** The perplexity of a text before and after a float model is ternarised. */
import { activeWeights } from "../../codegen/model_spec.ts";
import { perplexity, type PerplexityProgress, type PerplexityResult } from "../perplexity.ts";
import { type ChunkOptions, ChunkReader } from "../text_chunks.ts";
import { type TextSource, textSource } from "../text_source.ts";
import type { OnProgress, Tokenizer } from "../types.ts";
import { missingPart, openFloatModel } from "./float_model.ts";
import { nativeProducts } from "./float_products.ts";
import type { Source } from "./source.ts";

export interface Perplexities {
  /** Of the float model; or why it was not run. */
  before: PerplexityResult | { skipped: string };
  /** Of the converted model. */
  after: PerplexityResult;
}

/** Weights times tokens that the float model is run for: some minutes on two cores. */
const MOST_PRODUCTS = 5e12;

export interface PerplexityRun extends Pick<ChunkOptions, "chunkTokens" | "chunks"> {
  /** Is read more than once, so that its parts must be those of a list or a file. */
  text: string | TextSource;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** @throws {RangeError} If the text is too short, whether or not the float model is run. */
export async function perplexityBefore(
  source: Source,
  run: PerplexityRun,
): Promise<Perplexities["before"]> {
  const { spec, maxPositionEmbeddings: contextSize, quantization } = source.config;
  const weights = activeWeights(spec) + spec.vocabSize * spec.hiddenSize;
  const most = Math.floor(MOST_PRODUCTS / weights);
  const isShort = await hasAtMost(most, source.tokenizer, contextSize, run);
  if (quantization.kind !== "absmean") {
    return { skipped: "the model is no plain float model: it was trained to be ternary" };
  }
  const missing = missingPart(spec);
  if (missing !== null) return { skipped: `it is not run as floats, as it has ${missing}` };
  if (!isShort) {
    return {
      skipped:
        `it has ${weights} weights, of which each takes time for each token: give --chunks and ` +
        `--ctx of at most ${most} tokens together, or so short a text`,
    };
  }
  const { text, onProgress, signal, ...options } = run;
  using products = await nativeProducts({ onProgress, signal });
  const model = openFloatModel(source, contextSize, products);
  const reports = reporting("Perplexity before", onProgress);
  return await perplexity(model, text, { ...options, signal, ...reports });
}

/** Whether so many tokens are all that is run of the text, which is read as far as it takes to know. */
async function hasAtMost(
  most: number,
  tokenizer: Tokenizer,
  contextSize: number,
  { text, ...options }: PerplexityRun,
): Promise<boolean> {
  const source = typeof text === "string" ? textSource(text) : text;
  let tokens = 0;
  for await (
    const { ids } of new ChunkReader({ tokenizer, contextSize }, source, options).chunks()
  ) {
    tokens += ids.length;
    if (tokens > most) return false;
  }
  return true;
}

export async function perplexityAfter(
  path: string,
  { text, onProgress, ...options }: PerplexityRun,
): Promise<PerplexityResult> {
  const { loadModel } = await import("../engine.ts");
  await using model = await loadModel(path, { onProgress, signal: options.signal });
  const message = "Perplexity after";
  return await perplexity(model, text, { ...options, ...reporting(message, onProgress) });
}

function reporting(message: string, onProgress?: OnProgress) {
  return {
    onChunk: ({ done, total }: PerplexityProgress) =>
      onProgress?.({ phase: "verify", message, done, total: total ?? undefined }),
  };
}
