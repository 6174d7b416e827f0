import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { addGet } from "../route.ts";
import { SUPPORTED_KEYWORDS } from "../../runtime/grammar/schema_keywords.ts";
import type { Services } from "../services.ts";
import { OPERATIONS } from "./dialect.ts";
import { VERSION } from "../../runtime/version.ts";

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
  maxChoices: z.number().openapi({ description: "Most choices of one request" }),
  jsonSchemaKeywords: z.array(z.string()).openapi({
    description: "What `response_format` and tools keep; others that constrain values are refused",
  }),
  totals: z.looseObject({}).openapi({ description: "Since the start" }),
}).openapi("Props");

export function addProps(app: OpenAPIHono, services: Services): void {
  const summary = "The model, its kernels, and what it is set to";
  addGet(app, OPERATIONS, { path: "/props", summary, answer: Props }, (c) => {
    return c.json(propsOf(services));
  });
}

function propsOf({ host, config }: Services): z.output<typeof Props> {
  const { model } = host;
  const { contextSize, kernels, scheme, kernelReason, threads, chatTemplate } = model;
  return {
    version: VERSION,
    model: host.name,
    contextSize,
    vocabSize: model.tokenizer.vocabSize,
    kernels,
    scheme,
    kernelReason,
    threads,
    chatTemplate,
    defaults: { ...model.generationDefaults },
    maxChoices: config.maxChoices,
    jsonSchemaKeywords: [...SUPPORTED_KEYWORDS],
    totals: { ...model.status().totals },
  };
}
