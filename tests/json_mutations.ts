/** Damage to JSON texts: every value and every name set to what readers trip over, left out, or doubled. */
import type { Json } from "../runtime/json.ts";

/** A damaged text as bytes, which may be no UTF-8. */
export interface JsonCase {
  what: string;
  bytes(): Uint8Array<ArrayBuffer>;
}

/** Texts of values: numbers at which readers break, other types, and what is no JSON. */
const VALUES = [
  "null",
  "true",
  "false",
  "0",
  "-0",
  "-1",
  "1",
  "2",
  "1.5",
  "1e-320",
  "1e308",
  "1e999",
]
  .concat(["-1e999", "NaN", "Infinity", "01", "1.", "0x10", "127", "255", "65535", "65536"])
  .concat(["2147483647", "2147483648", "4294967295", "4294967296", "9007199254740991"])
  .concat(["9007199254740992", "9223372036854775808", "18446744073709551615"])
  .concat([
    '""',
    '"x"',
    '"F32"',
    '"Q2_0"',
    '"__proto__"',
    '"\\ud800"',
    '"\\u0000"',
    '"\t"',
    '"\\x"',
  ])
  .concat(["[]", "[0]", "[0,0]", "[null]", "[[]]", "{}", '{"__proto__":0}', '{"type":"Sequence"}'])
  .concat([nested(40), nested(70), nested(20000), `"${"x".repeat(70000)}"`, "", "]", "}"]);
const NAMES = ["", "__proto__", "__metadata__", "constructor", "\ud800", "x".repeat(70000), "type"];

function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

/** Stands for bytes that are no UTF-8. */
const BAD = "\ue000";
const BAD_BYTES: readonly (readonly number[])[] = [
  [0xff],
  [0xc0, 0xaf],
  [0xed, 0xa0, 0x80],
  [0xf5, 0x80, 0x80, 0x80],
];

/** All texts that have one thing changed, then those cut at every byte, and those with more behind. */
export function* jsonCases(json: Json): Generator<JsonCase> {
  for (const { what, text } of changes(json, "")) yield { what, bytes: () => utf8(text()) };
  yield* badBytes(json);
  const whole = utf8(JSON.stringify(json));
  for (let length = 0; length < whole.length; length++) {
    yield { what: `cut to ${length} bytes`, bytes: () => whole.slice(0, length) };
  }
  for (const more of [" ", "\0", "x", "{}", "\u00a0", "\ufeff"]) {
    yield {
      what: `${JSON.stringify(more)} behind`,
      bytes: () => utf8(JSON.stringify(json) + more),
    };
    yield {
      what: `${JSON.stringify(more)} before`,
      bytes: () => utf8(more + JSON.stringify(json)),
    };
  }
}

interface Change {
  what: string;
  text(): string;
}

/** Each change of a value and of what is in it. */
function* changes(json: Json, path: string): Generator<Change> {
  const own = JSON.stringify(json);
  for (const text of [...VALUES, ...near(json)]) {
    if (text !== own) yield { what: `${path} is ${shortened(text)}`, text: () => text };
  }
  if (Array.isArray(json)) yield* listChanges(json, path);
  else if (typeof json === "object" && json !== null) yield* objectChanges(json, path);
}

function near(json: Json): string[] {
  if (typeof json === "number") return [json - 1, json + 1, 2 * json, json / 2].map(String);
  if (typeof json !== "string") return [];
  return [json + "x", json.slice(1), json.toUpperCase(), `../${json}`].map((text) =>
    JSON.stringify(text)
  );
}

function* listChanges(list: readonly Json[], path: string): Generator<Change> {
  const texts = list.map((item) => JSON.stringify(item));
  const joined = (items: readonly string[]) => `[${items.join(",")}]`;
  for (const [i, item] of list.entries()) {
    const [before, after] = [texts.slice(0, i), texts.slice(i + 1)];
    yield { what: `${path}[${i}] left out`, text: () => joined([...before, ...after]) };
    yield {
      what: `${path}[${i}] twice`,
      text: () => joined([...before, texts[i], texts[i], ...after]),
    };
    for (const { what, text } of changes(item, `${path}[${i}]`)) {
      yield { what, text: () => joined([...before, text(), ...after]) };
    }
  }
  yield { what: `${path} reversed`, text: () => joined(texts.toReversed()) };
}

function* objectChanges(object: { [key: string]: Json }, path: string): Generator<Change> {
  const members = Object.entries(object).map((
    [key, value],
  ) => [JSON.stringify(key), JSON.stringify(value)]);
  const joined = (all: readonly (readonly string[])[]) =>
    `{${all.map(([key, value]) => `${key}:${value}`).join(",")}}`;
  for (const [i, [key, value]] of Object.entries(object).entries()) {
    const [before, after] = [members.slice(0, i), members.slice(i + 1)];
    const own = members[i];
    const at = `${path}.${key}`;
    yield { what: `${at} left out`, text: () => joined([...before, ...after]) };
    yield { what: `${at} twice`, text: () => joined([...before, own, own, ...after]) };
    for (const name of [...NAMES, ...Object.keys(object), `${key}x`, key.toUpperCase()]) {
      if (name === key) continue;
      const named = [JSON.stringify(name), own[1]];
      yield {
        what: `${at} named ${shortened(name)}`,
        text: () => joined([...before, named, ...after]),
      };
    }
    for (const { what, text } of changes(value, at)) {
      yield { what, text: () => joined([...before, [own[0], text()], ...after]) };
    }
  }
}

/** Bytes that are no UTF-8 in every text and every name. */
function* badBytes(json: Json): Generator<JsonCase> {
  const text = JSON.stringify(json);
  for (const { index } of text.matchAll(/"/g)) {
    for (const bad of BAD_BYTES) {
      const bytes = () => withBytes(text.slice(0, index + 1) + BAD + text.slice(index + 1), bad);
      yield { what: `bytes ${bad} behind the quote at ${index}`, bytes };
    }
  }
}

function withBytes(text: string, bad: readonly number[]): Uint8Array<ArrayBuffer> {
  const [before, after] = text.split(BAD).map(utf8);
  return Uint8Array.from([...before, ...bad, ...after]);
}

function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function shortened(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}... (${text.length})` : text);
}
