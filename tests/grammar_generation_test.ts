import assert from "node:assert/strict";
import { Ajv } from "ajv";
import { loadModel } from "../runtime/engine.ts";
import type { GrammarSource } from "../runtime/grammar/types.ts";

const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 20 },
    age: { type: "integer", minimum: 1, maximum: 99 },
    colours: { type: "array", items: { enum: ["red", "green", "blue"] }, minItems: 1, maxItems: 3 },
  },
  required: ["name", "age", "colours"],
  additionalProperties: false,
};

/** What the text of each source must be. */
const CASES: { source: GrammarSource; check: (text: string) => unknown }[] = [
  { source: { kind: "json" }, check: (text) => assert.equal(typeof JSON.parse(text), "object") },
  {
    source: { kind: "jsonSchema", schema: SCHEMA },
    check: (text) => assert.ok(new Ajv().validate(SCHEMA, JSON.parse(text)), text),
  },
  {
    source: { kind: "regex", pattern: "[a-c]{3,5}-\\d{2}" },
    check: (text) => assert.match(text, /^[a-c]{3,5}-\d{2}$/),
  },
  {
    source: { kind: "choice", choices: ["yes", "no", "perhaps"] },
    check: (text) => assert.ok(["yes", "no", "perhaps"].includes(text)),
  },
  {
    source: { kind: "gbnf", grammar: 'root ::= "the " ("cat" | "dog") " sat"' },
    check: (text) => assert.match(text, /^the (cat|dog) sat$/),
  },
];

Deno.test("a model's text is the grammar's, greedy and drawn, alone and in a crowd", async () => {
  await using model = await loadModel(undefined, { threads: 2, cacheTokens: 8192 });
  const samplers = [{ temperature: 0 }, { temperature: 1, seed: 1 }, { topK: 5, seed: 2 }];
  for (const { source, check } of CASES) {
    const grammar = await model.grammar(source);
    assert.equal(await model.grammar({ ...source }), grammar, "an equal source is compiled once");
    const start = (sampler: object) =>
      model.generate("Once upon a time", { ...sampler, grammar, maxTokens: 400 });
    const alone: string[] = [];
    for (const sampler of samplers) alone.push((await start(sampler)).text);
    const other = model.generate("The dragon", { temperature: 0, maxTokens: 40 });
    const crowd = await Promise.all(samplers.map(start));
    assert.deepEqual(crowd.map(({ text }) => text), alone);
    await other;
    crowd.forEach(({ text, finishReason }) => {
      // Any JSON may go on for long; what ends must be whole.
      if (source.kind === "json" && finishReason === "length") return;
      assert.equal(finishReason, "stop");
      check(text);
    });
  }
});
