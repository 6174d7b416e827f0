import type { GenerationResult, Model } from "../runtime/types.ts";
import { digits } from "./format.ts";

/** "prompt 12 tokens 34.5 tokens/s · 128 tokens 56.7 tokens/s · first token 0.12 s · avx512, 2 threads" */
export function statisticsOf(
  { promptTokens, completionTokens, finishReason, timings }: GenerationResult,
  { kernels, threads }: Pick<Model, "kernels" | "threads">,
): string {
  return [
    `prompt ${rate(promptTokens, timings.prefillTokensPerSecond)}`,
    rate(completionTokens, timings.decodeTokensPerSecond),
    `first token ${digits(timings.timeToFirstTokenMs / 1000)} s`,
    `${kernels}, ${plural(threads, "thread")}`,
    ...(finishReason === "abort" ? ["stopped"] : []),
  ].join(" · ");
}

function rate(tokens: number, tokensPerSecond: number): string {
  const count = plural(tokens, "token");
  // One token takes no time to decode after the prompt, so there is no rate.
  return tokensPerSecond > 0 ? `${count} ${digits(tokensPerSecond)} tokens/s` : count;
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
