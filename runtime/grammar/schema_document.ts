/** A JSON schema's parts by number, with what they are called, and references between them. */
import { shown } from "../errors.ts";
import type { JsonValue } from "./json_values.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

/** A part of the document that is a schema. */
export type SchemaId = number;

export type SchemaObject = { readonly [keyword: string]: JsonValue };
export type Schema = boolean | SchemaObject;

/** Parsers call themselves for each. */
const MAX_DEPTH = 200;
const MAX_VALUES = 300_000;

/** Schemas that accept everything and nothing, wherever they stand. */
export const TRUE_SCHEMA: SchemaId = 0;
export const FALSE_SCHEMA: SchemaId = 1;

export class SchemaDocument {
  readonly #root: JsonValue;
  readonly #schemas: Schema[] = [true, false];
  readonly #pointers: string[] = ["#", "#"];
  readonly #ids = new Map<SchemaObject, SchemaId>();
  /** By `$anchor`; null: there are several. Some may be values of an enum, and no schemas. */
  readonly #anchors = new Map<string, { schema: SchemaObject; pointer: string } | null>();

  private constructor(root: JsonValue) {
    this.#root = root;
  }

  /** @throws {GrammarError} If it is not JSON, or too large. */
  static async create(root: unknown, work: Workload): Promise<SchemaDocument> {
    const document = new SchemaDocument(root as JsonValue);
    await document.#scan(work);
    return document;
  }

  get root(): SchemaId {
    return this.idOf(this.#root, "#");
  }

  schema(id: SchemaId): Schema {
    return this.#schemas[id];
  }

  pointer(id: SchemaId): string {
    return this.#pointers[id];
  }

  /** @throws {GrammarError} If `value` is no schema. */
  idOf(value: JsonValue | undefined, pointer: string): SchemaId {
    if (typeof value === "boolean") return value ? TRUE_SCHEMA : FALSE_SCHEMA;
    if (!isObject(value)) {
      throw new GrammarError(
        `Cannot constrain to this schema as ${pointer} must be an object or a boolean: ` +
          `current value is ${shown(value)}`,
      );
    }
    const known = this.#ids.get(value);
    if (known !== undefined) return known;
    const id = this.#schemas.push(value) - 1;
    this.#pointers.push(pointer);
    this.#ids.set(value, id);
    return id;
  }

  /** @throws {GrammarError} If it leads out of the document or nowhere. */
  resolve(reference: JsonValue, from: SchemaId): SchemaId {
    const place = `${this.pointer(from)}/$ref`;
    const anchored = typeof reference === "string" ? this.#anchors.get(reference) : undefined;
    if (anchored) return this.idOf(anchored.schema, anchored.pointer);
    const own = isObject(this.#root) ? this.#root.$id : undefined;
    const isOwn = reference === "#" || (typeof own === "string" && reference === own);
    if (isOwn) return this.root;
    if (typeof reference !== "string" || !reference.startsWith("#/")) {
      throw new GrammarError(
        `Cannot constrain to this schema as ${place} must be "#" or begin with "#/": ` +
          `current value is ${shown(reference)}, put what it refers to into $defs`,
      );
    }
    return this.idOf(this.#at(reference, place), reference);
  }

  #at(pointer: string, place: string): JsonValue {
    let value: JsonValue = this.#root;
    for (const part of pointer.split("/").slice(1)) {
      const key = decoded(part).replaceAll("~1", "/").replaceAll("~0", "~");
      const isThere = typeof value === "object" && value !== null && Object.hasOwn(value, key);
      if (!isThere) {
        throw new GrammarError(
          `Cannot constrain to this schema as ${place} refers to nothing: ` +
            `current value is ${shown(pointer)}`,
        );
      }
      value = (value as SchemaObject)[key];
    }
    return value;
  }

  /** Looks at every value once: all that follows can trust depth and size. */
  async #scan(work: Workload): Promise<void> {
    const pending: { value: unknown; depth: number; pointer: string }[] = [
      { value: this.#root, depth: 0, pointer: "#" },
    ];
    let numValues = 0;
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { value, depth, pointer } = next;
      if (numValues % 256 === 0) await work.pause();
      if (++numValues > MAX_VALUES) throw tooLarge(`more than ${MAX_VALUES} values`);
      if (depth > MAX_DEPTH) throw tooLarge(`more than ${MAX_DEPTH} levels`);
      if (typeof value !== "object" || value === null) {
        checkLeaf(value, pointer);
        continue;
      }
      this.#noteAnchor(value as SchemaObject, pointer);
      for (const [key, inner] of Object.entries(value)) {
        pending.push({ value: inner, depth: depth + 1, pointer: childPointer(pointer, key) });
      }
    }
  }

  #noteAnchor(schema: SchemaObject, pointer: string): void {
    if (typeof schema.$anchor === "string") {
      const reference = `#${schema.$anchor}`;
      this.#anchors.set(reference, this.#anchors.has(reference) ? null : { schema, pointer });
    }
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A JSON pointer's next step. */
export function childPointer(pointer: string, key: string | number): string {
  return `${pointer}/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

function checkLeaf(value: unknown, pointer: string): void {
  const isJson = value === null || typeof value === "boolean" || typeof value === "string" ||
    Number.isFinite(value);
  if (isJson) return;
  throw new GrammarError(
    `Cannot constrain to this schema as it is not JSON at ${pointer}: current value is ` +
      shown(value),
  );
}

function tooLarge(what: string): GrammarError {
  return new GrammarError(`Cannot constrain to this schema as it has ${what}: use a smaller one`);
}

export function isObject(value: unknown): value is SchemaObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
