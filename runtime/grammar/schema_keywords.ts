/** Which keywords of JSON schemas are kept, which say nothing about texts, and which are refused. */

/** Keywords that every generated text keeps, for documentation and clients. */
export const SUPPORTED_KEYWORDS: readonly string[] = [
  "$anchor",
  "$defs",
  "$ref",
  "additionalItems",
  "additionalProperties",
  "allOf",
  "anyOf",
  "const",
  "definitions",
  "enum",
  "exclusiveMaximum",
  "exclusiveMinimum",
  "format",
  "items",
  "maxItems",
  "maxLength",
  "maxProperties",
  "maximum",
  "minItems",
  "minLength",
  "minProperties",
  "minimum",
  "multipleOf",
  "nullable",
  "oneOf",
  "pattern",
  "patternProperties",
  "prefixItems",
  "properties",
  "propertyNames",
  "required",
  "type",
];

/**
 * Keywords of any draft that constrain values, and are not supported. All others that are not
 * supported are annotations, as the specification has it for keywords that are not known.
 */
export const UNSUPPORTED_KEYWORDS: ReadonlySet<string> = new Set([
  "$dynamicRef",
  "$recursiveRef",
  "contains",
  "dependencies",
  "dependentRequired",
  "dependentSchemas",
  "disallow",
  "divisibleBy",
  "extends",
  "if",
  "not",
  "unevaluatedItems",
  "unevaluatedProperties",
  "uniqueItems",
]);

/** Values of unsupported keywords that constrain nothing. */
export function saysNothing(keyword: string, value: unknown): boolean {
  if (keyword === "uniqueItems") return value === false;
  return value === true && /^unevaluated/.test(keyword);
}
