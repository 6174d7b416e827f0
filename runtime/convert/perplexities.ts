/** The perplexity of a text before and after a float model is ternarised. */
import { activeWeights } from "../../codegen/model_spec.ts";
import { perplexity, type PerplexityProgress, type PerplexityResult } from "../perplexity.ts";
import type { OnProgress } from "../types.ts";
import { missingPart, openFloatModel } from "./float_model.ts";
import type { Source } from "./source.ts";

export interface Perplexities {
  /** Of the float model; or why it was not run. */
  before: PerplexityResult | { skipped: string };
  /** Of the converted model. */
  after: PerplexityResult;
}

/** Weights times tokens that the float model is run for: one to three minutes. */
const MOST_PRODUCTS = 1e11;

export interface PerplexityRun {
  text: string;
  chunkTokens?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export async function perplexityBefore(
  source: Source,
  { text, chunkTokens, onProgress, signal }: PerplexityRun,
): Promise<Perplexities["before"]> {
  const { spec, maxPositionEmbeddings, quantization } = source.config;
  if (quantization.kind !== "absmean") {
    return { skipped: "the model is no plain float model: it was trained to be ternary" };
  }
  const missing = missingPart(spec);
  if (missing !== null) return { skipped: `it is not run as floats, as it has ${missing}` };
  const weights = activeWeights(spec) + spec.vocabSize * spec.hiddenSize;
  const tokens = source.tokenizer.encode(text).length;
  if (weights * tokens > MOST_PRODUCTS) {
    return {
      skipped: `it has ${weights} weights for ${tokens} tokens, and floats are run slowly here: ` +
        `give a text of at most ${Math.floor(MOST_PRODUCTS / weights)} tokens`,
    };
  }
  const model = await openFloatModel(source, maxPositionEmbeddings);
  const message = "Perplexity before";
  return await perplexity(model, text, { chunkTokens, signal, ...reporting(message, onProgress) });
}

export async function perplexityAfter(
  path: string,
  { text, chunkTokens, onProgress, signal }: PerplexityRun,
): Promise<PerplexityResult> {
  const { loadModel } = await import("../engine.ts");
  await using model = await loadModel(path, { onProgress, signal });
  const message = "Perplexity after";
  return await perplexity(model, text, { chunkTokens, signal, ...reporting(message, onProgress) });
}

function reporting(message: string, onProgress?: OnProgress) {
  return {
    onChunk: ({ done, total }: PerplexityProgress) =>
      onProgress?.({ phase: "verify", message, done, total: total ?? undefined }),
  };
}
