/**
 * What grammars cost: compiling one, and a mask a token, on a vocabulary of 128k:
 * `deno run -A bench/grammar_latency.ts`. Texts are drawn by random from the allowed tokens, which
 * visits more states than a model does.
 */
import { compileGrammar } from "../runtime/grammar/compile.ts";
import { idsOf, randomNumbers } from "../runtime/grammar/test_vocabularies.ts";
import type { GrammarSource } from "../runtime/grammar/types.ts";
import { GrammarVocabulary } from "../runtime/grammar/vocabulary.ts";
import { fixtureTokenizer } from "../tests/tokenizer_fixtures.ts";

export interface Latency {
  compileMs: number;
  numMasks: number;
  /** Of a mask and the acceptance of the token drawn from it. */
  medianMicroseconds: number;
  p99Microseconds: number;
  maxMicroseconds: number;
}

const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 60 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    email: { type: "string", format: "email" },
    tags: { type: "array", items: { type: "string" }, maxItems: 5 },
    address: {
      type: "object",
      properties: {
        street: { type: "string" },
        city: { type: "string" },
        position: { type: "array", items: { type: "number" }, minItems: 2, maxItems: 2 },
      },
      required: ["street", "city"],
      additionalProperties: false,
    },
  },
  required: ["name", "age"],
  additionalProperties: false,
};

const TREE = {
  $defs: {
    node: {
      type: "object",
      properties: {
        value: { anyOf: [{ type: "string" }, { type: "number" }, { type: "null" }] },
        children: { type: "array", items: { $ref: "#/$defs/node" } },
      },
      required: ["value", "children"],
      additionalProperties: false,
    },
  },
  $ref: "#/$defs/node",
};

const EVENT = {
  type: "object",
  properties: {
    id: { type: "string", format: "uuid" },
    at: { type: "string", format: "date-time" },
    level: { enum: ["debug", "info", "warning", "error"] },
    code: { type: "string", pattern: "^[A-Z]{3}-[0-9]{4}$" },
    details: { type: "object", additionalProperties: { type: ["string", "number", "boolean"] } },
  },
  required: ["id", "at", "level", "code", "details"],
  additionalProperties: false,
};

const SEARCH = {
  type: "object",
  properties: { query: { type: "string" }, limit: { type: "integer", minimum: 1, maximum: 100 } },
  required: ["query"],
};

export const SOURCES: Readonly<Record<string, GrammarSource>> = {
  "any object": { kind: "json" },
  person: { kind: "jsonSchema", schema: PERSON },
  tree: { kind: "jsonSchema", schema: TREE },
  event: { kind: "jsonSchema", schema: EVENT },
  tools: {
    kind: "tools",
    tools: [{ name: "search", parameters: SEARCH }, { name: "add_person", parameters: PERSON }],
    choice: "auto",
    parallel: true,
  },
};

/** Follows `numTexts` random texts of at most `maxTokens` tokens. */
export async function measureLatency(
  source: GrammarSource,
  vocabulary: GrammarVocabulary,
  { numTexts, maxTokens, seed }: { numTexts: number; maxTokens: number; seed: number },
): Promise<Latency> {
  const startedMs = performance.now();
  const grammar = await compileGrammar(source, vocabulary);
  const compileMs = performance.now() - startedMs;
  const random = randomNumbers(seed);
  const microseconds: number[] = [];
  for (let run = 0; run < numTexts; run++) {
    const matcher = grammar.start();
    for (let step = 0; step < maxTokens && !matcher.isFinished; step++) {
      const beforeMask = performance.now();
      const mask = matcher.allowed();
      const maskMs = performance.now() - beforeMask;
      const ids = idsOf(mask).filter((id) => !vocabulary.isEnd(id));
      const id = ids[Math.floor(random() * ids.length)];
      const beforeToken = performance.now();
      matcher.accept(id);
      microseconds.push(1000 * (maskMs + performance.now() - beforeToken));
    }
  }
  return { compileMs, ...figuresOf(microseconds) };
}

function figuresOf(microseconds: number[]): Omit<Latency, "compileMs"> {
  const sorted = microseconds.sort((a, b) => a - b);
  const at = (part: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
  return {
    numMasks: sorted.length,
    medianMicroseconds: at(0.5),
    p99Microseconds: at(0.99),
    maxMicroseconds: at(1),
  };
}

if (import.meta.main) {
  const tokenizer = fixtureTokenizer("llama3");
  const startedMs = performance.now();
  const vocabulary = await GrammarVocabulary.create({
    vocabSize: tokenizer.vocabSize,
    eosTokenIds: [tokenizer.tokenId("<|eot_id|>")!],
    tokenBytes: (id) => tokenizer.pieceBytes(id, false),
    isSpecial: (id) => tokenizer.isSpecial(id),
  });
  const vocabularyMs = performance.now() - startedMs;
  console.log(`vocabulary of ${vocabulary.vocabSize}: ${vocabularyMs.toFixed(0)} ms`);
  for (const [name, source] of Object.entries(SOURCES)) {
    const size = { numTexts: 40, maxTokens: 100, seed: 1 };
    const { compileMs, numMasks, ...figures } = await measureLatency(source, vocabulary, size);
    const again = await measureLatency(source, vocabulary, { ...size, numTexts: 0 });
    const parts = Object.entries(figures).map(([key, us]) => `${key} ${us.toFixed(0)}`);
    console.log(
      `${name}: compileMs ${compileMs.toFixed(0)} (again ${again.compileMs.toFixed(0)}), ` +
        `${numMasks} masks, ${parts.join(", ")}`,
    );
  }
}
