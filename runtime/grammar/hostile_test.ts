/** Grammars that are wrong, or that would take too long: each is refused with a reason. */
import assert from "node:assert/strict";
import { compiled, isText } from "./test_vocabularies.ts";
import { GrammarError, type GrammarSource } from "./types.ts";

function nested(count: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = {};
  for (let i = 0; i < count; i++) value = wrap(value);
  return value;
}

function many<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

function schema(value: unknown): GrammarSource {
  return { kind: "jsonSchema", schema: value };
}

function regex(pattern: string): GrammarSource {
  return { kind: "regex", pattern };
}

function gbnf(grammar: string): GrammarSource {
  return { kind: "gbnf", grammar };
}

const properties = Object.fromEntries(many(20_000, (i) => [`property${i}`, { type: "string" }]));

const REFUSED: [string, GrammarSource, RegExp][] = [
  ["repetitions of repetitions", regex("(a{1000}){1000}"), /more than \d+ states/],
  ["exponentially many states", regex("(a|b)*a(a|b){60}"), /too much work|states/],
  ["nested groups", regex("(".repeat(10_000) + ")".repeat(10_000)), /nested more than 200/],
  ["a long pattern", regex("a".repeat(1_000_000)), /at most 65536 characters/],
  ["a large count", regex("a{999999999}"), /more than 100000 rounds/],
  ["counts in the wrong order", regex("a{3,2}"), /must not end before it begins/],
  ["look-ahead", regex("a(?=b)"), /at character 3, before "=b\)": look-around/],
  ["references", regex("(a)\\1"), /at character 3, before "\\\\1": .*not regular/],
  ["word boundaries", regex("\\bfoo"), /\\b is not supported/],
  ["an anchor in the middle", regex("a$b"), /only be at the end/],
  ["an open class", regex("[a"), /ends too early/],
  ["a range backwards", regex("[b-a]"), /not before it/],
  ["a lone surrogate", regex("\\ud800"), /stand for a character/],
  ["a possessive quantifier", regex("a++"), /can not be quantified/],
  ["a schema of a megabyte", schema({ type: "object", properties }), /states|too much work/],
  ["a deep schema", schema(nested(5000, (a) => ({ properties: { a } }))), /200 levels/],
  ["a large enum", schema({ enum: many(60_000, (i) => `value number ${i}`) }), /states/],
  [
    "many combinations",
    schema({ allOf: many(20, () => ({ anyOf: [{}, { minLength: 1 }] })) }),
    /500/,
  ],
  ["long strings", schema({ type: "string", maxLength: 1e9 }), /at most 20000/],
  ["long arrays", schema({ type: "array", minItems: 1e9 }), /at most 10000/],
  ["a reference to itself", schema({ $ref: "#" }), /refers to itself/],
  [
    "no finite value",
    schema({ type: "object", properties: { a: { $ref: "#" } }, required: ["a"] }),
    /no text at all/,
  ],
  ["no value", schema(false), /no text at all/],
  ["a reference to nothing", schema({ $ref: "#/$defs/a" }), /refers to nothing/],
  ["a reference elsewhere", schema({ $ref: "other.json" }), /must be "#" or begin with "#\/"/],
  ["null", schema(null), /must be an object or a boolean/],
  ["not JSON", schema({ minimum: NaN }), /not JSON at #\/minimum/],
  [
    "a wrong type",
    schema({ type: "text" }),
    /`type` at #: it must name types: current value is "text"/,
  ],
  ["a wrong bound", schema({ items: { minItems: -1 } }), /`minItems` at #\/items/],
  ["numbers out of reach", schema({ minimum: 1e300 }), /beyond 10\^15/],
  ["an unknown format", schema({ format: "color" }), /`format` at #: it must be one of date, /],
  ["a pattern that is no pattern", schema({ pattern: "(" }), /`pattern` at #: Cannot read/],
  [
    "overlapping alternatives",
    schema({ oneOf: [{ type: "number" }, { type: "integer" }] }),
    /alternatives 0 and 1 may hold at once/,
  ],
  ["left recursion", gbnf('root ::= root "a" | "a"'), /left recursion/],
  ["hidden left recursion", gbnf('root ::= x root "a" | "a"\nx ::= "b"?'), /left recursion/],
  ["a rule that is not there", gbnf("root ::= foo"), /no rule "foo"/],
  ["no rules", gbnf(""), /no rule "root"/],
  ["a rule twice", gbnf('root ::= "a"\nroot ::= "b"'), /there already/],
  ["a literal without an end", gbnf('root ::= "a\n'), /must end with its line/],
  ["no choices", { kind: "choice", choices: [] }, /one or more texts/],
  ["tools of one name", {
    kind: "tools",
    tools: [{ name: "a" }, { name: "a" }],
    choice: "auto",
    parallel: true,
  }, /different names/],
];

for (const [name, source, message] of REFUSED) {
  Deno.test(`refused: ${name}`, async () => {
    await assert.rejects(compiled(source), (error: Error) => {
      assert.ok(error instanceof GrammarError, String(error));
      assert.match(error.message, message);
      assert.ok(error.message.length < 1000);
      return true;
    });
  });
}

for (
  const keyword of ["not", "if", "contains", "uniqueItems", "dependentRequired", "$dynamicRef"]
) {
  Deno.test(`refused: the keyword ${keyword}, with its place`, async () => {
    const source = schema({ properties: { a: { [keyword]: keyword === "uniqueItems" || {} } } });
    const message = new RegExp(
      `\`${keyword.replace("$", "\\$")}\` at #/properties/a.*not supported`,
    );
    await assert.rejects(compiled(source), message);
  });
}

Deno.test("large grammars that are taken", async () => {
  const required = many(500, (i) => `property${i}`);
  const some = Object.fromEntries(required.map((name) => [name, { type: "null" }]));
  const record = { type: "object", properties: some, required, additionalProperties: false };
  const text = JSON.stringify(Object.fromEntries(required.map((name) => [name, null])));
  assert.ok(isText(await compiled(schema(record)), text));
  const values = many(3000, (i) => `value number ${i}`);
  assert.ok(isText(await compiled(schema({ enum: values })), JSON.stringify(values[2999])));
  const nullable = many(40, (i) => `r${i} ::= r${i + 1} r${i + 1}`).join("\n");
  const grammar = await compiled(gbnf(`root ::= r0\n${nullable}\nr40 ::= "b"?`));
  assert.ok(isText(grammar, "bbbbb"));
});

Deno.test("other work goes on while a grammar is compiled", async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  await compiled(schema({ enum: many(2000, (i) => `value number ${i}`) }));
  clearInterval(timer);
  assert.ok(turns > 1);
});

Deno.test("names of members that JavaScript's objects have anyway", async () => {
  const text =
    '{"type":"object","properties":{"__proto__":{"type":"null"},"toString":{"const":1}},' +
    '"required":["__proto__","toString"],"additionalProperties":false}';
  const grammar = await compiled(schema(JSON.parse(text)));
  assert.ok(isText(grammar, '{"__proto__":null,"toString":1}'));
  assert.ok(!isText(grammar, '{"toString":1}'));
});
