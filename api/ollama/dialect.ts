import { z } from "@hono/zod-openapi";
import type { Dialect } from "../route.ts";

const OllamaError = z.object({ error: z.string() }).openapi("OllamaError");

export const OLLAMA: Dialect = {
  tag: "Ollama",
  errorSchema: OllamaError,
  readsUntypedJson: true,
};
