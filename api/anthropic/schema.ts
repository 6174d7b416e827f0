import { z } from "@hono/zod-openapi";
import { numeric } from "../completion/options_schema.ts";
import { SAMPLER_RANGES } from "../../runtime/sampler.ts";

const TextBlock = z.object({ type: z.literal("text"), text: z.string() });
const Text = z.union([z.string(), z.array(TextBlock)]);

const Block = z.discriminatedUnion("type", [
  TextBlock,
  z.object({
    type: z.literal("tool_use"),
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
  z.object({
    type: z.literal("tool_result"),
    tool_use_id: z.string(),
    content: Text.nullish(),
    is_error: z.boolean().nullish(),
  }),
  // Clients send back what other models thought: it is not said again.
  z.object({ type: z.literal("thinking"), thinking: z.string() }),
  z.object({ type: z.literal("redacted_thinking"), data: z.string() }),
], "only text, tool_use and tool_result blocks are supported");

const Message = z.object({
  role: z.enum(["user", "assistant", "system"]),
  content: z.union([z.string(), z.array(Block)]),
});

const Tool = z.object({
  type: z.literal("custom", "only tools of type custom are supported").nullish(),
  name: z.string().min(1).max(128),
  description: z.string().nullish(),
  input_schema: z.record(z.string(), z.unknown()),
});

const disable_parallel_tool_use = z.boolean().nullish();
const ToolChoice = z.discriminatedUnion("type", [
  z.object({ type: z.literal("auto"), disable_parallel_tool_use }),
  z.object({ type: z.literal("any"), disable_parallel_tool_use }),
  z.object({ type: z.literal("tool"), name: z.string().min(1), disable_parallel_tool_use }),
  z.object({ type: z.literal("none") }),
]);

const JsonFormat = z.object({
  type: z.literal("json_schema"),
  schema: z.record(z.string(), z.unknown()),
});

const prompt = {
  model: z.string().nullish().openapi({ description: "Default: the model that is served" }),
  system: Text.nullish(),
  messages: z.array(Message).min(1),
  tools: z.array(Tool).nullish(),
  tool_choice: ToolChoice.nullish(),
};

export const CountRequest = z.object(prompt).openapi("CountTokensRequest");
export const TokenCount = z.object({ input_tokens: z.int() }).openapi("TokenCount");

export const MessagesRequest = z.object({
  ...prompt,
  max_tokens: z.int().min(1),
  stream: z.boolean().nullish(),
  stop_sequences: z.array(z.string().min(1)).max(16).nullish(),
  temperature: numeric(SAMPLER_RANGES.temperature, "0 takes the likeliest token"),
  top_k: numeric(SAMPLER_RANGES.topK, "Draw from so many likeliest tokens; 0: all"),
  top_p: numeric(SAMPLER_RANGES.topP, "Draw from the likeliest tokens of this mass together"),
  output_config: z.object({ format: JsonFormat.nullish() }).nullish(),
}).openapi("MessagesRequest");

export type CountBody = z.output<typeof CountRequest>;
export type MessagesBody = z.output<typeof MessagesRequest>;

const Usage = z.object({
  input_tokens: z.int().openapi({ description: "Prompt tokens that were computed" }),
  output_tokens: z.int(),
  cache_read_input_tokens: z.int().openapi({ description: "Prompt tokens that were in the cache" }),
  cache_creation_input_tokens: z.int(),
});

const StopReason = z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]);

const ContentBlock = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text"), text: z.string(), citations: z.null() }),
  z.object({
    type: z.literal("tool_use"),
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
]);

export const AnthropicMessage = z.object({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  content: z.array(ContentBlock),
  stop_reason: StopReason.nullable(),
  stop_sequence: z.string().nullable(),
  usage: Usage,
}).openapi("AnthropicMessage");

const Delta = z.union([
  z.object({ type: z.literal("text_delta"), text: z.string() }),
  z.object({ type: z.literal("input_json_delta"), partial_json: z.string() }),
]);

/** Events of a stream, in this order; block by block. */
export const MessageEvent = z.union([
  z.object({ type: z.literal("message_start"), message: AnthropicMessage }),
  z.object({
    type: z.literal("content_block_start"),
    index: z.int(),
    content_block: ContentBlock,
  }),
  z.object({ type: z.literal("content_block_delta"), index: z.int(), delta: Delta }),
  z.object({ type: z.literal("content_block_stop"), index: z.int() }),
  z.object({
    type: z.literal("message_delta"),
    delta: z.object({ stop_reason: StopReason, stop_sequence: z.string().nullable() }),
    usage: Usage,
  }),
  z.object({ type: z.literal("message_stop") }),
  z.object({ type: z.literal("ping") }),
]).openapi("MessageEvent");
