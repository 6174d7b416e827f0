import assert from "node:assert/strict";
import { defaultKernel } from "../codegen/ternary_linear/spec.ts";
import type { LinearWork } from "../codegen/ternary_linear/work.ts";
import type { Candidate } from "./race.ts";
import { survey, threadCounts } from "./survey.ts";

const WORKS: readonly LinearWork[] = [{ n: 64, k: 100, perToken: 3, makesInput: true }];

/** Takes `ns` for one linear of one token, and as long again for every 16 tokens. */
function candidateOf(ns: number): Candidate {
  return { timeNs: (_, tokens) => ns * (1 + (tokens - 1) / 16), prove: () => {} };
}

function surveyOf(times: Record<number, number>, threads: number, hasTime = true) {
  const candidates = new Map(
    Object.entries(times).map(([count, ns]) => [
      Number(count),
      candidateOf(ns),
    ]),
  );
  const kernel = defaultKernel("portable");
  const subject = { kernel, works: WORKS, promptTokensPerToken: 0.5, threads };
  return survey(subject, candidates, () => Promise.resolve(hasTime));
}

Deno.test("survey: the fewest threads that are as quick as any are advised", async () => {
  const advised = async (times: Record<number, number>) =>
    (await surveyOf(times, 1)).advisedThreads;
  assert.equal(await advised({ 1: 1000, 2: 500, 4: 250 }), 4);
  assert.equal(await advised({ 1: 1000, 2: 500, 4: 490 }), 2, "memory is saturated");
  assert.equal(await advised({ 1: 1000, 2: 500, 4: 900 }), 2, "more threads are in the way");
  assert.equal(await advised({ 4: 490, 2: 500, 1: 1000 }), 2, "in any order");
});

Deno.test("survey: times of a token and of a prompt's, and of small batches", async () => {
  const { threadTimes, batches } = await surveyOf({ 1: 1600, 2: 800 }, 2);
  assert.deepEqual(threadTimes, [
    { threads: 1, decodeNs: 4800, promptNs: 3 * 1600 * (1 + 63 / 16) / 64 },
    { threads: 2, decodeNs: 2400, promptNs: 3 * 800 * (1 + 63 / 16) / 64 },
  ]);
  assert.deepEqual(
    batches.map(({ tokens, medianNs }) => [tokens, medianNs]),
    [[2, 850], [4, 950], [8, 1150], [16, 1550]],
  );
});

Deno.test("survey: without time it has threads, and leaves the batches", async () => {
  const { advisedThreads, batches } = await surveyOf({ 1: 1000, 2: 500 }, 2, false);
  assert.equal(advisedThreads, 2);
  assert.deepEqual(batches, []);
});

Deno.test("survey: what the pause throws ends it", async () => {
  const kernel = defaultKernel("portable");
  const subject = { kernel, works: WORKS, promptTokensPerToken: 0.5, threads: 1 };
  const reason = new DOMException("Stopped", "AbortError");
  const candidates = new Map([[1, candidateOf(1)]]);
  await assert.rejects(survey(subject, candidates, () => Promise.reject(reason)), reason);
});

Deno.test("survey: threads are doubled up to what there is", () => {
  assert.deepEqual(threadCounts(1), [1]);
  assert.deepEqual(threadCounts(6), [1, 2, 4, 6]);
  assert.deepEqual(threadCounts(8), [1, 2, 4, 8]);
});
