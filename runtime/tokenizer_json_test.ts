/** A tokenizer.json in pieces, against the same by the engine's own parser. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { CheckpointError } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { parseTokenizer, type TokenizerJson, wholeTokenizer } from "./tokenizer_json.ts";

/** All that a reader can see. */
function read({ json, vocab, merges }: TokenizerJson) {
  const { model, ...others } = json as JsonObject;
  const { vocab: _, merges: __, ...rules } = model as JsonObject;
  return {
    others,
    rules,
    vocab: vocab && new Map([...vocab].flatMap((piece) => Object.entries(piece))),
    merges: merges && [...merges].flat(1),
  };
}

function assertSame(text: string): void {
  assert.deepEqual(read(parseTokenizer(text, "t")), read(wholeTokenizer(JSON.parse(text))));
}

const text = fc.string({ unit: "binary", maxLength: 12 });
const odd = fc.constantFrom(
  '"',
  "\\",
  '"vocab": {',
  '"merges": [',
  "{",
  "]",
  ",",
  " ",
  "\u2028",
  "世",
);
const token = fc.oneof(text, odd, fc.tuple(odd, text).map((parts) => parts.join("")));
const model = fc.record({
  vocab: fc.dictionary(token, fc.nat()),
  merges: fc.array(fc.oneof(token, fc.tuple(token, token))),
  unk_token: token,
}, { requiredKeys: [] });
const file = fc.record({
  model,
  added_tokens: fc.array(fc.record({ content: token })),
  normalizer: token,
});

Deno.test("pieces of a tokenizer.json are the whole, however it is written", () => {
  fc.assert(
    fc.property(file, fc.constantFrom(0, 1, "\t"), (json, indent) => {
      assertSame(JSON.stringify(json, null, indent));
    }),
    { numRuns: 500 },
  );
});

/** Longer than several pieces. */
const LONG = {
  model: {
    type: "BPE",
    merges: Array.from({ length: 30_000 }, (_, i) => i % 2 ? `a ${i}` : ["世", `${i}]}",`]),
    vocab: Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`{"${i}\\`, i])),
  },
};

Deno.test("lists of many pieces, read twice", () => {
  for (const indent of [0, 2]) {
    const text = JSON.stringify(LONG, null, indent);
    assertSame(text);
    const { vocab, merges } = parseTokenizer(text, "t");
    assert.ok([...vocab!].length > 5 && [...merges!].length > 5);
    assert.deepEqual([...merges!].flat(1), LONG.model.merges);
  }
});

Deno.test("keys that stand elsewhere, twice, or are spelled in another way", () => {
  for (
    const text of [
      '{"vocab": {"a": 0}, "model": {"vocab": {"b": 1}, "merges": []}}',
      '{"model": {"vocab": {"b": 1}, "merges": []}, "model": {"vocab": {"c": 2}, "merges": ["c c"]}}',
      '{"model": {"vocab": {"b": 1}, "vocab": {"c": 2}, "merges": ["a"], "merges": ["b"]}}',
      '{"model": {"vocab": {"vocab": {"c": 2}, "merges": [1]}, "merges": ["b"]}}',
      '{"model": {"v\\u006fcab": {"b": 1}, "merges" : [ ] }}',
      '{"model": {"vocab": [["a", 1]], "merges": {"a": 1}}}',
      '{"model": {"vocab": {}, "merges": []}}',
      '{"a": "\\"vocab\\": {", "model": {"vocab": {"__proto__": 1}}}',
    ]
  ) assertSame(text);
});

/** What reading all of it says, or null. */
function refusal(text: string): string | null {
  try {
    read(parseTokenizer(text, "t"));
    return null;
  } catch (error) {
    assert.ok(error instanceof CheckpointError, String(error));
    return error.message;
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

Deno.test("what is no JSON is refused, wherever it is cut or changed", () => {
  const long = JSON.stringify(LONG);
  const short = '{"model": {"vocab": {"a": 0, "b": 1} , "merges": ["a b", ["b", "a"]] }, "x": [1]}';
  const texts = [
    long.replace(/\]$/, ",]"),
    long.slice(0, 300_000),
    long.replace(/"a 20001",/, '"a 20001",,'),
    `${long.slice(0, -2)},"merges":[]]}`,
  ];
  for (let at = 0; at < short.length; at++) {
    texts.push(short.slice(0, at), short.slice(0, at) + short.slice(at + 1));
    for (const mark of ',:{}[]"') texts.push(short.slice(0, at) + mark + short.slice(at + 1));
  }
  for (const text of texts) {
    if (isJson(text)) continue;
    assert.match(refusal(text) ?? `${text} was read`, /^Cannot read t as it is not valid JSON: /);
  }
});

Deno.test("a comma at the end of a piece is refused as within one", () => {
  const items = Array.from({ length: 7000 }, () => '"0123456"').join(",");
  const fitting = items.slice(0, items.indexOf(",", (1 << 16) - 2));
  for (const end of [`${fitting},`, `${fitting},,"a"`, `${items},`]) {
    assert.match(refusal(`{"model":{"merges":[${end}]}}`)!, /not valid JSON/);
  }
  assertSame(`{"model":{"merges":[${fitting}, "a"]}}`);
  const model: Json = { merges: JSON.parse(`[${fitting}]`) };
  assertSame(JSON.stringify({ model }));
});
