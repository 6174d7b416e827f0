/**
 * Values of JSON as rules. They are written compactly, with one optional space after a comma and
 * after a colon: more would let a model write white space for ever.
 */
import { compileExpression, type Dfa } from "./automaton.ts";
import { jsonString } from "./encoding.ts";
import {
  automaton,
  call,
  choice,
  type Expression,
  optional,
  repeat,
  type RuleId,
  sequence,
  set,
} from "./expression.ts";
import { ANY_NUMBER, boundedNumber, type NumberBounds } from "./json_numbers.ts";
import { ANY, complement, intersection, oneOf, pairs } from "./ranges.ts";
import type { RuleBook } from "./rule_book.ts";
import { GrammarError } from "./types.ts";

export type JsonValue = null | boolean | number | string | JsonValue[] | {
  [key: string]: JsonValue;
};

export const COMMA = sequence(",", optional(" "));
export const COLON = sequence(":", optional(" "));

const CONTROLS = [{ lo: 0, hi: 0x1f }];
const PLAIN = set(
  intersection(complement(CONTROLS), complement(oneOf('"\\'))),
);
const HEX = set(pairs("09afAF"));
const THREE_HEX = repeat(HEX, 3, 3);
/** One UTF-16 unit that is a character alone, or two that are one. */
const UNICODE_ESCAPE = choice(
  sequence("u", set(pairs("09acACeEfF")), THREE_HEX),
  sequence("u", set("dD"), set(pairs("07")), HEX, HEX),
  sequence(
    sequence("u", set("dD"), set(pairs("89abAB")), HEX, HEX),
    sequence("\\u", set("dD"), set(pairs("cfCF")), HEX, HEX),
  ),
);
/** One character inside of a string, spelled in any way. */
const CHARACTER = choice(PLAIN, sequence("\\", choice(set('"\\/bfnrt'), UNICODE_ESCAPE)));

/** Strings with bounds have as many states. */
const MAX_LENGTH = 20_000;

export interface Lengths {
  min: number;
  /** Null: no end. */
  max: number | null;
}

/** Rules of a book that schemas share. */
export class JsonValues {
  readonly book: RuleBook;
  readonly #longestToken: number;
  readonly #rules = new Map<string, RuleId>();
  readonly #languages = new Map<Dfa, RuleId>();

  constructor(book: RuleBook, longestToken: number) {
    this.book = book;
    this.#longestToken = longestToken;
  }

  any(): Promise<RuleId> {
    return this.#once("any", async (id) => {
      const object = await this.anyObject();
      const array = await this.#anyArray();
      const leaves = [await this.string({ min: 0, max: null }), await this.#anyNumber()];
      const calls = [...leaves, object, array].map(call);
      await this.book.define(id, choice("null", "true", "false", ...calls));
    });
  }

  anyObject(): Promise<RuleId> {
    return this.#once("object", async (id) => {
      const key = call(await this.string({ min: 0, max: null }));
      const member = sequence(key, COLON, call(await this.any()));
      const members = sequence(member, repeat(sequence(COMMA, member), 0, null));
      await this.book.define(id, sequence("{", optional(members), "}"));
    });
  }

  #anyArray(): Promise<RuleId> {
    return this.#once("array", async (id) => {
      const item = call(await this.any());
      const items = sequence(item, repeat(sequence(COMMA, item), 0, null));
      await this.book.define(id, sequence("[", optional(items), "]"));
    });
  }

  #anyNumber(): Promise<RuleId> {
    return this.#once("number", (id) => this.book.define(id, ANY_NUMBER));
  }

  number(bounds: NumberBounds): Promise<RuleId> {
    const key = `number:${JSON.stringify(bounds)}`;
    return this.#once(key, (id) => this.book.define(id, boundedNumber(bounds)));
  }

  /** Any string with so many code points. */
  string({ min, max }: Lengths): Promise<RuleId> {
    if (min === 0 && max === null) {
      const whole = sequence('"', repeat(CHARACTER, 0, null), '"');
      return this.#once("string", (id) => this.book.define(id, whole));
    }
    return this.#once(`string:${min}:${max}`, async (id) => {
      const character = await this.#once("character", (own) => this.book.define(own, CHARACTER));
      this.#defineCounted(id, character, { min, max });
    });
  }

  /** Strings of a language over code points, each spelled in one way. */
  async stringOf(language: Dfa): Promise<RuleId> {
    const known = this.#languages.get(language);
    if (known !== undefined) return known;
    const content = await compileExpression(automaton(language), jsonString, this.book.work);
    const id = this.book.declare();
    this.book.set(id, { dfa: quoted(content), shareKeys: [] });
    this.#languages.set(language, id);
    return id;
  }

  /** A chain of states, one a character. */
  #defineCounted(id: RuleId, character: RuleId, { min, max }: Lengths): void {
    checkLength(max ?? min);
    const last = max ?? min;
    const dfa: Dfa = { edges: [], calls: [], accepting: [] };
    const end = last + 2;
    const add = (edges: Dfa["edges"][0], calls: Dfa["calls"][0], isEnd: boolean) => {
      dfa.edges.push(edges);
      dfa.calls.push(calls);
      dfa.accepting.push(isEnd);
    };
    const shareKeys = [""];
    add([{ lo: QUOTE, hi: QUOTE, to: 1 }], [], false);
    for (let count = 0; count <= last; count++) {
      const next = count < last ? [count + 2] : max === null ? [count + 1] : [];
      const close = count >= min ? [{ lo: QUOTE, hi: QUOTE, to: end }] : [];
      add(close, next.map((to) => ({ rule: character, to })), false);
      shareKeys.push(this.#shareKey(Math.max(0, min - count), max === null ? null : max - count));
    }
    add([], [], true);
    this.book.set(id, { dfa, shareKeys });
  }

  /** Bounds that no token reaches make no difference to masks: each character has a byte or more. */
  #shareKey(least: number, most: number | null): string {
    const far = this.#longestToken + 1;
    const isFar = most === null || most >= far;
    return `string:${Math.min(least, far)}:${isFar ? "far" : most}`;
  }

  async #once(key: string, define: (id: RuleId) => Promise<void>): Promise<RuleId> {
    const known = this.#rules.get(key);
    if (known !== undefined) return known;
    const id = this.book.declare();
    this.#rules.set(key, id);
    await define(id);
    return id;
  }
}

const QUOTE = '"'.charCodeAt(0);

/**
 * Between quotes. They are edges of the same automaton, as a rule of its own for what is inside could
 * end after each of its tokens.
 */
function quoted({ edges, calls, accepting }: Dfa): Dfa {
  const end = edges.length + 1;
  const inner = edges.map((own, state) => {
    const moved = own.map(({ lo, hi, to }) => ({ lo, hi, to: to + 1 }));
    if (accepting[state]) moved.push({ lo: QUOTE, hi: QUOTE, to: end });
    return moved.sort((a, b) => a.lo - b.lo);
  });
  return {
    edges: [[{ lo: QUOTE, hi: QUOTE, to: 1 }], ...inner, []],
    calls: [[], ...calls, []],
    accepting: [false, ...accepting.map(() => false), true],
  };
}

/** @throws {GrammarError} If counting so far takes too much memory. */
export function checkLength(length: number): void {
  if (length <= MAX_LENGTH) return;
  throw new GrammarError(
    `Cannot constrain to strings of ${length} characters: use bounds of at most ${MAX_LENGTH}`,
  );
}

/** Texts with so many characters, over code points. */
export function lengthLanguage({ min, max }: Lengths): Dfa {
  checkLength(max ?? min);
  const last = max ?? min;
  const dfa: Dfa = { edges: [], calls: [], accepting: [] };
  for (let count = 0; count <= last; count++) {
    const to = count < last ? count + 1 : count;
    const goesOn = count < last || max === null;
    dfa.edges.push(goesOn ? ANY.map((range) => ({ ...range, to })) : []);
    dfa.calls.push([]);
    dfa.accepting.push(count >= min);
  }
  return dfa;
}

/** A value as it is, with the spaces that are free. */
export function literal(value: JsonValue): Expression {
  if (Array.isArray(value)) return sequence("[", joined(value.map(literal)), "]");
  if (typeof value !== "object" || value === null) return sequence(JSON.stringify(value));
  const members = Object.entries(value).map(([key, member]) =>
    sequence(JSON.stringify(key), COLON, literal(member))
  );
  return sequence("{", joined(members), "}");
}

function joined(parts: readonly Expression[]): Expression {
  return { kind: "sequence", parts: parts.flatMap((part, i) => i === 0 ? [part] : [COMMA, part]) };
}
