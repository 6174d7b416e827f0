import { z } from "@hono/zod-openapi";
import { numeric, Stop } from "../completion/options_schema.ts";
import { tokenIds } from "../completion/prompt_input.ts";
import { SAMPLER_RANGES } from "../../runtime/sampler.ts";

const ranges = SAMPLER_RANGES;

const Options = z.object({
  num_predict: z.int().min(-2).nullish().openapi({
    description: "Most tokens; below 0: as many as fit",
  }),
  num_ctx: z.int().min(0).nullish().openapi({
    description: "Not heeded: the context is what the server was started with, and a prompt that " +
      "does not fit is refused",
  }),
  seed: numeric({ ...ranges.seed, least: -1 }, "-1: a random one"),
  temperature: numeric(ranges.temperature, "0 takes the likeliest token"),
  top_k: numeric({ ...ranges.topK, least: -1 }, "Draw from so many likeliest tokens; 0, -1: all"),
  top_p: numeric(ranges.topP, "Draw from the likeliest tokens of this mass together"),
  min_p: numeric(ranges.minP, "Draw from tokens so many times as likely as the best"),
  typical_p: numeric(ranges.typicalP, "Draw from the locally typical tokens of this mass"),
  repeat_penalty: numeric(ranges.repeatPenalty, "Divides logits of tokens seen lately"),
  repeat_last_n: numeric(ranges.penaltyLastN, "Tokens that penalties look back on; -1: all"),
  presence_penalty: numeric(ranges.presencePenalty, "Taken off tokens seen lately"),
  frequency_penalty: numeric(ranges.frequencyPenalty, "Taken off every time it was seen"),
  stop: Stop,
}).nullish();

const images = z.array(z.unknown()).max(0, "only text is supported").nullish();

/** What completions of both kinds are asked with. */
const shared = {
  model: z.string().nullish().openapi({ description: "Default: the model that is served" }),
  stream: z.boolean().nullish().openapi({ description: "Default true" }),
  format: z.union([z.enum(["json", ""]), z.record(z.string(), z.unknown())]).nullish().openapi({
    description: "json, or a JSON schema: the answer is valid",
  }),
  options: Options,
  keep_alive: z.union([z.string(), z.number()]).nullish().openapi({
    description: "Not heeded: the model stays loaded",
  }),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
};

export const GenerateRequest = z.object({
  ...shared,
  prompt: z.string().nullish().openapi({ description: "Without one nothing is generated" }),
  suffix: z.literal("", "text can't be filled in between, leave it out").nullish(),
  template: z.literal("", "the model's own template is used, leave it out or set raw").nullish(),
  system: z.string().nullish(),
  raw: z.boolean().nullish().openapi({ description: "The prompt is all that the model sees" }),
  context: tokenIds(0).nullish().openapi({
    description: "Tokens of an earlier answer, to go on from",
  }),
  images,
}).openapi("OllamaGenerateRequest");

const Call = z.object({
  function: z.object({ name: z.string(), arguments: z.record(z.string(), z.unknown()) }),
});

const Message = z.object({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string().nullish(),
  images,
  tool_calls: z.array(Call).nullish(),
  tool_name: z.string().nullish(),
});

const Tool = z.object({
  type: z.literal("function").nullish(),
  function: z.object({
    name: z.string().min(1).max(128),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
  }),
});

export const ChatRequest = z.object({
  ...shared,
  messages: z.array(Message).nullish().openapi({
    description: "Without any nothing is generated",
  }),
  tools: z.array(Tool).nullish(),
}).openapi("OllamaChatRequest");

export type GenerateBody = z.output<typeof GenerateRequest>;
export type ChatBody = z.output<typeof ChatRequest>;

const Token = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()) });
const Logprobs = z.array(Token.extend({ top_logprobs: z.array(Token) })).optional();

/** Of every line; the counts and durations (nanoseconds) are in the last one. */
const line = {
  model: z.string(),
  created_at: z.string(),
  done: z.boolean(),
  done_reason: z.enum(["stop", "length", "load"]).optional(),
  total_duration: z.int().optional(),
  load_duration: z.int().optional(),
  prompt_eval_count: z.int().optional(),
  prompt_eval_duration: z.int().optional(),
  eval_count: z.int().optional(),
  eval_duration: z.int().optional(),
  logprobs: Logprobs,
};

export const GenerateAnswer = z.object({
  ...line,
  response: z.string(),
  context: z.array(z.int()).optional(),
}).openapi("OllamaGenerateAnswer");

export const ChatAnswer = z.object({
  ...line,
  message: z.object({
    role: z.literal("assistant"),
    content: z.string(),
    tool_calls: z.array(Call).optional(),
  }),
}).openapi("OllamaChatAnswer");
