import assert from "node:assert/strict";
import fc from "fast-check";
import { CheckpointError } from "./errors.ts";
import { type Json, parseJson } from "./json.ts";

/** Prototypes aside, which parseJson leaves out on purpose. */
function sameJson(actual: Json, expected: unknown): void {
  assert.equal(JSON.stringify(actual), JSON.stringify(expected));
}

Deno.test("parseJson reads what JSON.parse reads", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), fc.constantFrom(0, 1, 3), (text, indent) => {
      const spaced = JSON.stringify(JSON.parse(text), null, indent);
      sameJson(parseJson(spaced, "x"), JSON.parse(text));
    }),
    { numRuns: 300 },
  );
});

Deno.test("parseJson reads escapes, numbers and white space", () => {
  const text = ' {"a\\"\\\\": [-0.5e+2, 1E3, "\\u00e9\\n", true, false, null], "b": {}}\r\n\t';
  sameJson(parseJson(text, "x"), JSON.parse(text));
});

Deno.test("parseJson treats __proto__ as a key like any other", () => {
  const value = parseJson('{"__proto__": {"polluted": 1}}', "x") as Record<string, Json>;
  assert.deepEqual(Object.keys(value), ["__proto__"]);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assert.equal(value.polluted, undefined);
});

for (
  const [what, text] of [
    ["a repeated key", '{"a": 1, "b": 2, "a": 3}'],
    ["a repeated __proto__", '{"__proto__": 1, "__proto__": 2}'],
    ["an escaped repetition", '{"a": 1, "\\u0061": 2}'],
    ["nesting without end", "[".repeat(100_000)],
    ["text after the end", "{} {}"],
    ["a trailing comma", "[1,]"],
    ["NaN", "[NaN]"],
    ["a leading zero", "[01]"],
    ["a control character in a string", '["\n"]'],
    ["a bad escape", '["\\x"]'],
    ["an unquoted key", "{a: 1}"],
    ["nothing", ""],
    ["a byte order mark", "\ufeff{}"],
  ]
) {
  Deno.test(`parseJson refuses ${what}`, () => {
    assert.throws(() => parseJson(text, "some file"), (error: Error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, /^Cannot read some file as it is not valid JSON: [^\n]+$/);
      return true;
    });
  });
}

Deno.test("every cut of a document is an error", () => {
  const text = '{"a": [1, 2.5, "x\\"y", {"b": null}], "c": true}';
  for (let length = 0; length < text.length; length++) {
    assert.throws(() => parseJson(text.slice(0, length), "x"), CheckpointError, `length ${length}`);
  }
});
