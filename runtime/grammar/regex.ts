/**
 * Regular expressions as expressions: what ECMAScript, Python and RE2 have in common, as far as it is
 * regular. Characters are code points.
 */
import { EMPTY, type Expression, repeat, sequence, set } from "./expression.ts";
import { ANY, complement, oneOf, pairs, type Range, type Ranges, union } from "./ranges.ts";
import type { RuleBook } from "./rule_book.ts";
import { Scanner } from "./scanner.ts";

const ANYTHING = repeat(set(ANY), 0, null);
const DIGITS = pairs("09");
const WORD = pairs("azAZ09__");
/** ECMAScript's white space and ends of lines. */
const SPACE = union([...oneOf("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"), {
  lo: 0x2000,
  hi: 0x200a,
}]);
const NOT_NEWLINE = complement(oneOf("\n\r\u2028\u2029"));

const CLASSES = new Map<string, Ranges>([
  ["d", DIGITS],
  ["D", complement(DIGITS)],
  ["w", WORD],
  ["W", complement(WORD)],
  ["s", SPACE],
  ["S", complement(SPACE)],
]);
const CONTROLS = new Map([["t", "\t"], ["n", "\n"], ["r", "\r"], ["f", "\f"], ["v", "\v"]]);

/** Rule 0: texts that the whole of `pattern` matches. */
export async function regexRules(book: RuleBook, pattern: string): Promise<void> {
  await book.add(parseRegex(pattern, "whole"));
}

/**
 * @param match "whole": the text is what the pattern matches; "part": it has such a part somewhere, as
 * JSON Schema wants it.
 * @throws {GrammarError} If it is malformed, or no regular language: look-around, references.
 */
export function parseRegex(pattern: string, match: "whole" | "part"): Expression {
  const scanner = new Scanner("regular expression", pattern);
  const parser = new RegexParser(scanner);
  const alternatives = [parser.anchoredSequence(match)];
  while (scanner.take("|")) alternatives.push(parser.anchoredSequence(match));
  if (!scanner.isAtEnd) throw scanner.error("there is no group to close here");
  return { kind: "choice", parts: alternatives };
}

class RegexParser {
  constructor(private readonly scanner: Scanner) {}

  /** An alternative outside of all groups: only these may have anchors, at their ends. */
  anchoredSequence(match: "whole" | "part"): Expression {
    const { scanner } = this;
    const isStart = scanner.take("^");
    const parts = this.#parts();
    const isEnd = scanner.take("$");
    const isAtEnd = scanner.isAtEnd || scanner.peek() === "|" || scanner.peek() === ")";
    if (!isAtEnd) throw scanner.error("`$` can only be at the end of the whole expression");
    const inner: Expression = { kind: "sequence", parts };
    if (match === "whole") return inner;
    return sequence(isStart ? EMPTY : ANYTHING, inner, isEnd ? EMPTY : ANYTHING);
  }

  #alternatives(): Expression {
    const parts: Expression[] = [];
    do parts.push({ kind: "sequence", parts: this.#parts() }); while (this.scanner.take("|"));
    return { kind: "choice", parts };
  }

  #parts(): Expression[] {
    const { scanner } = this;
    const parts: Expression[] = [];
    while (!scanner.isAtEnd && !"|)$".includes(scanner.peek())) parts.push(this.#quantified());
    return parts;
  }

  #quantified(): Expression {
    const { scanner } = this;
    const part = this.#atom();
    const counts = this.#quantifier();
    if (counts === null) return part;
    // A lazy one matches the same texts.
    scanner.take("?");
    if ("*+?".includes(scanner.peek() || " ") || scanner.takeCounts() !== null) {
      throw scanner.error("a quantifier can not be quantified: put it in a group");
    }
    return repeat(part, counts.min, counts.max);
  }

  #quantifier(): { min: number; max: number | null } | null {
    const { scanner } = this;
    if (scanner.take("*")) return { min: 0, max: null };
    if (scanner.take("+")) return { min: 1, max: null };
    if (scanner.take("?")) return { min: 0, max: 1 };
    return scanner.takeCounts();
  }

  #atom(): Expression {
    const { scanner } = this;
    if (scanner.take("(")) return this.#group();
    if (scanner.take("[")) return set(this.#class());
    if (scanner.take(".")) return set(NOT_NEWLINE);
    if (scanner.peek() === "\\") return set(this.#escape(false));
    if ("*+?^".includes(scanner.peek())) {
      throw scanner.error(`${scanner.peek()} has nothing to apply to here: escape it with a \\`);
    }
    if (scanner.takeCounts() !== null) throw scanner.error("a repetition has nothing to repeat");
    if (scanner.peek() === "{" && scanner.peek(1) === ",") {
      throw scanner.error("a repetition must have a first number: write {0,n}, or \\{");
    }
    return set(scanner.next());
  }

  #group(): Expression {
    const { scanner } = this;
    if (scanner.take("?")) this.#groupKind();
    const inner = scanner.nested(() => this.#alternatives());
    if (scanner.peek() === "$") {
      throw scanner.error("`$` can only be at the end of the whole expression");
    }
    scanner.expect(")");
    return inner;
  }

  #groupKind(): void {
    const { scanner } = this;
    if (scanner.take(":")) return;
    const isLook = /^(=|!|<=|<!)/.test(scanner.peek() + scanner.peek(1));
    if (isLook) throw scanner.error("look-around is not supported");
    if (!scanner.take("P<") && !scanner.take("<")) {
      throw scanner.error("this kind of group is not supported: use (...) or (?:...)");
    }
    if (scanner.takeWhile(/[\w$]/) === "") throw scanner.error("a group's name must come here");
    scanner.expect(">");
  }

  #class(): Ranges {
    const { scanner } = this;
    const isNegated = scanner.take("^");
    const ranges: Range[] = [];
    while (!scanner.take("]")) {
      const first = this.#classMember();
      const isRange = scanner.peek() === "-" && scanner.peek(1) !== "]" && scanner.peek(1) !== "";
      if (isRange) ranges.push(this.#rangeFrom(first));
      else ranges.push(...first);
    }
    return isNegated ? complement(ranges) : union(ranges);
  }

  #classMember(): Ranges {
    return this.scanner.peek() === "\\" ? this.#escape(true) : oneOf(this.scanner.next());
  }

  #rangeFrom(first: Ranges): Range {
    const { scanner } = this;
    scanner.expect("-");
    const last = this.#classMember();
    const lo = singleOf(first);
    const hi = singleOf(last);
    if (lo === null || hi === null || lo > hi) {
      throw scanner.error("a range must go from a character to one that is not before it");
    }
    return { lo, hi };
  }

  #escape(isInClass: boolean): Ranges {
    const { scanner } = this;
    const start = scanner.at;
    scanner.expect("\\");
    const name = scanner.next();
    const known = CLASSES.get(name);
    if (known !== undefined) return known;
    const control = CONTROLS.get(name);
    if (control !== undefined) return oneOf(control);
    if (name === "b" && isInClass) return oneOf("\b");
    if (name === "0" && !/[0-9]/.test(scanner.peek())) return oneOf("\0");
    if (name === "c" && /[A-Za-z]/.test(scanner.peek())) {
      const point = scanner.next().codePointAt(0)! % 32;
      return [{ lo: point, hi: point }];
    }
    if (name === "x") return this.#point(scanner.hex(2));
    if (name === "u") return this.#point(this.#unicodeEscape());
    if (!/[A-Za-z0-9]/.test(name)) return oneOf(name);
    scanner.at = start;
    throw scanner.error(`\\${name} is not supported${ESCAPE_HINTS.get(name) ?? ""}`);
  }

  #unicodeEscape(): number {
    const { scanner } = this;
    if (scanner.take("{")) {
      const digits = scanner.takeWhile(/[0-9A-Fa-f]/);
      scanner.expect("}");
      return digits === "" || digits.length > 8 ? Infinity : parseInt(digits, 16);
    }
    const high = scanner.hex(4);
    if (high < 0xd800 || high > 0xdbff || !scanner.take("\\u")) return high;
    const low = scanner.hex(4);
    return low < 0xdc00 || low > 0xdfff
      ? Infinity
      : 0x10000 + (high - 0xd800) * 0x400 + low - 0xdc00;
  }

  #point(point: number): Ranges {
    const isCharacter = point < 0xd800 || (point > 0xdfff && point <= 0x10ffff);
    if (!isCharacter) throw this.scanner.error("an escape must stand for a character");
    return [{ lo: point, hi: point }];
  }
}

const ESCAPE_HINTS = new Map([
  ["b", ": a word's end is not a part of the text"],
  ["B", ": a word's end is not a part of the text"],
  ["p", ": list the ranges, [a-z\\u00df-\\u00f6]"],
  ["P", ": list the ranges, [a-z\\u00df-\\u00f6]"],
  ["k", ": references to groups are not regular"],
  ..."123456789".split("").map((digit) =>
    [digit, ": references to groups are not regular"] as const
  ),
]);

function singleOf(ranges: Ranges): number | null {
  return ranges.length === 1 && ranges[0].lo === ranges[0].hi ? ranges[0].lo : null;
}
