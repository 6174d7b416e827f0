/** /v1/embeddings */
import { Buffer } from "node:buffer";
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { POOLINGS } from "../../runtime/pooling.ts";
import { embedAll, type Embedded } from "../completion/embed.ts";
import { promptInput, promptsOf } from "../completion/prompt_input.ts";
import { addPost } from "../route.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { OPENAI } from "./dialect.ts";

/** Most texts of one request. */
const MOST_TEXTS = 2048;

const EmbeddingsRequest = z.object({
  model: z.string().nullish(),
  input: promptInput(MOST_TEXTS),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z.int().min(1).nullish().openapi({
    description: "Keep so many numbers from the front, scaled to length 1 again if they were",
  }),
  pooling: z.enum(POOLINGS).nullish().openapi({
    description: "Whose states are taken. Default: as the model's files say",
  }),
  prompt_name: z.string().nullish().openapi({
    description: "Which of the model's prompts stands before texts. Default: as its files say",
  }),
}).openapi("EmbeddingsRequest");

const Embeddings = z.object({
  object: z.literal("list"),
  model: z.string(),
  data: z.array(z.object({
    object: z.literal("embedding"),
    index: z.int(),
    embedding: z.union([z.array(z.number()), z.string()]),
  })),
  usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
}).openapi("Embeddings");

export function addEmbeddings(app: OpenAPIHono, services: Services): void {
  addPost(app, OPENAI, {
    path: "/v1/embeddings",
    summary: "Vectors of what texts mean",
    body: EmbeddingsRequest,
    answer: Embeddings,
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    const embedded = await embedAll(model, promptsOf(body.input), {
      pooling: body.pooling ?? undefined,
      promptName: body.prompt_name ?? undefined,
      dimensions: body.dimensions ?? undefined,
      signal: c.req.raw.signal,
    });
    return c.json({
      object: "list",
      model: body.model ?? modelNames(services)[0],
      data: embedded.vectors.map((vector, index) => ({
        object: "embedding",
        index,
        embedding: body.encoding_format === "base64" ? base64Of(vector) : [...vector],
      })),
      usage: usageOf(embedded),
    });
  });
}

function usageOf({ promptTokens }: Embedded) {
  return { prompt_tokens: promptTokens, total_tokens: promptTokens };
}

/** Float32, the lowest byte first. */
function base64Of(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, i) => bytes.writeFloatLE(value, i * 4));
  return bytes.toString("base64");
}
