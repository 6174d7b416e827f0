import type { GenerationResult, Model, Timings } from "../runtime/types.ts";
import { digits } from "./format.ts";

/** "prompt 12 tokens 34.5 tokens/s · 128 tokens 56.7 tokens/s · first token 0.12 s · 31 of 40 guesses right · avx512-lookup48, 2 threads · two-stage head" */
export function statisticsOf(
  { promptTokens, completionTokens, finishReason, head, timings }: GenerationResult,
  model: Pick<Model, "kernels" | "scheme" | "kernelReason" | "threads">,
): string {
  return [
    `prompt ${rate(promptTokens, timings.prefillTokensPerSecond)}`,
    rate(completionTokens, timings.decodeTokensPerSecond),
    `first token ${digits(timings.timeToFirstTokenMs / 1000)} s`,
    ...drafts(timings),
    `${kernelsOf(model)}, ${plural(model.threads, "thread")}`,
    ...(head === "full" ? [] : [`${head} head`]),
    ...(finishReason === "abort" ? ["stopped"] : []),
  ].join(" · ");
}

/** "31 of 40 guesses right", and nothing where none was run. */
function drafts({ draftTokens, acceptedTokens }: Timings): string[] {
  if (draftTokens === 0) return [];
  return [`${acceptedTokens} of ${plural(draftTokens, "guess", "guesses")} right`];
}

/** "avx512-lookup48, tuned", "portable-multiply", "reference". */
function kernelsOf(
  { kernels, scheme, kernelReason }: Pick<Model, "kernels" | "scheme" | "kernelReason">,
): string {
  const name = kernels === scheme ? kernels : `${kernels}-${scheme}`;
  return kernelReason.startsWith("tuned") ? `${name}, tuned` : name;
}

function rate(tokens: number, tokensPerSecond: number): string {
  const count = plural(tokens, "token");
  // One token takes no time to decode after the prompt, so there is no rate.
  return tokensPerSecond > 0 ? `${count} ${digits(tokensPerSecond)} tokens/s` : count;
}

export function plural(count: number, noun: string, several = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : several}`;
}
