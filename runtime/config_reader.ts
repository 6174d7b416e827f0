/** Typed access to the keys of a config.json: every wrong value is one error that names the key. */
import { CheckpointError, shown } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject } from "./json.ts";

/** More than any model has; lists of so many are made of a file's number. */
export const MAX_LAYERS = 10_000;

export class ConfigReader {
  readonly #object: JsonObject;
  /** File and, inside it, object: `config.json` or `quantization_config of config.json`. */
  readonly #what: string;

  constructor(object: JsonObject, what: string) {
    this.#object = object;
    this.#what = what;
  }

  /** False for absent and null: Hugging Face treats them alike. */
  has(key: string): boolean {
    return this.get(key) !== null;
  }

  get(key: string): Json {
    return this.#object[key] ?? null;
  }

  /** A positive integer up to `most`; `fallback` when absent. */
  count(key: string, most: number, fallback?: number): number {
    const value = this.get(key) ?? fallback ?? null;
    const isCount = Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= most;
    return isCount ? value as number : this.fail(key, `an integer from 1 to ${most}`, value);
  }

  /** A finite number with least <= value <= most. */
  number(key: string, least: number, most: number, fallback?: number): number {
    const value = this.get(key) ?? fallback ?? null;
    const isInside = typeof value === "number" && value >= least && value <= most;
    return isInside ? value : this.fail(key, `a number from ${least} to ${most}`, value);
  }

  /** A list of finite numbers with least <= value <= most, not empty. */
  numbers(key: string, least: number, most: number): number[] {
    const value = this.get(key);
    const isInside = (each: Json) => typeof each === "number" && each >= least && each <= most;
    if (Array.isArray(value) && value.length > 0 && value.every(isInside)) return value as number[];
    return this.fail(key, `a list of numbers from ${least} to ${most}`, value);
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    return typeof value === "boolean" ? value : this.fail(key, "true or false", value);
  }

  /** One of a few strings. */
  oneOf<T extends string>(key: string, choices: readonly T[], fallback?: T): T {
    const value = this.get(key) ?? fallback ?? null;
    const choice = choices.find((each) => each === value);
    return choice ?? this.fail(key, choices.map((each) => `"${each}"`).join(" or "), value);
  }

  string(key: string): string | null {
    const value = this.get(key);
    return value === null || typeof value === "string" ? value : this.fail(key, "a string", value);
  }

  strings(key: string): string[] {
    const value = this.get(key) ?? [];
    const isList = Array.isArray(value) && value.every((each) => typeof each === "string");
    return isList ? value as string[] : this.fail(key, "a list of strings", value);
  }

  /** A token id, a list of them, or nothing. Ids beyond the vocabulary never occur: dropped. */
  tokenIds(key: string, vocabSize: number): number[] {
    const value = this.get(key) ?? [];
    const ids = Array.isArray(value) ? value : [value];
    if (!ids.every(Number.isSafeInteger)) this.fail(key, "a token id or a list of them", value);
    return (ids as number[]).filter((id) => id >= 0 && id < vocabSize);
  }

  /** A nested object, or null when absent. */
  child(key: string): ConfigReader | null {
    const value = this.get(key);
    if (value === null) return null;
    if (!isJsonObject(value)) return this.fail(key, "an object", value);
    return new ConfigReader(value, `${key} of ${this.#what}`);
  }

  fail(key: string, rule: string, value: unknown): never {
    throw new CheckpointError(
      `Cannot use ${this.#what}: ${key} must be ${rule}: current value is ${shown(value)}`,
    );
  }
}
