import type { ApiDocument, Listed, Operation, Schema } from "./document.ts";
import { resolved } from "./schema_html.ts";

/** Stands for this server's address until somebody asks for the page by one. */
export const BASE_URL = "http://127.0.0.1:8080";

const TURNS = [{ role: "user", content: "Tell me a story" }];

/** Where the smallest body that is taken would not show what the route is for. */
const EXAMPLES: Readonly<Record<string, unknown>> = {
  "/v1/chat/completions": { messages: TURNS, max_tokens: 64, stream: true },
  "/v1/completions": { prompt: "Once upon a time", max_tokens: 64 },
  "/v1/responses": { input: "Tell me a story", max_output_tokens: 64 },
  "/v1/embeddings": { input: ["The dragon slept", "A rabbit ran"] },
  "/v1/messages": { messages: TURNS, max_tokens: 64 },
  "/v1/messages/count_tokens": { messages: TURNS },
  "/api/generate": { prompt: "Once upon a time", options: { num_predict: 64 } },
  "/api/chat": { messages: TURNS, options: { num_predict: 64 } },
  "/tokenize": { content: "Once upon a time" },
  "/detokenize": { tokens: [439, 448, 258, 402] },
  "/apply-template": { messages: TURNS },
};

/** How to call an operation from a shell. */
export function curlOf({ path, method, operation }: Listed, document: ApiDocument): string {
  const isOpen = operation.security?.length === 0;
  const key = isOpen ? "" : ` \\\n  -H "Authorization: Bearer $KEY"`;
  const body = bodyOf(path, operation, document);
  if (body === null) {
    return `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${BASE_URL}${path}${key}`;
  }
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  const type = ` \\\n  -H "Content-Type: application/json"`;
  return `curl ${BASE_URL}${path}${key}${type} \\\n  -d '${json}'`;
}

/** An example of what an operation takes; null: it takes nothing. */
export function bodyOf(path: string, operation: Operation, document: ApiDocument): unknown {
  const body = operation.requestBody?.content["application/json"];
  if (body === undefined) return null;
  return EXAMPLES[path] ?? (body.schema ? exampleOf(body.schema, document) : {});
}

/** A value that the schema accepts: its own example, or its required fields alone. */
export function exampleOf(schema: Schema, document: ApiDocument, depth = 0): unknown {
  const known = resolved(schema, document);
  const own = known.example ?? known.default ?? known.const ?? known.enum?.[0];
  if (own !== undefined) return own;
  const first = (known.anyOf ?? known.oneOf ?? known.allOf)?.[0];
  if (first !== undefined) return exampleOf(first, document, depth + 1);
  return sampleOf(known, document, depth);
}

function sampleOf(schema: Schema, document: ApiDocument, depth: number): unknown {
  switch ([schema.type].flat()[0]) {
    case "string":
      return "text";
    case "integer":
    case "number":
      return schema.minimum ?? 1;
    case "boolean":
      return true;
    case "array":
      return schema.items && depth < 6 ? [exampleOf(schema.items, document, depth + 1)] : [];
    default:
      return Object.fromEntries(
        (schema.required ?? []).map((
          name,
        ) => [name, exampleOf(schema.properties?.[name] ?? {}, document, depth + 1)]),
      );
  }
}
