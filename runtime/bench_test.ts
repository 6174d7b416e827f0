import assert from "node:assert/strict";
import { EXPERT_PHASES, SKETCH_PHASES, STEP_PHASE_NAMES } from "../codegen/step/phases.ts";
import { runBench } from "./bench.ts";

const OPTIONS = { promptTokens: 24, genTokens: 4, repeat: 2, threads: 2 };

Deno.test("bench measures the embedded model, and its figures agree with each other", async () => {
  const report = await runBench(OPTIONS);
  assert.equal(report.shape, "story");
  assert.equal(report.threads, 2);
  const { decode, memory, prefill } = report;
  const bytesPerToken = decode.weightBytesPerToken + decode.kvBytesPerToken;
  assert.equal(decode.bytesPerSecond, decode.tokensPerSecond * bytesPerToken);
  assert.ok(decode.weightBytesPerToken < memory.weightBytes);
  for (const rate of [prefill, decode]) assert.ok(rate.tokensPerSecond > 0 && rate.stdev >= 0);
  assert.ok(memory.peakReadBytesPerSecond > 0 && memory.rooflineFraction > 0);
  assert.ok(report.kernels.every(({ bitsPerWeight }) => bitsPerWeight < 4));
  assert.deepEqual([report.profile, report.batches], [undefined, undefined]);
  await assert.rejects(runBench({ ...OPTIONS, kernels: "reference" }), RangeError);
  await assert.rejects(runBench({ ...OPTIONS, shape: "x" }), /Cannot use shape "x"/);
});

/** Equal but for rounding. */
function assertNear(actual: number, expected: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.abs(expected), `${what}: ${actual}`);
}

Deno.test("bench: the phases of a profile add up to its steps", async () => {
  for (const threads of [1, 2]) {
    const { profile } = await runBench({ ...OPTIONS, threads, profile: true });
    const { prefill, decode } = profile!;
    assert.deepEqual([prefill.steps, prefill.tokens], [2, 48]);
    assert.deepEqual([decode.steps, decode.tokens], [8, 8]);
    const absent = [...EXPERT_PHASES, ...SKETCH_PHASES];
    const names = STEP_PHASE_NAMES.filter((name) => !absent.includes(name));
    for (const step of [prefill, decode]) {
      assert.deepEqual(step.phases.map(({ phase }) => phase), names);
      assertNear(step.phases.reduce((sum, { share }) => sum + share, 0), 1, "shares");
      assert.ok(step.restShare > step.waitShare && step.restShare < 1);
      for (const { phase, seconds, waitSeconds, macs } of step.phases) {
        assert.ok(waitSeconds >= 0 && seconds >= waitSeconds, phase);
        if (macs > 0) assert.ok(seconds > 0, phase);
      }
    }
  }
});

Deno.test("bench: batches are measured against the larger of memory and arithmetic", async () => {
  const { batches, threads } = await runBench({ ...OPTIONS, repeat: 1, batch: [1, 3] });
  assert.deepEqual(batches!.map(({ sequences }) => sequences), [1, 3]);
  for (const batch of batches!) {
    const { stepSeconds, memorySeconds, arithmeticSeconds, ratio, sequences } = batch;
    assertNear(ratio, stepSeconds / Math.max(memorySeconds, arithmeticSeconds ?? 0), "ratio");
    assertNear(batch.tokensPerSecond, sequences / stepSeconds, "tokens a second");
    assert.ok(batch.ternaryMacsPerSecondPerThread > 0 && threads === 2);
  }
  assert.ok(batches![1].bytesPerStep > batches![0].bytesPerStep, "three caches are read");
});
