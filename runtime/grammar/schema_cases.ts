/**
 * What a schema says, as alternatives without `$ref`, `allOf`, `anyOf` and `oneOf`: a value is valid
 * if it is so for one of them. Schemas of properties and items stay as they are, by number.
 */
import { shown } from "../errors.ts";
import { compileExpression, type Dfa } from "./automaton.ts";
import { codePoints } from "./encoding.ts";
import type { Expression } from "./expression.ts";
import { NUMBER_FORMATS, STRING_FORMATS } from "./json_formats.ts";
import type { Bound } from "./json_numbers.ts";
import { MAX_MULTIPLE_OF } from "./json_numbers.ts";
import type { JsonValue } from "./json_values.ts";
import { parseRegex } from "./regex.ts";
import {
  childPointer,
  FALSE_SCHEMA,
  isObject,
  type SchemaDocument,
  type SchemaId,
  type SchemaObject,
  TRUE_SCHEMA,
} from "./schema_document.ts";
import { saysNothing, UNSUPPORTED_KEYWORDS } from "./schema_keywords.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

export const TYPES = ["null", "boolean", "number", "string", "array", "object"] as const;
export type Type = (typeof TYPES)[number];

/** What one schema object says about an object's members. */
export interface ObjectClause {
  properties: ReadonlyMap<string, SchemaId>;
  patterns: readonly { language: Dfa; schema: SchemaId }[];
  /** Of members that neither names nor patterns fit. */
  others: SchemaId;
}

/** What one schema object says about an array's items. */
export interface ArrayClause {
  prefix: readonly SchemaId[];
  others: SchemaId;
}

/** A conjunction: all of it holds. */
export interface Case {
  types: readonly Type[];
  /** Numbers are integers. */
  isInteger: boolean;
  /** The value is one of these; null: of any. */
  values: readonly JsonValue[] | null;
  minimum: Bound | null;
  maximum: Bound | null;
  multipleOf: number;
  minLength: number;
  maxLength: number | null;
  /** The string is in all of them. */
  languages: readonly Dfa[];
  minItems: number;
  maxItems: number | null;
  arrays: readonly ArrayClause[];
  minProperties: number;
  maxProperties: number | null;
  required: readonly string[];
  objects: readonly ObjectClause[];
  propertyNames: readonly SchemaId[];
}

const ANYTHING: Case = {
  types: TYPES,
  isInteger: false,
  values: null,
  minimum: null,
  maximum: null,
  multipleOf: 1,
  minLength: 0,
  maxLength: null,
  languages: [],
  minItems: 0,
  maxItems: null,
  arrays: [],
  minProperties: 0,
  maxProperties: null,
  required: [],
  objects: [],
  propertyNames: [],
};

/** Alternatives of one schema: `anyOf`s multiply. */
const MAX_CASES = 500;

/** Of two alternatives of a `oneOf`: no value is in both. */
export type AreDisjoint = (cases: readonly Case[]) => Promise<boolean>;

export class SchemaCases {
  readonly #document: SchemaDocument;
  readonly #work: Workload;
  readonly #known = new Map<SchemaId, readonly Case[]>();
  readonly #open = new Set<SchemaId>();
  readonly #languages = new Map<string, Dfa>();
  readonly #areEmpty: AreDisjoint;

  /** @param areEmpty Whether it is certain that no value is in any of some cases. */
  constructor(document: SchemaDocument, work: Workload, areEmpty: AreDisjoint) {
    this.#document = document;
    this.#work = work;
    this.#areEmpty = areEmpty;
  }

  /** Of a value that all of some schemas accept. */
  async ofAll(ids: readonly SchemaId[]): Promise<readonly Case[]> {
    let cases: readonly Case[] = [ANYTHING];
    for (const id of ids) cases = this.#product(cases, await this.of(id), id);
    return cases;
  }

  async of(id: SchemaId): Promise<readonly Case[]> {
    if (id === TRUE_SCHEMA) return [ANYTHING];
    if (id === FALSE_SCHEMA) return [];
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    if (this.#open.has(id)) throw this.#error(id, "$ref", "it refers to itself without an end");
    await this.#work.pause();
    this.#open.add(id);
    const cases = await this.#expand(id, this.#document.schema(id) as SchemaObject);
    this.#open.delete(id);
    this.#known.set(id, cases);
    return cases;
  }

  async #expand(id: SchemaId, schema: SchemaObject): Promise<readonly Case[]> {
    this.#checkKeywords(id, schema);
    let cases: readonly Case[] = [await this.#ownCase(id, schema)];
    if (schema.$ref !== undefined) {
      cases = this.#product(cases, await this.of(this.#document.resolve(schema.$ref, id)), id);
    }
    for (const part of this.#list(id, schema, "allOf")) {
      cases = this.#product(cases, await this.of(part), id);
    }
    if (schema.anyOf !== undefined) {
      cases = this.#product(cases, await this.#anyOf(this.#list(id, schema, "anyOf")), id);
    }
    if (schema.oneOf !== undefined) cases = await this.#oneOf(id, schema, cases);
    return cases;
  }

  #checkKeywords(id: SchemaId, schema: SchemaObject): void {
    for (const [keyword, value] of Object.entries(schema)) {
      if (UNSUPPORTED_KEYWORDS.has(keyword) && !saysNothing(keyword, value)) {
        throw this.#error(id, keyword, "it is not supported");
      }
    }
    const isEmbedded = schema.$id !== undefined && id !== this.#document.root;
    if (isEmbedded) throw this.#error(id, "$id", "it is only supported in the whole schema");
  }

  async #anyOf(parts: readonly SchemaId[]): Promise<Case[]> {
    const cases: Case[] = [];
    for (const part of parts) cases.push(...await this.of(part));
    return cases;
  }

  /** Exactly one must hold; a grammar can only say that one does, so no two may hold at once. */
  async #oneOf(id: SchemaId, schema: SchemaObject, base: readonly Case[]): Promise<Case[]> {
    const branches: (readonly Case[])[] = [];
    for (const part of this.#list(id, schema, "oneOf")) {
      branches.push(this.#product(base, await this.of(part), id));
    }
    for (const [i, first] of branches.entries()) {
      for (const [j, second] of branches.slice(0, i).entries()) {
        if (await this.#areEmpty(this.#product(first, second, id))) continue;
        throw this.#error(
          id,
          "oneOf",
          `its alternatives ${j} and ${i} may hold at once: use anyOf, or a required property ` +
            "with another const in each",
        );
      }
    }
    return branches.flat();
  }

  #product(a: readonly Case[], b: readonly Case[], id: SchemaId): readonly Case[] {
    if (a.length * b.length > MAX_CASES) {
      throw this.#error(id, "", `it has more than ${MAX_CASES} combinations of alternatives`);
    }
    this.#work.spend(100 * a.length * b.length);
    if (a.length === 1 && a[0] === ANYTHING) return b;
    if (b.length === 1 && b[0] === ANYTHING) return a;
    return a.flatMap((left) => b.map((right) => both(left, right)))
      .filter(({ types }) => types.length > 0);
  }

  async #ownCase(id: SchemaId, schema: SchemaObject): Promise<Case> {
    const own: Case = {
      ...ANYTHING,
      ...this.#typesOf(id, schema),
      values: this.#valuesOf(id, schema),
      minLength: this.#count(id, schema, "minLength") ?? 0,
      maxLength: this.#count(id, schema, "maxLength"),
      languages: await this.#languagesOf(id, schema),
      minItems: this.#count(id, schema, "minItems") ?? 0,
      maxItems: this.#count(id, schema, "maxItems"),
      arrays: this.#arrayClauses(id, schema),
      minProperties: this.#count(id, schema, "minProperties") ?? 0,
      maxProperties: this.#count(id, schema, "maxProperties"),
      required: this.#requiredOf(id, schema),
      objects: await this.#objectClauses(id, schema),
      propertyNames: schema.propertyNames === undefined
        ? []
        : [this.#part(id, schema.propertyNames, "propertyNames")],
    };
    return both(own, this.#numbersOf(id, schema));
  }

  #typesOf(id: SchemaId, schema: SchemaObject): Pick<Case, "types" | "isInteger"> {
    const { type } = schema;
    if (type === undefined) return { types: TYPES, isInteger: false };
    const names = Array.isArray(type) ? [...type] : [type];
    const isKnown = names.every((name) => name === "integer" || TYPES.includes(name as Type));
    if (!isKnown || names.length === 0) {
      throw this.#error(id, "type", `it must name types: current value is ${shown(type)}`);
    }
    if (schema.nullable === true) names.push("null");
    const types = TYPES.filter((name) =>
      names.includes(name) || (name === "number" && names.includes("integer"))
    );
    return { types, isInteger: names.includes("integer") && !names.includes("number") };
  }

  #valuesOf(id: SchemaId, schema: SchemaObject): readonly JsonValue[] | null {
    const { enum: values } = schema;
    if (values !== undefined && !Array.isArray(values)) {
      throw this.#error(id, "enum", `it must be a list: current value is ${shown(values)}`);
    }
    if (schema.const === undefined) return values ?? null;
    const constant = schema.const;
    const isThere = values === undefined || values.some((value) => isEqual(value, constant));
    return isThere ? [constant] : [];
  }

  #numbersOf(id: SchemaId, schema: SchemaObject): Case {
    const bound = (keyword: string, isExclusive: boolean): Bound | null => {
      const value = schema[keyword];
      if (value === undefined) return null;
      if (typeof value === "number") return { value, isExclusive };
      throw this.#error(id, keyword, `it must be a number: current value is ${shown(value)}`);
    };
    const inclusive: Case = {
      ...ANYTHING,
      minimum: bound("minimum", false),
      maximum: bound("maximum", false),
    };
    const exclusive: Case = {
      ...ANYTHING,
      minimum: bound("exclusiveMinimum", true),
      maximum: bound("exclusiveMaximum", true),
    };
    const format = NUMBER_FORMATS.get(String(schema.format));
    const range: Case = !format ? ANYTHING : {
      ...ANYTHING,
      minimum: { value: format.min, isExclusive: false },
      maximum: { value: format.max, isExclusive: false },
    };
    const multiple: Case = { ...ANYTHING, ...this.#multipleOf(id, schema) };
    return both(both(inclusive, exclusive), both(range, multiple));
  }

  /** Multiples of an integer are integers. */
  #multipleOf(id: SchemaId, schema: SchemaObject): Pick<Case, "isInteger" | "multipleOf"> {
    const { multipleOf } = schema;
    if (multipleOf === undefined) return { isInteger: false, multipleOf: 1 };
    const isSupported = Number.isInteger(multipleOf) && Number(multipleOf) >= 1 &&
      Number(multipleOf) <= MAX_MULTIPLE_OF;
    if (isSupported) return { isInteger: true, multipleOf: Number(multipleOf) };
    throw this.#error(
      id,
      "multipleOf",
      `it must be an integer from 1 to ${MAX_MULTIPLE_OF}: current value is ${shown(multipleOf)}`,
    );
  }

  /** A size: not negative, whole. */
  #count(id: SchemaId, schema: SchemaObject, keyword: string): number | null {
    const value = schema[keyword];
    if (value === undefined) return null;
    if (Number.isSafeInteger(value) && Number(value) >= 0) return Number(value);
    throw this.#error(
      id,
      keyword,
      `it must be a whole number that is not negative: current value is ${shown(value)}`,
    );
  }

  async #languagesOf(id: SchemaId, schema: SchemaObject): Promise<Dfa[]> {
    const languages: Dfa[] = [];
    const { pattern, format } = schema;
    if (pattern !== undefined) languages.push(await this.#patternLanguage(id, "pattern", pattern));
    if (format === undefined || NUMBER_FORMATS.has(String(format))) return languages;
    const known = STRING_FORMATS.get(String(format));
    if (known === undefined) {
      const names = [...STRING_FORMATS.keys(), ...NUMBER_FORMATS.keys()].join(", ");
      throw this.#error(
        id,
        "format",
        `it must be one of ${names}: current value is ${shown(format)}`,
      );
    }
    return [...languages, await this.#language(`format:${format}`, parseRegex(known, "whole"))];
  }

  async #patternLanguage(id: SchemaId, keyword: string, pattern: JsonValue): Promise<Dfa> {
    if (typeof pattern !== "string") {
      throw this.#error(id, keyword, `it must be a text: current value is ${shown(pattern)}`);
    }
    try {
      return await this.#language(`pattern:${pattern}`, parseRegex(pattern, "part"));
    } catch (error) {
      if (!(error instanceof GrammarError)) throw error;
      throw this.#error(id, keyword, error.message);
    }
  }

  async #language(key: string, expression: Expression): Promise<Dfa> {
    const known = this.#languages.get(key);
    const language = known ?? await compileExpression(expression, codePoints, this.#work);
    this.#languages.set(key, language);
    return language;
  }

  /** `items` as a list is what older drafts have for `prefixItems`. */
  #arrayClauses(id: SchemaId, schema: SchemaObject): ArrayClause[] {
    const { items, prefixItems, additionalItems } = schema;
    if (items === undefined && prefixItems === undefined) return [];
    const isOld = Array.isArray(items);
    if (isOld && prefixItems !== undefined) {
      throw this.#error(id, "items", "it must not be a list beside prefixItems");
    }
    const prefix = isOld ? this.#list(id, schema, "items") : this.#list(id, schema, "prefixItems");
    const others = isOld ? additionalItems : items;
    const keyword = isOld ? "additionalItems" : "items";
    return [{
      prefix,
      others: others === undefined ? TRUE_SCHEMA : this.#part(id, others, keyword),
    }];
  }

  #requiredOf(id: SchemaId, { required }: SchemaObject): readonly string[] {
    if (required === undefined) return [];
    const isSound = Array.isArray(required) && required.every((name) => typeof name === "string");
    if (isSound) return [...new Set(required as string[])];
    throw this.#error(
      id,
      "required",
      `it must be a list of names: current value is ${shown(required)}`,
    );
  }

  async #objectClauses(id: SchemaId, schema: SchemaObject): Promise<ObjectClause[]> {
    const { properties, patternProperties, additionalProperties: others } = schema;
    if (properties === undefined && patternProperties === undefined && others === undefined) {
      return [];
    }
    const named = this.#members(id, schema, "properties");
    const patterns: { language: Dfa; schema: SchemaId }[] = [];
    for (const [pattern, part] of this.#members(id, schema, "patternProperties")) {
      const language = await this.#patternLanguage(id, "patternProperties", pattern);
      patterns.push({ language, schema: part });
    }
    return [{
      properties: new Map(named),
      patterns,
      others: others === undefined ? TRUE_SCHEMA : this.#part(id, others, "additionalProperties"),
    }];
  }

  #members(id: SchemaId, schema: SchemaObject, keyword: string): [string, SchemaId][] {
    const members = schema[keyword];
    if (members === undefined) return [];
    if (!isObject(members)) {
      throw this.#error(id, keyword, `it must be an object: current value is ${shown(members)}`);
    }
    const pointer = childPointer(this.#document.pointer(id), keyword);
    return Object.entries(members).map((
      [name, part],
    ) => [name, this.#document.idOf(part, childPointer(pointer, name))]);
  }

  #list(id: SchemaId, schema: SchemaObject, keyword: string): SchemaId[] {
    const parts = schema[keyword];
    if (parts === undefined) return [];
    if (!Array.isArray(parts)) {
      throw this.#error(
        id,
        keyword,
        `it must be a list of schemas: current value is ${shown(parts)}`,
      );
    }
    const pointer = childPointer(this.#document.pointer(id), keyword);
    return parts.map((part, i) => this.#document.idOf(part, childPointer(pointer, i)));
  }

  #part(id: SchemaId, part: JsonValue, keyword: string): SchemaId {
    return this.#document.idOf(part, childPointer(this.#document.pointer(id), keyword));
  }

  #error(id: SchemaId, keyword: string, reason: string): GrammarError {
    const what = keyword === "" ? this.#document.pointer(id) : `\`${keyword}\``;
    const where = keyword === "" ? "" : ` at ${this.#document.pointer(id)}`;
    return new GrammarError(`Cannot constrain to this schema as of ${what}${where}: ${reason}`);
  }
}

/** Where both hold. */
export function both(a: Case, b: Case): Case {
  if (a === ANYTHING) return b;
  if (b === ANYTHING) return a;
  const { values } = a;
  return {
    types: a.types.filter((type) => b.types.includes(type)),
    isInteger: a.isInteger || b.isInteger,
    values: values === null || b.values === null
      ? values ?? b.values
      : values.filter((value) => b.values!.some((other) => isEqual(value, other))),
    minimum: tighter(a.minimum, b.minimum, (x, y) => x > y),
    maximum: tighter(a.maximum, b.maximum, (x, y) => x < y),
    multipleOf: leastCommonMultiple(a.multipleOf, b.multipleOf),
    minLength: Math.max(a.minLength, b.minLength),
    maxLength: least(a.maxLength, b.maxLength),
    languages: [...new Set([...a.languages, ...b.languages])],
    minItems: Math.max(a.minItems, b.minItems),
    maxItems: least(a.maxItems, b.maxItems),
    arrays: [...a.arrays, ...b.arrays],
    minProperties: Math.max(a.minProperties, b.minProperties),
    maxProperties: least(a.maxProperties, b.maxProperties),
    required: [...new Set([...a.required, ...b.required])],
    objects: [...a.objects, ...b.objects],
    propertyNames: [...new Set([...a.propertyNames, ...b.propertyNames])],
  };
}

function tighter(
  a: Bound | null,
  b: Bound | null,
  isInside: (x: number, y: number) => boolean,
): Bound | null {
  if (a === null || b === null) return a ?? b;
  if (a.value === b.value) return a.isExclusive ? a : b;
  return isInside(a.value, b.value) ? a : b;
}

function least(a: number | null, b: number | null): number | null {
  return a === null || b === null ? a ?? b : Math.min(a, b);
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return a / x * b;
}

/** Equal as JSON: the order of members does not matter. */
export function isEqual(a: JsonValue, b: JsonValue): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  const [left, right] = [a as SchemaObject, b as SchemaObject];
  return keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(right, key) && isEqual(left[key], right[key]));
}
