import { z } from "@hono/zod-openapi";
import type { Dialect } from "../route.ts";

const AnthropicError = z.object({
  type: z.literal("error"),
  error: z.object({ type: z.string(), message: z.string() }),
}).openapi("AnthropicError");

export const ANTHROPIC: Dialect = { tag: "Anthropic", errorSchema: AnthropicError };
