/**
 * GBNF, llama.cpp's notation of grammars: `root ::= "yes" | "no"`.
 *
 * Source: llama.cpp, grammars/README.md; written after that description.
 */
import { shown } from "../errors.ts";
import { call, type Expression, repeat, set, text } from "./expression.ts";
import { ANY, complement, type Range, type Ranges, union } from "./ranges.ts";
import type { RuleId } from "./expression.ts";
import type { RuleBook } from "./rule_book.ts";
import { Scanner } from "./scanner.ts";
import { GrammarError } from "./types.ts";

const ROOT = "root";
const NAME_CHARACTER = /[A-Za-z0-9_-]/;
const ESCAPES = new Map([
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["\\", "\\"],
  ['"', '"'],
  [
    "[",
    "[",
  ],
  ["]", "]"],
  ["^", "^"],
  ["-", "-"],
]);
const HEX_LENGTHS = new Map([["x", 2], ["u", 4], ["U", 8]]);

/** Rule 0: the texts of the rule `root`. */
export async function gbnfRules(book: RuleBook, grammar: string): Promise<void> {
  const parser = new GbnfParser(book, grammar);
  parser.idOf(ROOT);
  const definitions = parser.parse();
  for (const [name, id] of parser.ids) {
    const definition = definitions.get(name);
    if (definition === undefined) {
      throw new GrammarError(
        `Cannot compile this grammar as it has no rule ${shown(name)}: add \`${name} ::= ...\``,
      );
    }
    await book.define(id, definition);
  }
}

class GbnfParser {
  readonly ids = new Map<string, RuleId>();
  readonly #book: RuleBook;
  readonly #scanner: Scanner;

  constructor(book: RuleBook, grammar: string) {
    this.#book = book;
    this.#scanner = new Scanner("GBNF grammar", grammar);
  }

  idOf(name: string): RuleId {
    const id = this.ids.get(name) ?? this.#book.declare();
    this.ids.set(name, id);
    return id;
  }

  parse(): Map<string, Expression> {
    const definitions = new Map<string, Expression>();
    this.#skipSpace(true);
    while (!this.#scanner.isAtEnd) {
      const name = this.#name();
      if (definitions.has(name)) throw this.#scanner.error(`${shown(name)} is there already`);
      this.#skipSpace(false);
      this.#scanner.expect("::=");
      this.#skipSpace(true);
      this.idOf(name);
      definitions.set(name, this.#alternatives(false));
      if (!this.#scanner.isAtEnd && !/[\r\n]/.test(this.#scanner.peek())) {
        throw this.#scanner.error("a rule must end with its line");
      }
      this.#skipSpace(true);
    }
    return definitions;
  }

  #name(): string {
    const name = this.#scanner.takeWhile(NAME_CHARACTER);
    if (name === "") throw this.#scanner.error("a rule's name must come here");
    return name;
  }

  /** Spaces and comments; ends of lines as well where a rule can not end. */
  #skipSpace(skipsLines: boolean): void {
    const scanner = this.#scanner;
    for (;;) {
      scanner.takeWhile(skipsLines ? /[ \t\r\n]/ : /[ \t]/);
      if (scanner.peek() !== "#") return;
      scanner.takeWhile(/[^\r\n]/);
    }
  }

  #alternatives(isNested: boolean): Expression {
    const alternatives = [this.#sequence(isNested)];
    while (this.#scanner.take("|")) {
      this.#skipSpace(true);
      alternatives.push(this.#sequence(isNested));
    }
    return { kind: "choice", parts: alternatives };
  }

  #sequence(isNested: boolean): Expression {
    const parts: Expression[] = [];
    for (let part = this.#element(isNested); part !== null; part = this.#element(isNested)) {
      this.#skipSpace(isNested);
      parts.push(this.#repeated(part, isNested));
    }
    return { kind: "sequence", parts };
  }

  #repeated(part: Expression, isNested: boolean): Expression {
    const scanner = this.#scanner;
    let repeated = part;
    for (;;) {
      const counts = this.#quantifier();
      if (counts === null) break;
      repeated = repeat(repeated, counts.min, counts.max);
      this.#skipSpace(isNested);
    }
    if (scanner.peek() === "{") throw scanner.error("a repetition must be {m}, {m,} or {m,n}");
    return repeated;
  }

  #quantifier(): { min: number; max: number | null } | null {
    const scanner = this.#scanner;
    if (scanner.take("*")) return { min: 0, max: null };
    if (scanner.take("+")) return { min: 1, max: null };
    if (scanner.take("?")) return { min: 0, max: 1 };
    return scanner.takeCounts();
  }

  /** A part of a sequence, or null where the sequence ends. */
  #element(isNested: boolean): Expression | null {
    const scanner = this.#scanner;
    if (scanner.take('"')) return text(this.#literal());
    if (scanner.take("[")) return set(this.#class());
    if (scanner.take(".")) return set(ANY);
    if (scanner.take("(")) return this.#group();
    if (NAME_CHARACTER.test(scanner.peek())) return call(this.idOf(this.#name()));
    if (scanner.isAtEnd || "|\r\n".includes(scanner.peek()) || isNested) return null;
    throw scanner.error("a literal, a class, a group or a rule's name must come here");
  }

  #group(): Expression {
    this.#skipSpace(true);
    const inner = this.#scanner.nested(() => this.#alternatives(true));
    this.#scanner.expect(")");
    return inner;
  }

  #literal(): string {
    let literal = "";
    while (!this.#scanner.take('"')) literal += String.fromCodePoint(this.#point());
    return literal;
  }

  #class(): Ranges {
    const scanner = this.#scanner;
    const isNegated = scanner.take("^");
    const ranges: Range[] = [];
    while (!scanner.take("]")) {
      const lo = this.#point();
      const isRange = scanner.peek() === "-" && scanner.peek(1) !== "]";
      const hi = isRange && scanner.take("-") ? this.#point() : lo;
      if (hi < lo) throw scanner.error("a range must not end before it begins");
      ranges.push({ lo, hi });
    }
    return isNegated ? complement(ranges) : union(ranges);
  }

  /** A character, as itself or as an escape. */
  #point(): number {
    const scanner = this.#scanner;
    const character = scanner.next();
    if (/[\r\n]/.test(character)) throw scanner.error("a literal or class must end with its line");
    const point = character === "\\" ? this.#escape() : character.codePointAt(0)!;
    const isCharacter = point < 0xd800 || (point > 0xdfff && point <= 0x10ffff);
    if (!isCharacter) throw scanner.error("an escape must stand for a character");
    return point;
  }

  #escape(): number {
    const name = this.#scanner.next();
    const length = HEX_LENGTHS.get(name);
    if (length !== undefined) return this.#scanner.hex(length);
    const character = ESCAPES.get(name);
    if (character === undefined) throw this.#scanner.error(`\\${name} is no escape`);
    return character.codePointAt(0)!;
  }
}
