import assert from "node:assert/strict";
import { costReport } from "./cost.ts";

const rate = (tokensPerSecond: number) => ({ tokensPerSecond, stdev: 0 });

Deno.test("cost: a million tokens take a million / speed seconds", () => {
  const prefill = { ...rate(1000), promptTokens: 1, ternaryMacsPerSecondPerThread: 1 };
  const bytes = { weightBytesPerToken: 1, kvBytesPerToken: 1, bytesPerSecond: 1 };
  const decode = { ...rate(10), genTokens: 1, contextTokens: 1, ...bytes };
  assert.deepEqual(costReport(3.6, { prefill, decode }), {
    eurPerHour: 3.6,
    promptEurPerMillionTokens: 1,
    outputEurPerMillionTokens: 100,
  });
  const batch = {
    sequences: 8,
    stepSeconds: 0.2,
    tokensPerSecond: 40,
    bytesPerStep: 1,
    memorySeconds: 1,
    arithmeticSeconds: null,
    ratio: 1,
    ternaryMacsPerSecondPerThread: 1,
  };
  assert.deepEqual(costReport(3.6, { prefill, decode, batches: [batch] }).batches, [
    { sequences: 8, outputEurPerMillionTokens: 25 },
  ]);
});
