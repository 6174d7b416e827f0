/**
 * JSON that a schema accepts. Members come in the schema's order; those that are not required may be
 * left out, and others, where the schema allows any, come last.
 */
import type { RuleId } from "./expression.ts";
import { JsonValues } from "./json_values.ts";
import type { RuleBook } from "./rule_book.ts";
import type { Type } from "./schema_cases.ts";
import { SchemaDocument } from "./schema_document.ts";
import { SchemaRules } from "./schema_rules.ts";

/** Rule 0: JSON that `schema` accepts. */
export async function jsonSchemaRules(
  book: RuleBook,
  schema: unknown,
  longestToken: number,
): Promise<void> {
  const root = book.declare();
  await defineSchema(root, schema, new JsonValues(book, longestToken));
}

/**
 * Defines a rule as the JSON that `schema` accepts.
 *
 * @param type Only values of this type, whatever the schema leaves open.
 */
export async function defineSchema(
  id: RuleId,
  schema: unknown,
  values: JsonValues,
  type?: Type,
): Promise<void> {
  const document = await SchemaDocument.create(schema, values.book.work);
  const schemas = [document.root];
  if (type !== undefined) schemas.push(document.idOf({ type }, "#"));
  await new SchemaRules(document, values).define(id, schemas);
}
