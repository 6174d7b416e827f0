import { OpenAiError } from "../openai/dialect.ts";
import type { Dialect } from "../route.ts";

/** llama-server's own routes: their errors are OpenAI's. */
export const NATIVE: Dialect = { tag: "Tokens and templates", errorSchema: OpenAiError };
