/** /api/tags, /api/ps, /api/show and /api/version */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { createHash } from "node:crypto";
import { planOf } from "../../codegen/plan.ts";
import { parametersOf } from "../../runtime/inspect.ts";
import type { GenerationDefaults, Model } from "../../runtime/types.ts";
import { VERSION } from "../../runtime/version.ts";
import { addGet, addPost } from "../route.ts";
import type { Services } from "../services.ts";
import { OLLAMA } from "./dialect.ts";
import { ollamaModel, ollamaNames } from "./names.ts";

const Details = z.object({
  parent_model: z.string(),
  format: z.string(),
  family: z.string(),
  families: z.array(z.string()),
  parameter_size: z.string(),
  quantization_level: z.string(),
});

const card = {
  name: z.string(),
  model: z.string(),
  size: z.int().openapi({ description: "Bytes of weights in memory" }),
  digest: z.string(),
  details: Details,
};

const Tags = z.object({ models: z.array(z.object({ ...card, modified_at: z.string() })) })
  .openapi("OllamaTags");

const Running = z.object({
  models: z.array(z.object({
    ...card,
    expires_at: z.string(),
    size_vram: z.int(),
    context_length: z.int(),
  })),
}).openapi("OllamaRunning");

const ShowRequest = z.object({
  model: z.string().nullish(),
  name: z.string().nullish().openapi({ description: "Older clients' word for model" }),
}).openapi("OllamaShowRequest");

const Show = z.object({
  modelfile: z.string(),
  parameters: z.string(),
  template: z.string(),
  details: Details,
  model_info: z.record(z.string(), z.unknown()),
  capabilities: z.array(z.string()),
  modified_at: z.string(),
}).openapi("OllamaShow");

/** The model stays loaded as long as the server runs: a date that clients can read and never see. */
const NEVER = "9999-12-31T23:59:59Z";

export function addModels(app: OpenAPIHono, services: Services): void {
  const startedAt = new Date().toISOString();
  const cards = () => ollamaNames(services).map((name) => cardOf(name, services.host.model));
  addGet(
    app,
    OLLAMA,
    { path: "/api/tags", summary: "Models", answer: Tags },
    (c) => c.json({ models: cards().map((model) => ({ ...model, modified_at: startedAt })) }),
  );
  addGet(app, OLLAMA, { path: "/api/ps", summary: "Loaded models", answer: Running }, (c) => {
    const { contextSize } = services.host.model;
    const loaded = { expires_at: NEVER, size_vram: 0, context_length: contextSize };
    return c.json({ models: cards().map((model) => ({ ...model, ...loaded })) });
  });
  addPost(app, OLLAMA, {
    path: "/api/show",
    summary: "One model's details",
    body: ShowRequest,
    answer: Show,
  }, ({ model, name }, c) => c.json(showOf(ollamaModel(services, model ?? name), startedAt)));
  addGet(app, OLLAMA, {
    path: "/api/version",
    summary: "Trilith's version",
    answer: z.object({ version: z.string() }),
  }, (c) => c.json({ version: VERSION }));
}

function cardOf(name: string, model: Model) {
  return {
    name,
    model: name,
    size: planOf(model.spec).totalBytes,
    digest: createHash("sha256").update(JSON.stringify([model.name, model.spec])).digest("hex"),
    details: detailsOf(model),
  };
}

function detailsOf({ spec }: Model) {
  const family = spec.subNorms ? "bitnet" : "llama";
  return {
    parent_model: "",
    format: "safetensors",
    family,
    families: [family],
    parameter_size: shortCount(parametersOf(spec)),
    quantization_level: "ternary",
  };
}

/** 2.4B */
function shortCount(count: number): string {
  const [unit, size] = count >= 1e9 ? ["B", 1e9] as const : ["M", 1e6] as const;
  return `${(count / size).toFixed(1)}${unit}`;
}

function showOf(model: Model, startedAt: string) {
  const { spec, chatTemplate, contextSize } = model;
  const details = detailsOf(model);
  return {
    modelfile: "",
    parameters: parametersText(model.generationDefaults),
    template: chatTemplate ?? "",
    details,
    model_info: {
      "general.architecture": details.family,
      "general.basename": model.name,
      "general.parameter_count": parametersOf(spec),
      [`${details.family}.context_length`]: contextSize,
      [`${details.family}.embedding_length`]: spec.hiddenSize,
      [`${details.family}.block_count`]: spec.numHiddenLayers,
      [`${details.family}.feed_forward_length`]: spec.intermediateSize,
      [`${details.family}.attention.head_count`]: spec.numAttentionHeads,
      [`${details.family}.attention.head_count_kv`]: spec.numKeyValueHeads,
      [`${details.family}.vocab_size`]: spec.vocabSize,
    },
    capabilities: ["completion", ...(chatTemplate === null ? [] : ["tools"]), "embedding"],
    modified_at: startedAt,
  };
}

/** The authors' advice, a line each, as a Modelfile has it. */
function parametersText(defaults: GenerationDefaults): string {
  const { temperature, topK, topP, minP, repeatPenalty } = defaults;
  const named = {
    temperature,
    top_k: topK,
    top_p: topP,
    min_p: minP,
    repeat_penalty: repeatPenalty,
  };
  return Object.entries(named).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${value}`).join("\n");
}
