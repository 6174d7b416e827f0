/** Reads a text character by character, and says where something is wrong. */
import { shown } from "../errors.ts";
import { GrammarError } from "./types.ts";

/** Groups inside of groups: parsers call themselves for each. */
const MAX_NESTING = 200;
/** Reading one takes some 10 ms, in which nothing else can happen. */
const MAX_SOURCE_LENGTH = 65_536;
/** Repetitions are written out. */
const MAX_REPETITIONS = 100_000;

export class Scanner {
  readonly #what: string;
  readonly #text: readonly string[];
  #at = 0;
  #nesting = 0;

  /** @param what The notation, for errors: "regular expression". */
  constructor(what: string, text: string) {
    this.#what = what;
    if (typeof text !== "string" || text.length > MAX_SOURCE_LENGTH) {
      throw new GrammarError(
        `Cannot compile this ${what} as it must be a text of at most ${MAX_SOURCE_LENGTH} ` +
          `characters: current value is ${shown(text)}`,
      );
    }
    this.#text = [...text];
  }

  /** In characters. */
  get at(): number {
    return this.#at;
  }

  set at(position: number) {
    this.#at = position;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length;
  }

  /** The next character, or "" at the end. */
  peek(ahead = 0): string {
    return this.#text[this.#at + ahead] ?? "";
  }

  next(): string {
    if (this.isAtEnd) throw this.error("it ends too early");
    return this.#text[this.#at++];
  }

  /** Reads `expected` if it comes next. */
  take(expected: string): boolean {
    for (let i = 0; i < expected.length; i++) if (this.peek(i) !== expected[i]) return false;
    this.#at += expected.length;
    return true;
  }

  expect(expected: string): void {
    if (!this.take(expected)) throw this.error(`${shown(expected)} must come here`);
  }

  /** Reads characters as long as they match; "" if none does. */
  takeWhile(pattern: RegExp): string {
    let taken = "";
    while (!this.isAtEnd && pattern.test(this.peek())) taken += this.next();
    return taken;
  }

  nested<T>(parse: () => T): T {
    if (++this.#nesting > MAX_NESTING) {
      throw this.error(`groups must not be nested more than ${MAX_NESTING} times`);
    }
    const result = parse();
    this.#nesting--;
    return result;
  }

  /** Exactly so many hexadecimal digits, as a number. */
  hex(length: number): number {
    let digits = "";
    for (let i = 0; i < length; i++) digits += this.next();
    if (!/^[0-9A-Fa-f]+$/.test(digits)) {
      throw this.error(`${length} hexadecimal digits must come here, not ${shown(digits)}`);
    }
    return parseInt(digits, 16);
  }

  /** `{m}`, `{m,}` or `{m,n}`; null and nothing read if it is something else. */
  takeCounts(): { min: number; max: number | null } | null {
    const start = this.#at;
    if (this.take("{")) {
      const min = this.takeWhile(/[0-9]/);
      const isOpen = this.take(",");
      const max = isOpen ? this.takeWhile(/[0-9]/) : min;
      if (min !== "" && this.take("}")) return this.#counts(min, max);
    }
    this.#at = start;
    return null;
  }

  #counts(min: string, max: string): { min: number; max: number | null } {
    const counts = { min: Number(min), max: max === "" ? null : Number(max) };
    if (Math.max(counts.min, counts.max ?? 0) > MAX_REPETITIONS) {
      throw this.error(`a repetition must not have more than ${MAX_REPETITIONS} rounds`);
    }
    if (counts.max !== null && counts.max < counts.min) {
      throw this.error("a repetition must not end before it begins");
    }
    return counts;
  }

  error(reason: string): GrammarError {
    const near = this.#text.slice(this.#at, this.#at + 20).join("");
    const where = near === "" ? "at its end" : `at character ${this.#at}, before ${shown(near)}`;
    return new GrammarError(`Cannot read this ${this.#what} ${where}: ${reason}`);
  }
}
