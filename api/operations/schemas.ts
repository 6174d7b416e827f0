import type { z } from "@hono/zod-openapi";
import { OpenAiError } from "../openai/dialect.ts";

/** The tag of all operations in the OpenAPI document. */
export const OPERATIONS_TAG = "Operations";

/** A response that is a JSON document. */
export function jsonOf<Schema extends z.ZodType>(schema: Schema, description: string) {
  return { content: { "application/json": { schema } }, description };
}

export const NOT_READY = jsonOf(OpenAiError, "The model is not loaded yet, or the server stops");
