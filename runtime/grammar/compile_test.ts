import { Ajv2020 } from "ajv/dist/2020.js";
import assert from "node:assert/strict";
import { compileGrammar } from "./compile.ts";
import {
  byteVocabulary,
  compiled,
  END_ID,
  idsOf,
  isText,
  randomNumbers,
  randomText,
  vocabularyOf,
} from "./test_vocabularies.ts";
import { GrammarError, type GrammarSource } from "./types.ts";

const vocabulary = await byteVocabulary();

/** Texts of a grammar by random tokens; the seed replays them. */
async function textsOf(source: GrammarSource, seed: number, count = 40): Promise<string[]> {
  const grammar = await compileGrammar(source, vocabulary);
  const random = randomNumbers(seed);
  const texts = Array.from({ length: count }, () => randomText(grammar, vocabulary, random));
  return texts.filter((text) => text !== null);
}

const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: -3, exclusiveMaximum: 130 },
    tags: { type: "array", items: { enum: ["a", "b\n", 'c"', 1, null] }, maxItems: 3 },
    when: { type: "string", format: "date-time" },
    nested: { $ref: "#" },
  },
  required: ["name", "age"],
  additionalProperties: false,
};

const SCHEMAS: Record<string, unknown> = {
  person: PERSON,
  anything: true,
  types: { type: ["string", "null", "integer"] },
  numbers: { type: "number", exclusiveMinimum: 0.25, maximum: 1234.5 },
  negative: { type: "number", minimum: -0.007, maximum: -1e-5 },
  multiples: { type: "integer", minimum: -1000, maximum: 5000, multipleOf: 7 },
  pattern: { type: "string", pattern: '^[a-c"\\\\é]+-\\d{2,3}$', minLength: 5 },
  search: { type: "string", pattern: "a[bc]", maxLength: 9 },
  tuple: {
    type: "array",
    prefixItems: [{ type: "string" }, { const: 3 }],
    items: false,
    minItems: 1,
  },
  counted: { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 4 },
  others: {
    type: "object",
    properties: { a: { type: "string" } },
    additionalProperties: { type: "integer" },
  },
  patterns: {
    type: "object",
    properties: { ab: { maxLength: 3 } },
    patternProperties: { "^a": { type: "string" }, "b$": { minLength: 2 } },
    additionalProperties: { type: "null" },
    maxProperties: 3,
  },
  names: { type: "object", propertyNames: { pattern: "^x", maxLength: 3 }, minProperties: 1 },
  all: {
    allOf: [
      { type: "object", properties: { a: { type: ["string", "integer"] } }, required: ["a"] },
      { properties: { a: { minimum: 5 }, b: { type: "null" } }, additionalProperties: false },
    ],
  },
  either: { anyOf: [{ type: "string", maxLength: 2 }, { type: "array", items: { type: "null" } }] },
  one: {
    type: "object",
    oneOf: [
      { properties: { kind: { const: "a" }, x: { type: "null" } }, required: ["kind", "x"] },
      { properties: { kind: { const: "b" } }, required: ["kind"], additionalProperties: false },
    ],
  },
  constant: { const: { b: [1, { c: "\u2028\u0001" }], a: null } },
  list: {
    $defs: {
      list: { anyOf: [{ type: "null" }, { $ref: "#/$defs/pair" }] },
      pair: {
        type: "object",
        properties: { head: { type: "integer" }, tail: { $ref: "#/$defs/list" } },
        required: ["head", "tail"],
        additionalProperties: false,
      },
    },
    $ref: "#/$defs/list",
  },
};

for (const [name, schema] of Object.entries(SCHEMAS)) {
  Deno.test(`texts of the schema "${name}" are valid`, async () => {
    const seed = 7;
    const ajv = new Ajv2020({ strict: false, validateFormats: false });
    const validate = ajv.compile(schema as object);
    const texts = await textsOf({ kind: "jsonSchema", schema }, seed);
    assert.ok(texts.length > 10, `${texts.length} texts have ended`);
    for (const text of texts) {
      assert.ok(validate(JSON.parse(text)), `${text}: ${ajv.errorsText(validate.errors)}`);
    }
  });
}

Deno.test("texts of JSON are objects", async () => {
  for (const text of await textsOf({ kind: "json" }, 3)) {
    const value = JSON.parse(text);
    assert.ok(typeof value === "object" && value !== null && !Array.isArray(value), text);
  }
});

Deno.test("texts of a regular expression match it", async () => {
  const pattern = "(?:[^\\W\\d]{2,3}|é+?|[\\]x-z.]) \\u00e4?(a|bc)*[^a-zA-Z]";
  for (const text of await textsOf({ kind: "regex", pattern }, 5)) {
    assert.match(text, new RegExp(`^(${pattern})$`, "u"));
  }
});

Deno.test("texts of a choice are its texts", async () => {
  const choices = ["yes", "no", "nope", "日本", ""];
  const texts = new Set(await textsOf({ kind: "choice", choices }, 5, 60));
  assert.deepEqual([...texts].sort(), [...choices].sort());
});

Deno.test("a grammar of GBNF", async () => {
  const grammar = await compiled({
    kind: "gbnf",
    grammar: `
      # sums
      root ::= (term
        "+")* term   # the last one
      term ::= [0-9]{1,2} |
        "(" root ")" | [^\\x00-\\U0010FFFF]
    `,
  });
  for (const text of ["1", "12+(3+4)", "((1)+2)"]) assert.ok(isText(grammar, text), text);
  for (const text of ["", "123", "1+", "(1", "1 + 2"]) assert.ok(!isText(grammar, text), text);
});

Deno.test("calls of tools come after text that has none", async () => {
  const source: GrammarSource = {
    kind: "tools",
    tools: [{ name: "add", parameters: PERSON }, { name: "list all" }],
    choice: "auto",
    parallel: true,
  };
  const grammar = await compiled(source);
  const call = '<tool_call>\\n{"name": "list all", "arguments": {"a":1}}\\n</tool_call>'
    .replaceAll("\\n", "\n");
  for (const text of ["", "hello <tool", call, `hi\n${call}\n${call}`]) {
    assert.ok(isText(grammar, text), text);
  }
  for (const text of ["<tool_call>", `${call} bye`, call.replace("list all", "add")]) {
    assert.ok(!isText(grammar, text), text);
  }
  const single = await compiled({ ...source, choice: "required", parallel: false });
  assert.ok(isText(single, call));
  for (const text of ["", "hi", `${call}\n${call}`]) assert.ok(!isText(single, text), text);
});

Deno.test("a text without calls may have to be JSON", async () => {
  const call = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>';
  const tools = [{ name: "add" }];
  const source = { kind: "tools", tools, choice: "auto", parallel: false } as const;
  const person = await compiled({ ...source, text: { kind: "jsonSchema", schema: PERSON } });
  const object = await compiled({ ...source, text: { kind: "json" } });
  for (const grammar of [person, object]) {
    assert.ok(isText(grammar, call));
    for (const text of ["", "hi", `{}${call}`, `${call}{}`]) {
      assert.ok(!isText(grammar, text), text);
    }
  }
  assert.ok(isText(object, '{"a": 1}') && !isText(object, "1"));
  assert.ok(!isText(person, '{"a": 1}'));
});

Deno.test("ends are allowed exactly where the text is complete", async () => {
  const grammar = await compiled({ kind: "regex", pattern: "ab*" });
  const matcher = grammar.start();
  assert.ok(!idsOf(matcher.allowed()).includes(END_ID));
  assert.throws(() => matcher.accept(END_ID), RangeError);
  matcher.accept("a".charCodeAt(0) + 1);
  assert.ok(idsOf(matcher.allowed()).includes(END_ID));
  assert.deepEqual([matcher.isComplete, matcher.isFinished], [true, false]);
  assert.throws(() => matcher.accept("a".charCodeAt(0) + 1), RangeError);
  const fixed = (await compiled({ kind: "choice", choices: ["a"] })).start();
  fixed.accept("a".charCodeAt(0) + 1);
  assert.deepEqual([fixed.isComplete, fixed.isFinished], [true, true]);
  assert.deepEqual(idsOf(fixed.allowed()), [END_ID]);
});

Deno.test("bytes that no token says alone are not waited for", async () => {
  const few = await vocabularyOf(["a", "b", "bc"].map((text) => new TextEncoder().encode(text)));
  const grammar = await compileGrammar({ kind: "regex", pattern: "a(bc|b)" }, few);
  const matcher = grammar.start();
  matcher.accept(1);
  assert.deepEqual(idsOf(matcher.allowed()), [2]);
  const promise = compileGrammar({ kind: "choice", choices: ["c"] }, few);
  await assert.rejects(promise, GrammarError);
});
