/** The ways in which OpenAI's, vLLM's and llama-server's clients constrain an answer. */
import { z } from "@hono/zod-openapi";
import { type Constraint, onlyConstraint } from "../completion/constraint.ts";
import { ApiError } from "../errors.ts";

const Schema = z.union([z.record(z.string(), z.unknown()), z.boolean()]);
const JsonText = z.union([Schema, z.string()]);

const ResponseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object"), schema: Schema.nullish() }),
  z.object({
    type: z.literal("json_schema"),
    json_schema: z.object({
      name: z.string().nullish(),
      description: z.string().nullish(),
      schema: Schema.nullish(),
      strict: z.boolean().nullish().openapi({ description: "The schema always holds" }),
    }),
  }),
]);

const Choices = z.array(z.string()).min(1);

export const constraintFields = {
  response_format: ResponseFormat.nullish(),
  guided_json: JsonText.nullish(),
  guided_regex: z.string().nullish(),
  guided_choice: Choices.nullish(),
  grammar: z.string().nullish().openapi({ description: "GBNF" }),
  guided_grammar: z.string().nullish(),
  structured_outputs: z.object({
    json: JsonText.nullish(),
    regex: z.string().nullish(),
    choice: Choices.nullish(),
    grammar: z.string().nullish(),
    json_object: z.boolean().nullish(),
  }).nullish(),
};

const Fields = z.object(constraintFields);
type Fields = z.output<typeof Fields>;

/** @throws {ApiError} 400 if there are several. */
export function constraintOf(body: Fields): Constraint | null {
  const { structured_outputs: vllm } = body;
  return onlyConstraint([
    formatOf(body.response_format),
    jsonOf(body.guided_json, "guided_json"),
    regexOf(body.guided_regex, "guided_regex"),
    choiceOf(body.guided_choice, "guided_choice"),
    gbnfOf(body.grammar, "grammar"),
    gbnfOf(body.guided_grammar, "guided_grammar"),
    jsonOf(vllm?.json, "structured_outputs.json"),
    regexOf(vllm?.regex, "structured_outputs.regex"),
    choiceOf(vllm?.choice, "structured_outputs.choice"),
    gbnfOf(vllm?.grammar, "structured_outputs.grammar"),
    vllm?.json_object ? anyJson("structured_outputs.json_object") : null,
  ]);
}

type Maybe<T> = T | null | undefined;

function anyJson(param: string): Constraint {
  return { param, source: { kind: "json" } };
}

function formatOf(format: Fields["response_format"]): Constraint | null {
  if (!format || format.type === "text") return null;
  const schema = format.type === "json_schema" ? format.json_schema.schema : format.schema;
  return jsonOf(schema, "response_format") ?? anyJson("response_format");
}

/** vLLM's clients may send the schema as text. */
function jsonOf(schema: Maybe<z.output<typeof JsonText>>, param: string): Constraint | null {
  if (schema === null || schema === undefined) return null;
  const value = typeof schema === "string" ? parsed(schema, param) : schema;
  return { param, source: { kind: "jsonSchema", schema: value } };
}

function parsed(text: string, param: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError(
      400,
      "invalid_request_error",
      `Cannot use ${param} as it is not JSON: ${(error as Error).message}`,
      { param },
    );
  }
}

function regexOf(pattern: Maybe<string>, param: string): Constraint | null {
  return pattern ? { param, source: { kind: "regex", pattern } } : null;
}

function choiceOf(choices: Maybe<string[]>, param: string): Constraint | null {
  return choices ? { param, source: { kind: "choice", choices } } : null;
}

function gbnfOf(grammar: Maybe<string>, param: string): Constraint | null {
  return grammar ? { param, source: { kind: "gbnf", grammar } } : null;
}
