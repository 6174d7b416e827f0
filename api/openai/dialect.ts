import { z } from "@hono/zod-openapi";
import type { Dialect } from "../route.ts";

export const OpenAiError = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
}).openapi("OpenAiError");

export const OPENAI: Dialect = { tag: "OpenAI", errorSchema: OpenAiError };
