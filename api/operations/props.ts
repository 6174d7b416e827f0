import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Services } from "../services.ts";
import { jsonOf, NOT_READY, OPERATIONS_TAG } from "./schemas.ts";
import { VERSION } from "./version.ts";

const Props = z.object({
  version: z.string(),
  model: z.string(),
  contextSize: z.number().openapi({ description: "Tokens of all sequences together" }),
  vocabSize: z.number(),
  kernels: z.string(),
  scheme: z.string(),
  kernelReason: z.string(),
  threads: z.number(),
  chatTemplate: z.string().nullable().openapi({ description: "Jinja" }),
  defaults: z.looseObject({}).openapi({ description: "The authors' generation_config.json" }),
  maxChoices: z.number(),
  totals: z.looseObject({}).openapi({ description: "Since the start" }),
}).openapi("Props");

const ROUTE = createRoute({
  method: "get",
  path: "/props",
  tags: [OPERATIONS_TAG],
  summary: "The model, its kernels, and what it is set to",
  responses: { 200: jsonOf(Props, "The properties"), 503: NOT_READY },
});

export function addProps(app: OpenAPIHono, { host, config }: Services): void {
  app.openapi(ROUTE, (c) => {
    const { model } = host;
    return c.json({
      version: VERSION,
      model: host.name,
      contextSize: model.contextSize,
      vocabSize: model.tokenizer.vocabSize,
      kernels: model.kernels,
      scheme: model.scheme,
      kernelReason: model.kernelReason,
      threads: model.threads,
      chatTemplate: model.chatTemplate,
      defaults: { ...model.generationDefaults },
      maxChoices: config.maxChoices,
      totals: { ...model.status().totals },
    }, 200);
  });
}
