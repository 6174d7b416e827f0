import { z } from "@hono/zod-openapi";
import type { Usage as Tokens } from "../completion/usage.ts";

export const Usage = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }),
}).openapi("Usage");

export const Timings = z.object({
  cache_n: z.int().openapi({ description: "Prompt tokens that were in the cache" }),
  prompt_n: z.int().openapi({ description: "Prompt tokens that were computed" }),
  prompt_ms: z.number(),
  prompt_per_token_ms: z.number(),
  prompt_per_second: z.number(),
  predicted_n: z.int(),
  predicted_ms: z.number(),
  predicted_per_token_ms: z.number(),
  predicted_per_second: z.number(),
  draft_n: z.int(),
  draft_n_accepted: z.int(),
}).openapi("Timings");

export function openAiUsage({ promptTokens, cachedTokens, completionTokens }: Tokens) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
