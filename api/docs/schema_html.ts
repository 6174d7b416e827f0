import type { ApiDocument, Schema } from "./document.ts";
import { escaped, prose } from "./html.ts";

/** Deeper than that a schema is named, not shown: some are recursive. */
const MOST_DEPTH = 6;

/** A schema as nested lists of fields. */
export function schemaHtml(schema: Schema, document: ApiDocument, depth = 0): string {
  const known = resolved(schema, document);
  const fields = fieldsOf(known, document);
  const isClosed = depth >= MOST_DEPTH || Object.keys(fields).length === 0;
  const head = `<span class="dim">${escaped(typeOf(known, document))}</span> ${
    prose(known.description)
  }`;
  if (isClosed) return head;
  const items = Object.entries(fields).map(([name, field]) => {
    const mark = known.required?.includes(name) ? " <strong>required</strong>" : "";
    return `<li><code>${escaped(name)}</code>${mark} ${
      schemaHtml(field, document, depth + 1)
    }</li>`;
  });
  return `${head}<ul class="fields">${items.join("")}</ul>`;
}

/** Follows a reference to where the schema is. */
export function resolved(schema: Schema, { components }: ApiDocument): Schema {
  if (schema.$ref === undefined) return schema;
  const name = schema.$ref.replace("#/components/schemas/", "");
  const target = components?.schemas?.[name];
  if (target === undefined) throw new RangeError(`The API's document has no schema ${schema.$ref}`);
  return target;
}

/** Fields of an object, of a list's objects, or of all alternatives together. */
function fieldsOf(schema: Schema, document: ApiDocument): Record<string, Schema> {
  if (schema.properties !== undefined) return schema.properties;
  if (schema.items !== undefined) return fieldsOf(resolved(schema.items, document), document);
  const parts = [schema.anyOf, schema.oneOf, schema.allOf].flatMap((list) => list ?? []);
  return Object.assign({}, ...parts.map((part) => fieldsOf(resolved(part, document), document)));
}

/** "string or null", "array of integer", "one of "a", "b"", with the range and the default. */
function typeOf(schema: Schema, document: ApiDocument): string {
  return `${kindOf(schema, document)}${rangeOf(schema)}${defaultOf(schema)}`;
}

function kindOf(schema: Schema, document: ApiDocument): string {
  const known = resolved(schema, document);
  if (known.const !== undefined) return JSON.stringify(known.const);
  if (known.enum !== undefined) return known.enum.map((value) => JSON.stringify(value)).join(" | ");
  const parts = known.anyOf ?? known.oneOf ?? known.allOf;
  if (parts !== undefined) {
    return [...new Set(parts.map((part) => kindOf(part, document)))].join(" | ");
  }
  const types = [known.type ?? "anything"].flat().join(" | ");
  return known.items === undefined ? types : `${types} of ${kindOf(known.items, document)}`;
}

function rangeOf({ minimum, maximum }: Schema): string {
  if (minimum === undefined && maximum === undefined) return "";
  if (maximum === undefined) return `, at least ${minimum}`;
  return minimum === undefined ? `, at most ${maximum}` : `, ${minimum} to ${maximum}`;
}

function defaultOf({ default: value }: Schema): string {
  return value === undefined ? "" : `, default ${JSON.stringify(value)}`;
}
