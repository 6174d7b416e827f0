/** What a request cost. */
import type { GenerationResult } from "../../runtime/types.ts";

export interface Usage {
  /** Of every prompt once, however many choices it has. */
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
}

/** @param results Choices of the prompts, in order. */
export function usageOf(results: readonly GenerationResult[], choicesPerPrompt: number): Usage {
  const firsts = results.filter((_, choice) => choice % choicesPerPrompt === 0);
  return {
    promptTokens: sum(firsts, ({ promptTokens }) => promptTokens),
    cachedTokens: sum(firsts, ({ cachedTokens }) => cachedTokens),
    completionTokens: sum(results, ({ completionTokens }) => completionTokens),
  };
}

/** By llama-server's names. Of several choices the slowest one's times count, as they run together. */
export function timingsOf(results: readonly GenerationResult[], choicesPerPrompt: number) {
  const { promptTokens, cachedTokens, completionTokens } = usageOf(results, choicesPerPrompt);
  const promptN = promptTokens - cachedTokens;
  const promptMs = Math.max(...results.map(({ timings }) => timings.prefillMs));
  // The first token of a choice is the prefill's.
  const decodedN = Math.max(0, completionTokens - results.length);
  const predictedMs = Math.max(...results.map(({ timings }) => timings.decodeMs));
  return {
    cache_n: cachedTokens,
    prompt_n: promptN,
    prompt_ms: promptMs,
    prompt_per_token_ms: ratio(promptMs, promptN),
    prompt_per_second: ratio(promptN, promptMs / 1000),
    predicted_n: completionTokens,
    predicted_ms: predictedMs,
    predicted_per_token_ms: ratio(predictedMs, decodedN),
    predicted_per_second: ratio(decodedN, predictedMs / 1000),
    draft_n: sum(results, ({ timings }) => timings.draftTokens),
    draft_n_accepted: sum(results, ({ timings }) => timings.acceptedTokens),
  };
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

function ratio(a: number, b: number): number {
  return b > 0 ? a / b : 0;
}
