import type { ApiDocument, Operation, Schema } from "./document.ts";
import { resolved } from "./schema_html.ts";

/** How to call an operation from a shell, with the smallest body that it takes. */
export function curlOf(
  { path, method, operation }: { path: string; method: string; operation: Operation },
  document: ApiDocument,
): string {
  const url = `http://127.0.0.1:8080${path}`;
  const key = operation.security?.length === 0 ? "" : ` \\\n  -H "Authorization: Bearer $KEY"`;
  const body = operation.requestBody?.content["application/json"];
  if (body === undefined) {
    return `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${url}${key}`;
  }
  const example = body.example ?? (body.schema ? exampleOf(body.schema, document) : {});
  const json = JSON.stringify(example).replaceAll("'", "'\\''");
  return `curl ${url}${key} \\\n  -H "Content-Type: application/json" \\\n  -d '${json}'`;
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
