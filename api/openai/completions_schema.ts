import { z } from "@hono/zod-openapi";
import {
  engineFields,
  LogitBias,
  MOST_CHOICES,
  samplingFields,
  Stop,
} from "../completion/options_schema.ts";
import { promptInput } from "../completion/prompt_input.ts";
import { constraintFields } from "./constraint_schema.ts";
import { CompletionLogprobs } from "./logprobs.ts";
import { Timings, Usage } from "./usage.ts";

export const CompletionsRequest = z.object({
  model: z.string().nullish().openapi({ description: "Default: the model that is served" }),
  prompt: promptInput(MOST_CHOICES),
  max_tokens: z.int().min(-1).nullish().openapi({ description: "Default 16; -1: as many as fit" }),
  ...samplingFields,
  stop: Stop,
  logit_bias: LogitBias,
  n: z.int().min(1).max(MOST_CHOICES).nullish(),
  best_of: z.int().min(1).max(MOST_CHOICES).nullish().openapi({
    description: "Only as many as n: all choices are given out",
  }),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  logprobs: z.int().min(0).max(20).nullish(),
  echo: z.boolean().nullish().openapi({ description: "Begin with the prompt" }),
  suffix: z.literal("", "text can't be filled in between, leave it out").nullish(),
  ...constraintFields,
  ...engineFields,
}).openapi("CompletionsRequest");

export type CompletionsBody = z.output<typeof CompletionsRequest>;

/** Whole, or one `data:` line of a stream: these are the same. */
export const TextCompletion = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    text: z.string(),
    logprobs: z.union([CompletionLogprobs, z.null()]),
    finish_reason: z.enum(["stop", "length"]).nullable(),
  })),
  usage: z.union([Usage, z.null()]).optional(),
  timings: Timings.optional(),
}).openapi("TextCompletion");
