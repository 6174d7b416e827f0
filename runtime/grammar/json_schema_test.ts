/**
 * What each keyword means, in the manner of the JSON-Schema-Test-Suite: values that are valid are
 * texts of the grammar, and values that are not are none. ajv must agree where it knows the keyword.
 */
import { Ajv2020 } from "ajv/dist/2020.js";
import assert from "node:assert/strict";
import type { JsonValue } from "./json_values.ts";
import { SUPPORTED_KEYWORDS } from "./schema_keywords.ts";
import { compiled, isText } from "./test_vocabularies.ts";

interface Row {
  schema: { [keyword: string]: unknown };
  valid: JsonValue[];
  invalid: JsonValue[];
}

/** Members are in the order in which texts have them: the schema's. */
const ROWS: Record<string, Row[]> = {
  type: [
    { schema: { type: "integer" }, valid: [0, -12, 1], invalid: [1.5, "1", null, [], {}, true] },
    { schema: { type: "number" }, valid: [0, 1.5, 1e-7, 1e21], invalid: ["1", null, false] },
    { schema: { type: "string" }, valid: ["", "é😀\n\u0001"], invalid: [1, null, ["a"]] },
    { schema: { type: "array" }, valid: [[], [1, [{}]]], invalid: [{}, "[]"] },
    { schema: { type: "object" }, valid: [{}, { a: [1] }], invalid: [[], null] },
    { schema: { type: ["null", "boolean"] }, valid: [null, true, false], invalid: [0, "true"] },
  ],
  nullable: [{ schema: { type: "string", nullable: true }, valid: ["a", null], invalid: [1] }],
  enum: [{
    schema: { enum: [1, "a", [1, { b: null }]] },
    valid: [1, "a", [1, { b: null }]],
    invalid: [2, "b", [1], null],
  }],
  const: [{
    schema: { const: { a: 1 } },
    valid: [{ a: 1 }],
    invalid: [{}, { a: 2 }, { a: 1, b: 1 }],
  }],
  minimum: [{ schema: { minimum: 1.1 }, valid: [1.1, 2.6, 100, "x"], invalid: [0.6, 1, -5] }],
  maximum: [{ schema: { maximum: -3 }, valid: [-3, -3.5, -100], invalid: [-2.99, 0, 3] }],
  exclusiveMinimum: [{ schema: { exclusiveMinimum: 0 }, valid: [0.001, 7], invalid: [0, -1] }],
  exclusiveMaximum: [{
    schema: { type: "integer", exclusiveMaximum: 10 },
    valid: [9, -77],
    invalid: [10, 11, 100],
  }],
  multipleOf: [{ schema: { multipleOf: 3 }, valid: [0, 9, -12, 300], invalid: [1, 10, -4, 1.5] }],
  minLength: [{ schema: { minLength: 2 }, valid: ["ab", "😀é", 1], invalid: ["", "a", "😀"] }],
  maxLength: [{
    schema: { maxLength: 2 },
    valid: ["", "ab", "😀😀", "\n\n"],
    invalid: ["abc", "\n\n\n"],
  }],
  pattern: [
    { schema: { pattern: "^a*$" }, valid: ["", "aaa", 1, null], invalid: ["abc"] },
    { schema: { pattern: 'a+|"' }, valid: ["xxaayy", '"'], invalid: ["xyz", ""] },
  ],
  format: [
    {
      schema: { format: "date" },
      valid: ["2024-02-29", "2000-02-29", "1999-12-31"],
      invalid: ["2023-02-29", "1900-02-29", "2020-13-01", "2020-04-31", "20-01-01"],
    },
    {
      schema: { format: "time" },
      valid: ["08:30:06Z", "23:59:59.5+01:00"],
      invalid: ["24:00:00Z", "08:30:06", "8:30:06Z"],
    },
    {
      schema: { format: "date-time" },
      valid: ["1963-06-19T08:30:06.283185Z"],
      invalid: ["1990-02-31T15:59:59Z", "1963-06-19 08:30:06Z"],
    },
    {
      schema: { format: "duration" },
      valid: ["P4DT12H30M5S", "P1Y", "PT36H", "P2W"],
      invalid: ["PT1D", "P", "P1YT", "P2D1Y"],
    },
    {
      schema: { format: "email" },
      valid: ["joe.bloggs@example.com", "te~st@x.org"],
      invalid: ["2962", ".a@b.c", "a..b@c.d", "a@"],
    },
    {
      schema: { format: "hostname" },
      valid: ["www.example.com", "a-b"],
      invalid: ["-a", "a-", "a..b", "xn--x"],
    },
    {
      schema: { format: "ipv4" },
      valid: ["192.168.0.1", "0.0.0.0"],
      invalid: ["256.1.1.1", "1.2.3", "01.2.3.4"],
    },
    {
      schema: { format: "ipv6" },
      valid: ["::1", "::", "12:34::ab", "1::d6:192.168.0.1", "1:2:3:4:5:6:7:8"],
      invalid: ["12345::", "1::2::3", "1:2:3:4:5:6:7", ":1"],
    },
    {
      schema: { format: "uuid" },
      valid: ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
      invalid: ["2eb8aa08aa9811eab4aa73b441d16380"],
    },
    {
      schema: { format: "uri" },
      valid: ["http://foo.bar/?baz=qux#quux", "urn:a:b", "mailto:a@b.c"],
      invalid: ["//foo", "a b", "http:// x", "abc"],
    },
    {
      schema: { type: "integer", format: "int32" },
      valid: [2147483647, -2147483648],
      invalid: [2147483648, -2147483649],
    },
  ],
  items: [
    {
      schema: { items: { type: "integer" } },
      valid: [[], [1, 2], "x"],
      invalid: [[1, "x"], [null]],
    },
    { schema: { items: false }, valid: [[]], invalid: [[1]] },
  ],
  prefixItems: [{
    schema: { prefixItems: [{ type: "integer" }, { type: "string" }] },
    valid: [[], [1], [1, "a"], [1, "a", null]],
    invalid: [["a"], [1, 2]],
  }],
  additionalItems: [{
    schema: { items: [{ type: "integer" }], additionalItems: { type: "null" } },
    valid: [[1], [1, null, null]],
    invalid: [[null], [1, 2]],
  }],
  minItems: [{ schema: { minItems: 2 }, valid: [[1, 2], [1, 2, 3], {}], invalid: [[], [1]] }],
  maxItems: [{ schema: { maxItems: 2 }, valid: [[], [1, 2]], invalid: [[1, 2, 3]] }],
  properties: [{
    schema: { properties: { a: { type: "integer" }, b: false } },
    valid: [{}, { a: 1 }, { a: 1, c: 2 }, []],
    invalid: [{ a: "x" }, { b: 1 }],
  }],
  required: [{
    schema: { properties: { a: {} }, required: ["a", 'z"'] },
    valid: [{ a: 1, 'z"': 2 }, 1],
    invalid: [{}, { a: 1 }],
  }],
  additionalProperties: [
    {
      schema: { properties: { a: {} }, additionalProperties: false },
      valid: [{}, { a: [] }],
      invalid: [{ b: 1 }, { a: 1, b: 1 }],
    },
    {
      schema: { properties: { a: {} }, additionalProperties: { type: "null" } },
      valid: [{ a: 1, b: null, "a\n": null }],
      invalid: [{ b: 1 }],
    },
  ],
  patternProperties: [{
    schema: { patternProperties: { "^f": { type: "integer" }, "o$": { maximum: 9 } } },
    valid: [{ f: 1, xo: 3 }, { foo: 9 }, { x: "y" }],
    invalid: [{ f: "x" }, { foo: 10 }, { xo: 12 }],
  }],
  propertyNames: [{
    schema: { propertyNames: { maxLength: 2 } },
    valid: [{}, { ab: 1 }],
    invalid: [{ abc: 1 }],
  }],
  minProperties: [{
    schema: { minProperties: 1 },
    valid: [{ a: 1 }, { a: 1, b: 2 }, []],
    invalid: [{}],
  }],
  maxProperties: [{
    schema: { maxProperties: 1, properties: { a: {}, b: {} } },
    valid: [{}, { b: 1 }, { c: 1 }],
    invalid: [{ a: 1, b: 1 }, { a: 1, c: 1 }],
  }],
  anyOf: [{
    schema: { anyOf: [{ type: "integer" }, { minimum: 2 }] },
    valid: [1, 2.5, 3, "x"],
    invalid: [1.5],
  }],
  oneOf: [{
    schema: {
      oneOf: [{ type: "string", maxLength: 1 }, { type: "string", minLength: 3 }, { type: "null" }],
    },
    valid: ["", "a", "abc", null],
    invalid: ["ab", 1],
  }],
  allOf: [{
    schema: {
      allOf: [{ properties: { b: { type: "integer" } }, required: ["b"] }, {
        properties: { a: { type: "null" } },
        required: ["a"],
      }],
    },
    valid: [{ b: 2, a: null }],
    invalid: [{ b: 2 }, { a: null }, { b: "x", a: null }],
  }],
  $ref: [
    {
      schema: { properties: { a: { $ref: "#" } }, additionalProperties: false },
      valid: [{ a: { a: {} } }, { a: 5 }],
      invalid: [{ b: 1 }, { a: { b: 1 } }],
    },
    {
      schema: { $ref: "#/$defs/a~1b%25", $defs: { "a/b%": { type: "integer" } }, maximum: 3 },
      valid: [3],
      invalid: [4, "x"],
    },
  ],
  $defs: [{
    schema: { $defs: { a: { type: "null" } }, items: { $ref: "#/$defs/a" } },
    valid: [[null]],
    invalid: [[1]],
  }],
  definitions: [{
    schema: { definitions: { a: { type: "null" } }, $ref: "#/definitions/a" },
    valid: [null],
    invalid: [1],
  }],
  $anchor: [{
    schema: { $defs: { a: { $anchor: "here", type: "null" } }, $ref: "#here" },
    valid: [null],
    invalid: [1],
  }],
};

/** ajv has no formats of its own, and no lists as `items` in this draft. */
const UNKNOWN_TO_AJV = new Set(["format", "additionalItems"]);

for (const [keyword, rows] of Object.entries(ROWS)) {
  Deno.test(`keyword ${keyword}: valid values are texts, others are not`, async () => {
    for (const { schema, valid, invalid } of rows) {
      const grammar = await compiled({ kind: "jsonSchema", schema });
      const validate = UNKNOWN_TO_AJV.has(keyword)
        ? null
        : new Ajv2020({ strict: false }).compile(schema);
      for (const value of [...valid, ...invalid]) {
        const text = JSON.stringify(value);
        const isValid = valid.includes(value);
        assert.equal(isText(grammar, text), isValid, `${JSON.stringify(schema)}: ${text}`);
        if (validate !== null) assert.equal(validate(value), isValid, text);
      }
    }
  });
}

Deno.test("every supported keyword has its rows", () => {
  assert.deepEqual(Object.keys(ROWS).sort(), [...SUPPORTED_KEYWORDS].sort());
});

Deno.test("one space may follow commas and colons, and no other white space comes", async () => {
  const grammar = await compiled({ kind: "json" });
  for (const text of ['{"a": [1, 2],"b":{}}', '{"a":"\\u00e9\\ud83d\\ude00\\/"}']) {
    assert.ok(isText(grammar, text), text);
  }
  for (
    const text of ['{ "a":1}', '{"a":  1}', '{"a":1 }', '{"a":[ 1]}', '{"a":1,\n"b":2}', " {}"]
  ) {
    assert.ok(!isText(grammar, text), text);
  }
  for (
    const text of ['{"a":"\\ud83d"}', '{"a":"\\ude00x"}', '{"a":"\n"}', '{"a":01}', '{"a":.5}']
  ) {
    assert.ok(!isText(grammar, text), text);
  }
});

Deno.test("other members can not be given ones in another spelling", async () => {
  const schema = { properties: { a: { type: "null" } }, additionalProperties: { type: "integer" } };
  const grammar = await compiled({ kind: "jsonSchema", schema });
  assert.ok(!isText(grammar, '{"\\u0061":1}'));
  assert.ok(isText(grammar, '{"b":1}'));
});
