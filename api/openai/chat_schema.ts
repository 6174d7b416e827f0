import { z } from "@hono/zod-openapi";
import {
  engineFields,
  LogitBias,
  MOST_CHOICES,
  samplingFields,
  Stop,
} from "../completion/options_schema.ts";
import { constraintFields } from "./constraint_schema.ts";
import { ChatLogprobs } from "./logprobs.ts";
import { Timings, Usage } from "./usage.ts";

const TextPart = z.object({
  type: z.literal("text", "only text is supported, give parts of type text"),
  text: z.string(),
});
const Content = z.union([z.string(), z.array(TextPart)]);

const CallOfHistory = z.object({
  id: z.string(),
  type: z.literal("function").optional(),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

export const ChatMessage = z.discriminatedUnion("role", [
  z.object({
    role: z.enum(["system", "developer", "user"]),
    content: Content,
    name: z.string().nullish(),
  }),
  z.object({
    role: z.literal("assistant"),
    content: Content.nullish(),
    name: z.string().nullish(),
    tool_calls: z.array(CallOfHistory).nullish(),
  }),
  z.object({
    role: z.literal("tool"),
    content: Content,
    name: z.string().nullish(),
    tool_call_id: z.string().nullish(),
  }),
]).openapi("ChatMessage");

export const FunctionTool = z.object({
  type: z.literal("function"),
  function: z.object({
    name: z.string().min(1).max(128),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
  }),
});

const ToolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), function: z.object({ name: z.string().min(1) }) }),
]);

export const ChatRequest = z.object({
  model: z.string().nullish().openapi({ description: "Default: the model that is served" }),
  messages: z.array(ChatMessage).min(1),
  max_tokens: z.int().min(-1).nullish(),
  max_completion_tokens: z.int().min(-1).nullish(),
  ...samplingFields,
  stop: Stop,
  logit_bias: LogitBias,
  n: z.int().min(1).max(MOST_CHOICES).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  tools: z.array(FunctionTool).nullish(),
  tool_choice: ToolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  ...constraintFields,
  ...engineFields,
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish().openapi({
    description: "Variables for the chat template",
  }),
}).openapi("ChatRequest");

export type ChatBody = z.output<typeof ChatRequest>;

const FinishReason = z.enum(["stop", "length", "tool_calls"]);

const CallOfAnswer = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

const head = { id: z.string(), created: z.int(), model: z.string() };

export const ChatCompletion = z.object({
  ...head,
  object: z.literal("chat.completion"),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({
      role: z.literal("assistant"),
      content: z.string().nullable(),
      refusal: z.null(),
      tool_calls: z.array(CallOfAnswer).optional(),
    }),
    logprobs: z.union([ChatLogprobs, z.null()]),
    finish_reason: FinishReason,
  })),
  usage: Usage,
  timings: Timings,
}).openapi("ChatCompletion");

const CallDelta = z.object({
  index: z.int(),
  id: z.string().optional(),
  type: z.literal("function").optional(),
  function: z.object({ name: z.string().optional(), arguments: z.string() }),
});

/** One `data:` line of a stream. */
export const ChatCompletionChunk = z.object({
  ...head,
  object: z.literal("chat.completion.chunk"),
  choices: z.array(z.object({
    index: z.int(),
    delta: z.object({
      role: z.literal("assistant").optional(),
      content: z.string().optional(),
      tool_calls: z.array(CallDelta).optional(),
    }),
    logprobs: z.union([ChatLogprobs, z.null()]),
    finish_reason: FinishReason.nullable(),
  })),
  usage: z.union([Usage, z.null()]).optional(),
  timings: Timings.optional(),
}).openapi("ChatCompletionChunk");
