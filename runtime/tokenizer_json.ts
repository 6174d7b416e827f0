/**
 * A tokenizer.json whose two long lists are parsed a piece at a time: the vocabulary once, the merges when
 * they are needed. Parsed at once, those of 262,144 tokens are 100 MB of objects.
 */
import { Buffer } from "node:buffer";
import { CheckpointError, reasonOf } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject } from "./json.ts";

export interface TokenizerJson {
  /** All of it but the two lists, which may or may not stand in it. */
  json: Json;
  /** Objects whose members together are model.vocab; null where that is no object. */
  vocab: Iterable<JsonObject> | null;
  /** Lists that together are model.merges; null where that is no list. Parsed anew by each who asks. */
  merges: Iterable<Json[]> | null;
}

/** Of what is parsed already. */
export function wholeTokenizer(json: Json): TokenizerJson {
  const { vocab, merges } = modelOf(json);
  return {
    json,
    vocab: isJsonObject(vocab) ? [vocab] : null,
    merges: Array.isArray(merges) ? [merges] : null,
  };
}

function modelOf(json: Json): JsonObject {
  return isJsonObject(json) && isJsonObject(json.model) ? json.model : {};
}

/**
 * @param what Names the text in errors.
 * @throws {CheckpointError} If it is not valid JSON. The merges may throw that when they are read.
 */
export function parseTokenizer(text: string, what: string): TokenizerJson {
  const bytes = new TextEncoder().encode(text);
  const [vocab, merges] = [spanOf(bytes, "vocab", OPEN_OBJECT), spanOf(bytes, "merges", OPEN_LIST)];
  const spans = [vocab, merges].filter((span) => span !== null).sort((a, b) => a.start - b.start);
  const isNested = spans.length === 2 && spans[1].start < spans[0].end;
  if (isNested) return wholeTokenizer(parsed(text, what));
  const json = parsed(without(bytes, spans), what);
  // A key may stand elsewhere, or twice: the engine's parser knows which one counts.
  if (spans.some(({ key }) => modelOf(json)[key] !== markOf(key))) {
    return wholeTokenizer(parsed(text, what));
  }
  const uncut = wholeTokenizer(json);
  const piecesOf = ({ start, end }: Span) => new Pieces(bytes.slice(start, end), what);
  return {
    json,
    vocab: vocab === null ? uncut.vocab : piecesOf(vocab) as Iterable<JsonObject>,
    merges: merges === null ? uncut.merges : piecesOf(merges) as Iterable<Json[]>,
  };
}

function parsed(text: string, what: string): Json {
  try {
    // The engine's own parser, not our strict one, as there are hundreds of thousands of entries.
    return JSON.parse(text);
  } catch (error) {
    throw invalid(what, reasonOf(error));
  }
}

function invalid(what: string, reason: string): CheckpointError {
  return new CheckpointError(`Cannot read ${what} as it is not valid JSON: ${reason}`);
}

// ---------------------------------------------------------------- where the lists are

/** A list or an object in the text, brackets and all. */
interface Span {
  key: string;
  start: number;
  end: number;
}

const TAB = 0x09, NEWLINE = 0x0a, RETURN = 0x0d, SPACE = 0x20;
const QUOTE = 0x22, COMMA = 0x2c, COLON = 0x3a, BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b, CLOSE_LIST = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;

/** The first value of that kind that has that key: quotes in strings have backslashes. */
function spanOf(bytes: Uint8Array, key: string, opening: number): Span | null {
  const quoted = `"${key}"`;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = buffer.indexOf(quoted); at >= 0; at = buffer.indexOf(quoted, at + 1)) {
    const colon = skipSpace(bytes, at + quoted.length);
    const start = skipSpace(bytes, colon + 1);
    if (bytes[colon] !== COLON || bytes[start] !== opening) continue;
    return { key, start, end: itemEnd(bytes, start) };
  }
  return null;
}

/** The text with marks in place of spans, which are in rising order. */
function without(bytes: Uint8Array, spans: readonly Span[]): string {
  let rest = "";
  let end = 0;
  for (const span of spans) {
    rest += textOf(bytes, end, span.start) + JSON.stringify(markOf(span.key));
    end = span.end;
  }
  return rest + textOf(bytes, end, bytes.length);
}

function textOf(bytes: Uint8Array, start: number, end: number): string {
  return new TextDecoder().decode(bytes.subarray(start, end));
}

function markOf(key: string): string {
  return `\0${key}`;
}

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === NEWLINE || byte === RETURN || byte === TAB;
}

function skipSpace(bytes: Uint8Array, at: number): number {
  while (isSpace(bytes[at])) at++;
  return at;
}

/** Where the value that begins at `at` ends: at a comma or a bracket that is not in it. */
function itemEnd(bytes: Uint8Array, at: number): number {
  let depth = 0;
  for (let i = at; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === QUOTE) i = stringEnd(bytes, i);
    else if (byte === OPEN_LIST || byte === OPEN_OBJECT) depth++;
    else if (byte === COMMA && depth === 0) return i;
    else if ((byte === CLOSE_LIST || byte === CLOSE_OBJECT) && depth-- === 0) return i;
  }
  return bytes.length;
}

/** The closing quote of the string whose opening quote is at `at`. */
function stringEnd(bytes: Uint8Array, at: number): number {
  for (let i = at + 1; i < bytes.length; i++) {
    if (bytes[i] === BACKSLASH) i++;
    else if (bytes[i] === QUOTE) return i;
  }
  return bytes.length;
}

// ---------------------------------------------------------------- pieces

/** Bytes of a piece, at least. */
const PIECE_BYTES = 1 << 16;

/** The items of a list or an object, some at a time in one of their own. */
class Pieces implements Iterable<Json> {
  readonly #bytes: Uint8Array;
  readonly #what: string;

  /** @param bytes From its opening bracket to its closing one, behind which there may be spaces. */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#what = what;
  }

  *[Symbol.iterator](): Generator<Json> {
    const bytes = this.#bytes;
    const [open, close] = bytes[0] === OPEN_LIST ? ["[", "]"] : ["{", "}"];
    const last = bytes.findLastIndex((byte) => !isSpace(byte));
    if (bytes[last] !== close.charCodeAt(0)) throw invalid(this.#what, "brackets do not match");
    for (let start = 1; start <= last;) {
      let end = itemEnd(bytes, start);
      while (end < last && end - start < PIECE_BYTES) end = itemEnd(bytes, end + 1);
      const items = textOf(bytes, start, end);
      if (start > 1 && items.trim() === "") throw invalid(this.#what, "a list ends with a comma");
      yield parsed(open + items + close, this.#what);
      start = end + 1;
    }
  }
}
