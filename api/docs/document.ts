import type { OpenAPIHono } from "@hono/zod-openapi";
import { VERSION } from "../../runtime/version.ts";

/** What of an OpenAPI 3.1 document the page shows. */
export interface ApiDocument {
  info: { title: string; version: string; description?: string };
  tags?: { name: string; description?: string }[];
  paths: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
}

export interface Operation {
  tags?: string[];
  summary?: string;
  description?: string;
  security?: unknown[];
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema?: Schema; example?: unknown }> };
  responses: Record<string, { description: string; content?: Record<string, { schema?: Schema }> }>;
}

/** An operation where it is. */
export interface Listed {
  path: string;
  method: string;
  operation: Operation;
}

/** All of them, in the document's order. */
export function operationsOf({ paths }: ApiDocument): Listed[] {
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ path, method, operation }))
  );
}

export interface Parameter {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  schema?: Schema;
}

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  example?: unknown;
  minimum?: number;
  maximum?: number;
  format?: string;
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
}

const DESCRIPTION =
  "Text, chat, embeddings and structured output from ternary language models on this machine's CPU." +
  " Clients of OpenAI, Anthropic and Ollama work as they are. Where the server was started with" +
  " keys, send one as `Authorization: Bearer KEY` or as `x-api-key: KEY`.";

const TAGS = [
  { name: "OpenAI", description: "For OpenAI's clients; their base URL ends with `/v1`." },
  { name: "Anthropic", description: "For Anthropic's clients; their base URL has no `/v1`." },
  { name: "Ollama", description: "For Ollama's clients, and the many that speak its API only." },
  { name: "Tokens and templates", description: "What a prompt is before the model sees it." },
  { name: "Operations", description: "How the server is." },
];

/** The whole API, from the routes themselves. */
export function documentOf(app: OpenAPIHono): ApiDocument {
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
  });
  app.openAPIRegistry.registerComponent("securitySchemes", "apiKey", {
    type: "apiKey",
    in: "header",
    name: "x-api-key",
  });
  const document = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "Trilith",
      version: VERSION,
      description: DESCRIPTION,
      license: { name: "MIT" },
    },
    tags: TAGS,
    servers: [{ url: "/", description: "This server" }],
    security: [{ bearer: [] }, { apiKey: [] }, {}],
  });
  return document as unknown as ApiDocument;
}
