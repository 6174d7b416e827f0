/** Reads values of a GGUF file's keys, with errors that name the key. */
import { CheckpointError, shown } from "../errors.ts";
import { type GgufScalar, type GgufValue, isArray, type Metadata } from "./values.ts";

/** Lists that hold one value a layer. */
const MAX_LIST = 2 ** 16;

export class KeyReader {
  readonly metadata: Metadata;
  readonly #prefix: string;

  /** @param prefix Stands before each key that is asked for, for example `llama.`. */
  constructor(metadata: Metadata, prefix = "") {
    this.metadata = metadata;
    this.#prefix = prefix;
  }

  /** The key as the file has it. */
  nameOf(key: string): string {
    return this.#prefix + key;
  }

  /** A finite number, or null where the key is missing. */
  number(key: string): number | null {
    return this.#scalar(key, "a finite number", isFiniteNumber);
  }

  /** A non-negative integer, or null. */
  count(key: string): number | null {
    return this.#scalar(key, "a non-negative integer", isCount);
  }

  flag(key: string): boolean | null {
    return this.#scalar(key, "true or false", (value) => typeof value === "boolean");
  }

  string(key: string): string | null {
    return this.#scalar(key, "a string", (value) => typeof value === "string");
  }

  /** One number for all layers: written once, or in a list of equal ones. */
  same(key: string): number | null {
    const value = this.#value(key);
    if (!isArray(value)) return this.number(key);
    const [first, ...others] = this.list(key)!;
    if (isFiniteNumber(first) && others.every((other) => other === first)) return first;
    return this.fail(key, "the same number for all layers", "a list of different ones");
  }

  /** A list's elements, or null where the key is missing. */
  list(key: string): GgufScalar[] | null {
    const value = this.#value(key);
    if (value === undefined) return null;
    if (isArray(value) && value.length <= MAX_LIST) return value.values();
    return this.fail(key, `a list of at most ${MAX_LIST} elements`, value);
  }

  /** @throws {CheckpointError} Always. */
  fail(key: string, rule: string, value: unknown): never {
    const text = typeof value === "object" && value !== null ? "a list" : shown(value);
    throw new CheckpointError(
      `Cannot use the GGUF file: ${this.#prefix}${key} must be ${rule}: current value is ${text}`,
    );
  }

  #value(key: string): GgufValue | undefined {
    return this.metadata.get(this.#prefix + key);
  }

  #scalar<T extends GgufValue>(
    key: string,
    rule: string,
    isRight: (value: GgufValue) => value is T,
  ): T | null {
    const value = this.#value(key);
    if (value === undefined) return null;
    return isRight(value) ? value : this.fail(key, rule, value);
  }
}

function isFiniteNumber(value: GgufValue): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function isCount(value: GgufValue): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/**
 * The number of fewest digits that is the same float32: 1e-5 where the file has
 * 0.000009999999747378752, so that a twin in another format gives the same double.
 */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}
