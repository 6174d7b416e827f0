/** /v1/models: lists of OpenAI's and Anthropic's clients are one, as each skips the other's fields. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { addGet } from "../route.ts";
import { checkModelName, modelNames } from "../served_model.ts";
import type { Services } from "../services.ts";
import { OPENAI } from "./dialect.ts";

const ModelCard = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  type: z.literal("model"),
  display_name: z.string(),
  created_at: z.string(),
  max_model_len: z.int().optional().openapi({ description: "Tokens that the context holds" }),
}).openapi("Model");

const ModelList = z.object({
  object: z.literal("list"),
  data: z.array(ModelCard),
  has_more: z.literal(false),
  first_id: z.string(),
  last_id: z.string(),
}).openapi("ModelList");

export function addModels(app: OpenAPIHono, services: Services): void {
  const created = new Date();
  const cardOf = (id: string) => modelCard(id, created, services);
  addGet(app, OPENAI, {
    path: "/v1/models",
    summary: "The names of the model that is served",
    answer: ModelList,
  }, (c) => {
    const names = modelNames(services);
    return c.json({
      object: "list",
      data: names.map(cardOf),
      has_more: false,
      first_id: names[0],
      last_id: names.at(-1)!,
    });
  });
  addGet(app, OPENAI, {
    // Names may have slashes, as the Hub's do.
    path: "/v1/models/{model}",
    routingPath: "/v1/models/:model{.+}",
    summary: "One model",
    params: z.object({ model: z.string() }),
    answer: ModelCard,
  }, (c) => {
    const name = c.req.param("model")!;
    checkModelName(services, name);
    return c.json(cardOf(name));
  });
}

function modelCard(id: string, created: Date, { host: { state } }: Services) {
  return {
    id,
    object: "model",
    created: Math.floor(created.getTime() / 1000),
    owned_by: "trilith",
    type: "model",
    display_name: id,
    created_at: created.toISOString(),
    ...(state.kind === "ready" ? { max_model_len: state.model.contextSize } : {}),
  };
}
