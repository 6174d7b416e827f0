/**
 * JSON of files that we did not write: duplicate keys are errors (JSON.parse keeps the last, other
 * readers the first, and two readers that disagree on a header are a security hole), objects have
 * no prototype (so that a key `__proto__` is only a key), and depth is bounded.
 */
import { readFile, stat } from "node:fs/promises";
import { CheckpointError, reasonOf, shown } from "./errors.ts";

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** Deeper than any model file; far less than the stack allows. */
export const MAX_DEPTH = 64;
/** Largest JSON file that is read whole. Real ones stay below 40 MB. */
export const MAX_JSON_BYTES = 256 * 2 ** 20;

export function isJsonObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether there are lists or objects on more than `most` levels. */
export function nestsDeeper(value: Json, most: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return most === 0 || Object.values(value).some((each) => nestsDeeper(each, most - 1));
}

/**
 * @param what Names the text in errors, for example `config.json`.
 * @throws {CheckpointError} If `text` is not strict JSON, repeats a key or nests too deep.
 */
export function parseJson(text: string, what: string): Json {
  return new Parser(text, what).document();
}

/** Bytes of strict UTF-8 as text. @throws {CheckpointError} If they are not UTF-8. */
export function utf8Text(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CheckpointError(`Cannot read ${what} as it is not UTF-8: download it again`);
  }
}

/**
 * The text of a file, or null when there is none.
 * @throws {CheckpointError} If it can't be read, is no regular file, too large or not UTF-8.
 */
export async function readTextFile(path: string): Promise<string | null> {
  try {
    // A pipe would block and a device would never end, so look before opening.
    const info = await stat(path);
    if (!info.isFile()) throw new Error("it is not a regular file");
    if (info.size > MAX_JSON_BYTES) {
      throw new Error(`it has ${info.size} bytes, at most ${MAX_JSON_BYTES} are read`);
    }
    return utf8Text(await readFile(path), shown(path));
  } catch (error) {
    if (isMissing(error)) return null;
    if (error instanceof CheckpointError) throw error;
    throw new CheckpointError(`Cannot read ${shown(path)}: ${reasonOf(error)}`);
  }
}

/** True when a file system call failed because there is no such file. */
export function isMissing(error: unknown): boolean {
  const code = (error as { code?: string } | null)?.code;
  return code === "ENOENT" || code === "ENOTDIR";
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const LITERALS: readonly (readonly [string, Json])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

/** Recursive descent over one text; `at` is the index of the next character. */
class Parser {
  #at = 0;
  #depth = 0;
  readonly #text: string;
  readonly #what: string;

  constructor(text: string, what: string) {
    this.#text = text;
    this.#what = what;
  }

  document(): Json {
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail("there is text after its end");
    return value;
  }

  #value(): Json {
    this.#skipSpace();
    const first = this.#text[this.#at];
    if (first === "{") return this.#nested(() => this.#object());
    if (first === "[") return this.#nested(() => this.#array());
    if (first === '"') return this.#string();
    return this.#scalar();
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail(`it nests deeper than ${MAX_DEPTH} levels`);
    this.#at++;
    const value = parse();
    this.#depth--;
    return value;
  }

  #object(): JsonObject {
    const object: JsonObject = Object.create(null);
    if (this.#take("}")) return object;
    do {
      this.#skipSpace();
      const key = this.#string();
      if (key in object) this.#fail(`it has the key ${shown(key)} twice`);
      if (!this.#take(":")) this.#fail("a colon is missing");
      object[key] = this.#value();
    } while (this.#take(","));
    if (!this.#take("}")) this.#fail("a closing brace is missing");
    return object;
  }

  #array(): Json[] {
    const array: Json[] = [];
    if (this.#take("]")) return array;
    do array.push(this.#value()); while (this.#take(","));
    if (!this.#take("]")) this.#fail("a closing bracket is missing");
    return array;
  }

  #string(): string {
    if (this.#text[this.#at] !== '"') this.#fail("a string is missing");
    const start = this.#at;
    let end = this.#text.indexOf('"', start + 1);
    while (end > 0 && this.#isEscaped(end)) end = this.#text.indexOf('"', end + 1);
    if (end < 0) this.#fail("a string does not end");
    this.#at = end + 1;
    return this.#unescape(start, end + 1);
  }

  /** A quote is escaped when an odd number of backslashes stands before it. */
  #isEscaped(at: number): boolean {
    let backslashes = 0;
    while (this.#text[at - 1 - backslashes] === "\\") backslashes++;
    return backslashes % 2 === 1;
  }

  #unescape(start: number, end: number): string {
    try {
      return JSON.parse(this.#text.slice(start, end));
    } catch {
      return this.#fail("a string is malformed", start);
    }
  }

  #scalar(): Json {
    NUMBER.lastIndex = this.#at;
    const number = NUMBER.exec(this.#text);
    if (number !== null) {
      this.#at += number[0].length;
      return Number(number[0]);
    }
    for (const [spelling, value] of LITERALS) {
      if (this.#text.startsWith(spelling, this.#at)) {
        this.#at += spelling.length;
        return value;
      }
    }
    return this.#fail(this.#at < this.#text.length ? "a value is malformed" : "it ends early");
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    for (;; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  #fail(reason: string, at = this.#at): never {
    throw new CheckpointError(
      `Cannot read ${this.#what} as it is not valid JSON: ${reason} at character ${at}`,
    );
  }
}
