/** /api/embed, and /api/embeddings of older clients. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { embedAll } from "../completion/embed.ts";
import { addPost } from "../route.ts";
import type { Services } from "../services.ts";
import { nanoseconds } from "./answer.ts";
import { OLLAMA } from "./dialect.ts";
import { ollamaModel, ollamaName } from "./names.ts";

/** Most texts of one request. */
const MOST_TEXTS = 2048;

const EmbedRequest = z.object({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(z.string()).max(MOST_TEXTS)]),
  truncate: z.boolean().nullish().openapi({
    description: "Not heeded: a text that does not fit is refused",
  }),
  dimensions: z.int().min(1).nullish(),
}).openapi("OllamaEmbedRequest");

const Embed = z.object({
  model: z.string(),
  embeddings: z.array(z.array(z.number())),
  total_duration: z.int(),
  load_duration: z.int(),
  prompt_eval_count: z.int(),
}).openapi("OllamaEmbed");

const EmbeddingsRequest = z.object({ model: z.string().nullish(), prompt: z.string() })
  .openapi("OllamaEmbeddingsRequest");

const Embedding = z.object({ embedding: z.array(z.number()) }).openapi("OllamaEmbedding");

export function addEmbed(app: OpenAPIHono, services: Services): void {
  addPost(app, OLLAMA, {
    path: "/api/embed",
    summary: "Vectors of what texts mean",
    body: EmbedRequest,
    answer: Embed,
  }, async ({ model: name, input, dimensions }, c) => {
    const startedMs = performance.now();
    const texts = typeof input === "string" ? [input] : input;
    const { vectors, promptTokens } = await embedAll(ollamaModel(services, name), texts, {
      dimensions: dimensions ?? undefined,
      signal: c.req.raw.signal,
    });
    return c.json({
      model: name ?? ollamaName(services),
      embeddings: vectors.map((vector) => [...vector]),
      total_duration: nanoseconds(performance.now() - startedMs),
      load_duration: 0,
      prompt_eval_count: promptTokens,
    });
  });
  addPost(app, OLLAMA, {
    path: "/api/embeddings",
    summary: "The vector of what a text means",
    body: EmbeddingsRequest,
    answer: Embedding,
  }, async ({ model: name, prompt }, c) => {
    const { signal } = c.req.raw;
    const { vectors } = await embedAll(ollamaModel(services, name), [prompt], { signal });
    return c.json({ embedding: [...vectors[0]] });
  });
}
