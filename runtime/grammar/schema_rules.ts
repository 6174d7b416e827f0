/** From the cases of schemas to rules: each conjunction of schemas that values can be in is one rule. */
import {
  accepts,
  compileExpression,
  complementOf,
  type Dfa,
  intersect,
  isEmpty,
} from "./automaton.ts";
import { codePoints } from "./encoding.ts";
import {
  type Arc,
  call,
  choice,
  EMPTY,
  type Expression,
  type RuleId,
  sequence,
  text,
} from "./expression.ts";
import { isEmptyRange, MAX_MULTIPLE_OF, type NumberBounds } from "./json_numbers.ts";
import {
  COLON,
  COMMA,
  type JsonValue,
  type JsonValues,
  lengthLanguage,
  literal,
} from "./json_values.ts";
import { type Case, SchemaCases, type Type } from "./schema_cases.ts";
import {
  FALSE_SCHEMA,
  isObject,
  type SchemaDocument,
  type SchemaId,
  TRUE_SCHEMA,
} from "./schema_document.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

/** Items that are counted one by one. */
const MAX_COUNT = 10_000;
/** Patterns that names of members are told apart by: each doubles the combinations. */
const MAX_PATTERNS = 5;
/** Conjunctions of schemas. */
const MAX_RULES = 20_000;

/** A conjunction: sorted, each once, without the schema that says nothing. */
type Conjunction = readonly SchemaId[];

interface Member {
  name: string;
  isRequired: boolean;
  value: Conjunction;
}

/** Members that no name stands for. */
interface OtherMembers {
  /** Of the name; null: any. */
  language: Dfa | null;
  value: Conjunction;
}

export class SchemaRules {
  readonly #values: JsonValues;
  readonly #cases: SchemaCases;
  readonly #work: Workload;
  readonly #rules = new Map<string, RuleId>();
  readonly #pending: { id: RuleId; conjunction: Conjunction }[] = [];
  /** By conjunction; null while it is being found out. */
  readonly #areEmpty = new Map<string, boolean | null>();

  constructor(document: SchemaDocument, values: JsonValues) {
    this.#values = values;
    this.#work = values.book.work;
    const areEmpty = (cases: readonly Case[]) => this.#areAllEmpty(cases);
    this.#cases = new SchemaCases(document, this.#work, areEmpty);
  }

  /** Defines rule `id`, and all that it calls. */
  async define(id: RuleId, schemas: readonly SchemaId[]): Promise<void> {
    this.#pending.push({ id, conjunction: conjunctionOf(schemas) });
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) {
      const cases = await this.#cases.ofAll(next.conjunction);
      await this.#values.book.define(next.id, await this.#expression(cases));
    }
  }

  async #valueOf(conjunction: Conjunction): Promise<Expression> {
    if (conjunction.length === 0) return call(await this.#values.any());
    const key = conjunction.join();
    const known = this.#rules.get(key);
    if (known !== undefined) return call(known);
    const cases = await this.#cases.ofAll(conjunction);
    // Leaves stand where they are used: what comes after them is then told apart at once.
    if (cases.every(isLeaf)) return await this.#expression(cases);
    if (this.#rules.size >= MAX_RULES) {
      throw new GrammarError(
        `Cannot constrain to this schema as it has more than ${MAX_RULES} different parts: ` +
          "use a smaller one",
      );
    }
    const id = this.#values.book.declare();
    this.#rules.set(key, id);
    this.#pending.push({ id, conjunction });
    return call(id);
  }

  async #expression(cases: readonly Case[]): Promise<Expression> {
    const parts: Expression[] = [];
    for (const one of cases) parts.push(await this.#caseExpression(one));
    return parts.length === 1 ? parts[0] : { kind: "choice", parts };
  }

  async #caseExpression(one: Case): Promise<Expression> {
    if (one.values !== null) {
      const parts: Expression[] = [];
      for (const value of one.values) if (await this.#fits(one, value)) parts.push(literal(value));
      return { kind: "choice", parts };
    }
    const parts: Expression[] = [];
    for (const type of one.types) parts.push(await this.#ofType(one, type));
    return { kind: "choice", parts };
  }

  async #ofType(one: Case, type: Type): Promise<Expression> {
    switch (type) {
      case "null":
        return sequence("null");
      case "boolean":
        return choice("true", "false");
      case "number":
        return await this.#number(one);
      case "string":
        return await this.#string(one);
      case "array":
        return await this.#array(one);
      case "object":
        return await this.#object(one);
    }
  }

  async #number(one: Case): Promise<Expression> {
    const bounds = boundsOf(one);
    if (isEmptyRange(bounds)) return choice();
    if (bounds.multipleOf > MAX_MULTIPLE_OF) {
      throw new GrammarError(
        `Cannot constrain to multiples of ${bounds.multipleOf}: use at most ${MAX_MULTIPLE_OF}`,
      );
    }
    return call(await this.#values.number(bounds));
  }

  async #string(one: Case): Promise<Expression> {
    const { minLength: min, maxLength: max } = one;
    if (max !== null && max < min) return choice();
    if (one.languages.length === 0) return call(await this.#values.string({ min, max }));
    const language = await this.#languageOf(one);
    return isEmpty(language) ? choice() : call(await this.#values.stringOf(language));
  }

  /** Of strings that a case with strings accepts. */
  async #languageOf(one: Case): Promise<Dfa> {
    const { minLength: min, maxLength: max } = one;
    let language = one.languages[0] ?? lengthLanguage({ min, max });
    for (const other of one.languages.slice(1)) {
      language = await intersect(language, other, this.#work);
    }
    const isBounded = one.languages.length > 0 && (min > 0 || max !== null);
    return isBounded
      ? await intersect(language, lengthLanguage({ min, max }), this.#work)
      : language;
  }

  async #array(one: Case): Promise<Expression> {
    const bounds = await this.#itemBounds(one);
    if (bounds === null) return choice();
    const { max } = bounds;
    const numPrefix = Math.max(0, ...one.arrays.map(({ prefix }) => prefix.length));
    const counted = Math.max(one.minItems, max ?? numPrefix, 1);
    checkCount(counted);
    const others = await this.#valueOf(itemOf(one, numPrefix));
    // State 1 is the end; state i + 2 is after i items.
    const arcs: Arc[] = [{ from: 0, to: 2, part: sequence("[") }];
    for (let i = 0; i <= counted; i++) {
      if (i >= one.minItems && (max === null || i <= max)) {
        arcs.push({ from: i + 2, to: 1, part: sequence("]") });
      }
      if (max !== null && i >= max) break;
      const to = Math.min(i + 1, counted) + 2;
      const item = i < numPrefix ? await this.#valueOf(itemOf(one, i)) : others;
      arcs.push({ from: i + 2, to, part: i === 0 ? item : sequence(COMMA, item) });
    }
    return { kind: "graph", numStates: counted + 3, arcs };
  }

  /** Items that no value fits end the array; null: there is no such array. */
  async #itemBounds(one: Case): Promise<{ max: number | null } | null> {
    let max = one.maxItems;
    const numPrefix = Math.max(0, ...one.arrays.map(({ prefix }) => prefix.length));
    for (let i = 0; i <= numPrefix && (max === null || i < max); i++) {
      if (await this.#isEmpty(itemOf(one, i))) max = i;
    }
    return max !== null && max < one.minItems ? null : { max };
  }

  async #object(one: Case): Promise<Expression> {
    const members = await this.#membersOf(one);
    if (members === null) return choice();
    const others = await this.#otherMembers(one);
    const { minProperties, maxProperties } = one;
    const numRequired = members.filter(({ isRequired }) => isRequired).length;
    if (others.length > 0 && minProperties > Math.max(1, numRequired)) {
      throw new GrammarError(
        "Cannot constrain to this schema as `minProperties` is only supported where names are " +
          "given: a model could write one name twice; set additionalProperties to false",
      );
    }
    const most = Math.max(minProperties, maxProperties ?? 0, 1);
    checkCount(most);
    return await this.#objectGraph(members, others, { minProperties, maxProperties, most });
  }

  /** State 1 is the end; state (i, c) is after i of the named members, c of them written. */
  async #objectGraph(
    members: readonly Member[],
    others: readonly OtherMembers[],
    { minProperties, maxProperties, most }: {
      minProperties: number;
      maxProperties: number | null;
      most: number;
    },
  ): Promise<Expression> {
    const stateOf = (i: number, count: number) => 2 + i * (most + 1) + Math.min(count, most);
    const arcs: Arc[] = [{ from: 0, to: stateOf(0, 0), part: sequence("{") }];
    const add = (i: number, count: number, next: number, member: Expression) => {
      if (count === maxProperties) return;
      const part = count === 0 ? member : sequence(COMMA, member);
      arcs.push({ from: stateOf(i, count), to: stateOf(next, count + 1), part });
    };
    for (const [i, { name, isRequired, value }] of members.entries()) {
      const member = sequence(JSON.stringify(name), COLON, await this.#valueOf(value));
      for (let count = 0; count <= Math.min(i, most); count++) {
        add(i, count, i + 1, member);
        if (!isRequired) {
          arcs.push({ from: stateOf(i, count), to: stateOf(i + 1, count), part: EMPTY });
        }
      }
    }
    const end = members.length;
    for (const { language, value } of others) {
      const name = language === null
        ? await this.#values.string({ min: 0, max: null })
        : await this.#values.stringOf(language);
      const member = sequence(call(name), COLON, await this.#valueOf(value));
      for (let count = 0; count <= most; count++) add(end, count, end, member);
    }
    for (let count = minProperties; count <= most; count++) {
      arcs.push({ from: stateOf(end, count), to: 1, part: sequence("}") });
    }
    return { kind: "graph", numStates: 2 + (end + 1) * (most + 1), arcs };
  }

  /** Members that have names, in the schema's order; null if one that must be there has no value. */
  async #membersOf(one: Case): Promise<Member[] | null> {
    const members: Member[] = [];
    for (const name of namesOf(one)) {
      const isRequired = one.required.includes(name);
      const value = memberOf(one, name);
      const isPossible = await this.#isName(one, name) && !await this.#isEmpty(value);
      if (isPossible) members.push({ name, isRequired, value });
      else if (isRequired) return null;
    }
    const numRequired = members.filter(({ isRequired }) => isRequired).length;
    return one.maxProperties !== null && numRequired > one.maxProperties ? null : members;
  }

  async #isName(one: Case, name: string): Promise<boolean> {
    return one.propertyNames.length === 0 ||
      await this.#fitsAll(conjunctionOf(one.propertyNames), name);
  }

  /** By the patterns that their names fit. */
  async #otherMembers(one: Case): Promise<OtherMembers[]> {
    const patterns = one.objects.flatMap((clause) => clause.patterns);
    if (patterns.length > MAX_PATTERNS) {
      throw new GrammarError(
        `Cannot constrain to this schema as an object has ${patterns.length} patterns of names: ` +
          `use at most ${MAX_PATTERNS}`,
      );
    }
    const others: OtherMembers[] = [];
    for (let fitting = 0; fitting < 1 << patterns.length; fitting++) {
      const fits = new Set(patterns.filter((_, i) => (fitting >> i) & 1));
      const value = conjunctionOf(one.objects.flatMap((clause) => {
        const own = clause.patterns.filter((pattern) => fits.has(pattern));
        return own.length > 0 ? own.map(({ schema }) => schema) : [clause.others];
      }));
      if (await this.#isEmpty(value)) continue;
      const languages = patterns.map((pattern) =>
        fits.has(pattern) ? pattern.language : complementOf(pattern.language)
      );
      const language = await this.#otherNames(one, languages);
      if (language === null || !isEmpty(language)) others.push({ language, value });
    }
    return others;
  }

  /** Names in some languages that are not given ones; null: any. */
  async #otherNames(one: Case, languages: readonly Dfa[]): Promise<Dfa | null> {
    const all = [...languages];
    const names = namesOf(one);
    if (names.length > 0) {
      const spelled = names.filter((name) => name.isWellFormed());
      const given: Expression = { kind: "choice", parts: spelled.map(text) };
      all.push(complementOf(await compileExpression(given, codePoints, this.#work)));
    }
    for (const schema of one.propertyNames) all.push(await this.#nameLanguage(schema));
    let language = all.pop() ?? null;
    for (const other of all) language = await intersect(language!, other, this.#work);
    return language;
  }

  /** Strings that a schema accepts. */
  async #nameLanguage(schema: SchemaId): Promise<Dfa> {
    const parts: Expression[] = [];
    for (const one of await this.#cases.of(schema)) {
      if (!one.types.includes("string")) continue;
      if (one.values === null) {
        parts.push({ kind: "automaton", dfa: await this.#languageOf(one) });
        continue;
      }
      for (const value of one.values) {
        const isName = typeof value === "string" && value.isWellFormed();
        if (isName && await this.#fits(one, value)) parts.push(sequence(value));
      }
    }
    return await compileExpression({ kind: "choice", parts }, codePoints, this.#work);
  }

  /** Whether it is certain that no value is in a conjunction. */
  async #isEmpty(conjunction: Conjunction): Promise<boolean> {
    const key = conjunction.join();
    const known = this.#areEmpty.get(key);
    // What is being found out needs itself: a finite value may come of that or not.
    if (known !== undefined) return known ?? false;
    this.#areEmpty.set(key, null);
    const empty = await this.#areAllEmpty(await this.#cases.ofAll(conjunction));
    this.#areEmpty.set(key, empty);
    return empty;
  }

  async #areAllEmpty(cases: readonly Case[]): Promise<boolean> {
    for (const one of cases) if (!await this.#isEmptyCase(one)) return false;
    return true;
  }

  async #isEmptyCase(one: Case): Promise<boolean> {
    await this.#work.pause();
    this.#work.spend(100);
    if (one.values !== null) {
      for (const value of one.values) if (await this.#fits(one, value)) return false;
      return true;
    }
    for (const type of one.types) if (!await this.#isEmptyType(one, type)) return false;
    return true;
  }

  async #isEmptyType(one: Case, type: Type): Promise<boolean> {
    switch (type) {
      case "null":
      case "boolean":
        return false;
      case "number":
        return isEmptyRange(boundsOf(one));
      case "string": {
        if (one.maxLength !== null && one.maxLength < one.minLength) return true;
        return one.languages.length > 0 && isEmpty(await this.#languageOf(one));
      }
      case "array":
        return await this.#itemBounds(one) === null;
      case "object":
        return await this.#membersOf(one) === null;
    }
  }

  async #fitsAll(conjunction: Conjunction, value: JsonValue): Promise<boolean> {
    for (const one of await this.#cases.ofAll(conjunction)) {
      if (await this.#fits(one, value)) return true;
    }
    return false;
  }

  /** Whether a value is in a case, but for `values`. */
  async #fits(one: Case, value: JsonValue): Promise<boolean> {
    const type = typeOf(value);
    if (!one.types.includes(type)) return false;
    if (typeof value === "number") return isInBounds(boundsOf(one), value);
    if (typeof value === "string") return fitsString(one, value);
    if (Array.isArray(value)) return await this.#fitsArray(one, value);
    return !isObject(value) || await this.#fitsObject(one, value);
  }

  async #fitsArray(one: Case, items: readonly JsonValue[]): Promise<boolean> {
    if (items.length < one.minItems || items.length > (one.maxItems ?? Infinity)) return false;
    for (const [i, item] of items.entries()) {
      if (!await this.#fitsAll(itemOf(one, i), item)) return false;
    }
    return true;
  }

  async #fitsObject(one: Case, value: { [name: string]: JsonValue }): Promise<boolean> {
    const names = Object.keys(value);
    const isCount = names.length >= one.minProperties &&
      names.length <= (one.maxProperties ?? Infinity);
    if (!isCount || !one.required.every((name) => Object.hasOwn(value, name))) return false;
    for (const name of names) {
      const fits = await this.#isName(one, name) &&
        await this.#fitsAll(memberOf(one, name), value[name]);
      if (!fits) return false;
    }
    return true;
  }
}

function conjunctionOf(ids: readonly SchemaId[]): Conjunction {
  if (ids.includes(FALSE_SCHEMA)) return [FALSE_SCHEMA];
  return [...new Set(ids)].filter((id) => id !== TRUE_SCHEMA).sort((a, b) => a - b);
}

function isLeaf({ types, values }: Case): boolean {
  return values !== null || !(types.includes("array") || types.includes("object"));
}

function boundsOf({ isInteger, minimum, maximum, multipleOf }: Case): NumberBounds {
  return { isInteger, min: minimum, max: maximum, multipleOf };
}

/** All names that a case's schemas have, in their order. */
function namesOf({ objects, required }: Case): string[] {
  const names = objects.flatMap(({ properties }) => [...properties.keys()]);
  return [...new Set([...names, ...required])];
}

/** What a member of that name must be. */
function memberOf({ objects }: Case, name: string): Conjunction {
  return conjunctionOf(objects.flatMap(({ properties, patterns, others }) => {
    const named = properties.get(name);
    const fitting = patterns.filter(({ language }) => accepts(language, name));
    const schemas = fitting.map(({ schema }) => schema);
    if (named !== undefined) schemas.push(named);
    return schemas.length > 0 ? schemas : [others];
  }));
}

/** What an array's item i must be. */
function itemOf({ arrays }: Case, i: number): Conjunction {
  return conjunctionOf(arrays.map(({ prefix, others }) => prefix[i] ?? others));
}

function typeOf(value: JsonValue): Type {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value as Type;
}

function isInBounds({ isInteger, min, max, multipleOf }: NumberBounds, value: number): boolean {
  if (isInteger && !Number.isInteger(value)) return false;
  if (multipleOf > 1 && value % multipleOf !== 0) return false;
  if (min !== null && (min.isExclusive ? value <= min.value : value < min.value)) return false;
  return max === null || (max.isExclusive ? value < max.value : value <= max.value);
}

function fitsString({ minLength, maxLength, languages }: Case, value: string): boolean {
  const length = [...value].length;
  return length >= minLength && length <= (maxLength ?? Infinity) &&
    languages.every((language) => accepts(language, value));
}

function checkCount(count: number): void {
  if (count <= MAX_COUNT) return;
  throw new GrammarError(
    `Cannot constrain to this schema as it counts ${count} items: use bounds of at most ${MAX_COUNT}`,
  );
}
