import { OpenAiError } from "../openai/dialect.ts";
import type { Dialect } from "../route.ts";

/** Errors are in OpenAI's shape, as everywhere where nobody expects another. */
export const OPERATIONS: Dialect = { tag: "Operations", errorSchema: OpenAiError };
