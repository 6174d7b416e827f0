/** Vectors of several texts, as all dialects ask for them. */
import type { Model, Pooling } from "../../runtime/types.ts";
import { ApiError } from "../errors.ts";
import type { Prompt } from "./prompt_input.ts";

export interface EmbedAllOptions {
  pooling?: Pooling;
  /** One of the model's prompts. */
  promptName?: string;
  /** Numbers that are kept of each vector. */
  dimensions?: number;
  /** Of the request. */
  signal: AbortSignal;
}

export interface Embedded {
  vectors: Float32Array[];
  /** Of all texts. */
  promptTokens: number;
}

/**
 * All at once: their tokens share the engine's steps.
 *
 * @throws {ApiError} 400 if more dimensions are wanted than there are.
 */
export async function embedAll(
  model: Model,
  prompts: readonly Prompt[],
  { pooling, promptName, dimensions, signal }: EmbedAllOptions,
): Promise<Embedded> {
  checkDimensions(model, dimensions);
  const controller = new AbortController();
  const abort = () => controller.abort();
  signal.addEventListener("abort", abort);
  try {
    const options = { pooling, promptName, signal: controller.signal };
    const embeddings = await Promise.all(prompts.map((prompt) => model.embed(prompt, options)));
    return {
      vectors: embeddings.map(({ values }) => shortened(model, values, dimensions)),
      promptTokens: embeddings.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
    };
  } catch (error) {
    controller.abort();
    throw error;
  } finally {
    // Deno aborts the signals of answered requests too, and warns those who still listen.
    signal.removeEventListener("abort", abort);
  }
}

function checkDimensions({ spec: { hiddenSize } }: Model, dimensions: number | undefined): void {
  if (dimensions === undefined || dimensions <= hiddenSize) return;
  throw new ApiError(
    400,
    "invalid_request_error",
    `Cannot give ${dimensions} dimensions as the model has ${hiddenSize}: ask for fewer`,
    { param: "dimensions" },
  );
}

/** The front of a vector, of length 1 again where the model's vectors are. */
function shortened(
  { embeddingDefaults: { normalize } }: Model,
  values: Float32Array,
  dimensions: number | undefined,
): Float32Array {
  if (dimensions === undefined || dimensions === values.length) return values;
  const front = values.slice(0, dimensions);
  const length = Math.hypot(...front);
  return length === 0 || !normalize ? front : front.map((value) => value / length);
}
