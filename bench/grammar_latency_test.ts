import assert from "node:assert/strict";
import { byteVocabulary } from "../runtime/grammar/test_vocabularies.ts";
import { measureLatency, SOURCES } from "./grammar_latency.ts";

Deno.test("grammar_latency: every grammar has a figure for every token", async () => {
  const vocabulary = await byteVocabulary();
  for (const [name, source] of Object.entries(SOURCES)) {
    const size = { numTexts: 2, maxTokens: 20, seed: 5 };
    const { compileMs, numMasks, ...figures } = await measureLatency(source, vocabulary, size);
    assert.ok(compileMs > 0 && numMasks > 5 && numMasks <= 40, name);
    const { medianMicroseconds, p99Microseconds, maxMicroseconds } = figures;
    assert.ok(0 <= medianMicroseconds && medianMicroseconds <= p99Microseconds, name);
    assert.ok(p99Microseconds <= maxMicroseconds, name);
  }
});
