/** Random schemas: what comes out of their grammars is valid by another's validator, and the reverse. */
import { Ajv2020 } from "ajv/dist/2020.js";
import assert from "node:assert/strict";
import { compileGrammar } from "./compile.ts";
import type { JsonValue } from "./json_values.ts";
import { byteVocabulary, isText, randomNumbers, randomText } from "./test_vocabularies.ts";
import { GrammarError } from "./types.ts";

const NUM_SCHEMAS = 120;
const NAMES = ["a", "b", "ab", 'c"', "é"];

type Schema = boolean | { [keyword: string]: unknown };

class RandomSchemas {
  readonly random: () => number;

  constructor(seed: number) {
    this.random = randomNumbers(seed);
  }

  below(count: number): number {
    return Math.floor(this.random() * count);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }

  document(): Schema {
    const $defs = { x: this.#object(2), y: this.#array(2) };
    const root = this.#schema(3);
    return typeof root === "boolean" ? root : { ...root, $defs };
  }

  /** A value that may or may not be valid, its members in the order of NAMES. */
  value(depth = 3): JsonValue {
    const kind = this.below(depth === 0 ? 5 : 8);
    if (kind === 0) return null;
    if (kind === 1) return this.random() < 0.5;
    if (kind === 2) return this.below(12) - 4;
    if (kind === 3) return (this.below(40) - 15) / 4;
    if (kind === 4) return this.pick(["", "a", "ab", "abc", "é", '"', "x1", "2020-02-29"]);
    if (kind === 5) return Array.from({ length: this.below(4) }, () => this.value(depth - 1));
    const names = NAMES.filter(() => this.random() < 0.4);
    return Object.fromEntries(names.map((name) => [name, this.value(depth - 1)]));
  }

  #schema(depth: number): Schema {
    const kind = this.below(depth === 0 ? 5 : 11);
    if (kind === 0) return this.random() < 0.8;
    if (kind === 1) return this.#string();
    if (kind === 2) return this.#number();
    if (kind === 3) return { enum: Array.from({ length: 3 }, () => this.value(1)) };
    if (kind === 4) return { $ref: this.pick(["#/$defs/x", "#/$defs/y"]) };
    if (kind === 5) return this.#array(depth);
    if (kind <= 7) return this.#object(depth);
    if (kind === 8) return { anyOf: [this.#schema(depth - 1), this.#schema(depth - 1)] };
    if (kind === 9) return { allOf: [this.#schema(depth - 1), this.#object(depth)] };
    const oneOf = [this.#schema(depth - 1), this.#schema(depth - 1)];
    return { ...this.#types(), oneOf };
  }

  #types(): { [keyword: string]: unknown } {
    const types = ["string", "number", "integer", "null", "boolean", "array", "object"];
    if (this.random() < 0.3) return {};
    return {
      type: types.filter(() => this.random() < 0.4).concat(this.pick(types)).filter(isFirst),
    };
  }

  #some(keywords: { [keyword: string]: () => unknown }): { [keyword: string]: unknown } {
    const chosen = Object.entries(keywords).filter(() => this.random() < 0.35);
    return Object.fromEntries(chosen.map(([keyword, value]) => [keyword, value()]));
  }

  #string(): Schema {
    return {
      ...(this.random() < 0.7 ? { type: "string" } : {}),
      ...this.#some({
        minLength: () => this.below(3),
        maxLength: () => 1 + this.below(5),
        pattern: () => this.pick(["^a", "b+$", "^[a-c]{2,}$", '"', "^\\w*é?$", "1|x"]),
      }),
    };
  }

  #number(): Schema {
    const bound = () => (this.below(60) - 20) / 4;
    return {
      type: this.pick(["number", "integer", ["integer", "string"]]),
      ...this.#some({
        minimum: bound,
        maximum: bound,
        exclusiveMinimum: bound,
        exclusiveMaximum: bound,
        multipleOf: () => 1 + this.below(4),
      }),
    };
  }

  #array(depth: number): Schema {
    return {
      ...(this.random() < 0.7 ? { type: "array" } : {}),
      ...this.#some({
        items: () => this.#schema(depth - 1),
        prefixItems: () => [this.#schema(depth - 1), this.#schema(depth - 1)],
        minItems: () => this.below(3),
        maxItems: () => this.below(4),
      }),
    };
  }

  #object(depth: number): Schema {
    const names = NAMES.filter(() => this.random() < 0.4);
    return {
      ...(this.random() < 0.7 ? { type: "object" } : {}),
      properties: Object.fromEntries(names.map((name) => [name, this.#schema(depth - 1)])),
      ...this.#some({
        required: () => NAMES.filter(() => this.random() < 0.3),
        additionalProperties: () => this.#schema(depth - 1),
        patternProperties: () => ({ [this.pick(["^a", "b", "."])]: this.#schema(depth - 1) }),
        propertyNames: () => this.pick([{ maxLength: 1 }, { pattern: "^[ab]" }, { enum: NAMES }]),
        minProperties: () => this.below(3),
        maxProperties: () => 1 + this.below(3),
      }),
    };
  }
}

function isFirst<T>(value: T, i: number, all: readonly T[]): boolean {
  return all.indexOf(value) === i;
}

/** Texts of a value, its members in every order. */
function spellings(value: JsonValue): string[] {
  if (Array.isArray(value)) return joined(value.map(spellings)).map((items) => `[${items}]`);
  if (typeof value !== "object" || value === null) return [JSON.stringify(value)];
  return orders(Object.entries(value)).flatMap((members) => {
    const parts = members.map(([name, member]) =>
      spellings(member).map((text) => `${JSON.stringify(name)}:${text}`)
    );
    return joined(parts).map((inner) => `{${inner}}`);
  });
}

function joined(parts: readonly (readonly string[])[]): string[] {
  let texts = [""];
  for (const [i, part] of parts.entries()) {
    texts = texts.flatMap((text) => part.map((next) => i === 0 ? next : `${text},${next}`));
  }
  return texts;
}

function orders<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((first, i) =>
    orders([...items.slice(0, i), ...items.slice(i + 1)]).map((rest) => [first, ...rest])
  );
}

Deno.test("random schemas accept exactly what ajv accepts", async () => {
  const vocabulary = await byteVocabulary();
  const counts = { refused: 0, compiled: 0, texts: 0, valid: 0, invalid: 0 };
  for (let seed = 1; seed <= NUM_SCHEMAS; seed++) {
    const all = new RandomSchemas(seed);
    const schema = all.document();
    const replay = `seed ${seed}: ${JSON.stringify(schema)}`;
    const ajv = new Ajv2020({ strict: false, allErrors: false });
    const validate = ajv.compile(schema);
    let grammar;
    try {
      grammar = await compileGrammar({ kind: "jsonSchema", schema }, vocabulary);
    } catch (error) {
      assert.ok(error instanceof GrammarError, `${replay}: ${error}`);
      counts.refused++;
      continue;
    }
    counts.compiled++;
    for (let run = 0; run < 6; run++) {
      const text = randomText(grammar, vocabulary, all.random, 250);
      if (text === null) continue;
      counts.texts++;
      assert.ok(validate(JSON.parse(text)), `${replay}: ${text}`);
    }
    for (let run = 0; run < 25; run++) {
      const value = all.value();
      const isValid = validate(value);
      const accepted = spellings(value).some((text) => isText(grammar, text));
      assert.equal(accepted, isValid, `${replay}: ${JSON.stringify(value)}`);
      if (isValid) counts.valid++;
      else counts.invalid++;
    }
  }
  const { compiled, texts, valid, invalid } = counts;
  const isEnough = compiled > NUM_SCHEMAS / 2 && texts > 3 * compiled && valid > 500 &&
    invalid > 500;
  assert.ok(isEnough, JSON.stringify(counts));
});
