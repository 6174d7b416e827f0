import { z } from "@hono/zod-openapi";
import { samplingFields } from "../completion/options_schema.ts";
import { ChatLogprobs } from "./logprobs.ts";

const InputPart = z.object({
  type: z.enum(["input_text", "output_text", "text"], {
    error: "only text is supported, give parts of type input_text",
  }),
  text: z.string(),
});
const Text = z.union([z.string(), z.array(InputPart)]);

/** What was said, called and answered before. */
const InputItem = z.union([
  z.object({
    type: z.literal("message").nullish(),
    role: z.enum(["user", "assistant", "system", "developer"]),
    content: Text,
  }),
  z.object({
    type: z.literal("function_call"),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
  }),
  z.object({ type: z.literal("function_call_output"), call_id: z.string(), output: Text }),
]);

const FunctionTool = z.object({
  type: z.literal("function", "only functions are supported"),
  name: z.string().min(1).max(128),
  description: z.string().nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
  strict: z.boolean().nullish(),
});

const ToolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), name: z.string().min(1) }),
]);

const Schema = z.record(z.string(), z.unknown());
const TextFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    name: z.string().nullish(),
    description: z.string().nullish(),
    schema: Schema,
    strict: z.boolean().nullish(),
  }),
]);

/** We keep nothing between requests. */
const stateless = (what: string) =>
  z.null(`${what} is not kept here, send all input again`).optional();

/** What `include` asks for log-probabilities with. */
export const LOGPROBS = "message.output_text.logprobs";

export const ResponsesRequest = z.object({
  model: z.string().nullish().openapi({ description: "Default: the model that is served" }),
  input: z.union([z.string(), z.array(InputItem).min(1)]),
  instructions: z.string().nullish(),
  max_output_tokens: z.int().min(-1).nullish(),
  ...samplingFields,
  tools: z.array(FunctionTool).nullish(),
  tool_choice: ToolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z.object({ format: TextFormat.nullish() }).nullish(),
  stream: z.boolean().nullish(),
  include: z.array(z.string()).nullish().openapi({
    description: `Only ${LOGPROBS} adds something here`,
  }),
  top_logprobs: z.int().min(0).max(20).nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  previous_response_id: stateless("a previous response"),
  conversation: stateless("a conversation"),
  background: z.literal(false, "nothing runs in the background here, leave it out").nullish(),
}).openapi("ResponsesRequest");

export type ResponsesBody = z.output<typeof ResponsesRequest>;

const Status = z.enum(["in_progress", "completed", "incomplete"]);

const OutputText = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.unknown()),
  logprobs: ChatLogprobs.shape.content,
});

const OutputItem = z.discriminatedUnion("type", [
  z.object({
    id: z.string(),
    type: z.literal("message"),
    role: z.literal("assistant"),
    status: Status,
    content: z.array(OutputText),
  }),
  z.object({
    id: z.string(),
    type: z.literal("function_call"),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    status: Status,
  }),
]);

const Usage = z.object({
  input_tokens: z.int(),
  input_tokens_details: z.object({ cached_tokens: z.int() }),
  output_tokens: z.int(),
  output_tokens_details: z.object({ reasoning_tokens: z.int() }),
  total_tokens: z.int(),
});

export const ResponseObject = z.object({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int(),
  status: z.enum(["in_progress", "completed", "incomplete", "failed"]),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.literal("max_output_tokens") }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable(),
  metadata: z.record(z.string(), z.string()),
  model: z.string(),
  output: z.array(OutputItem),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.null(),
  store: z.literal(false),
  temperature: z.number().nullable(),
  text: z.object({ format: TextFormat }),
  tool_choice: ToolChoice,
  tools: z.array(FunctionTool),
  top_p: z.number().nullable(),
  truncation: z.literal("disabled"),
  usage: z.union([Usage, z.null()]),
}).openapi("Response");

/** The fields beside these two are those of OpenAI's event of that type. */
export const ResponseEvent = z.looseObject({
  type: z.string(),
  sequence_number: z.int(),
}).openapi("ResponseEvent");
