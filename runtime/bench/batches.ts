import type { Isa } from "../../codegen/isa.ts";
import type { BenchSession } from "./session.ts";
import { median } from "./statistics.ts";
import { rangeSum, type Stretch, type Turn } from "./turns.ts";
import type { BatchReport, BenchOptions } from "./types.ts";
import { expertsRead, sketchMacs } from "./work.ts";
import { activeWeights, type ModelSpec } from "../../codegen/model_spec.ts";
import { type PackedPlan, tokenBytes } from "../../codegen/plan.ts";

/**
 * Ternary multiply-adds a second that a core should reach with so many tokens in a step, between
 * decode's unpacking and prefill's reuse: [tokens at least, rate]. Known of AVX-512 with VNNI and
 * VBMI, where lookups reach 288e9 in cache.
 */
const ARITHMETIC: Partial<Record<Isa, readonly (readonly [number, number])[]>> = {
  avx512: [[1, 160e9], [4, 200e9], [8, 230e9], [16, 250e9]],
};

/** A core's rate for a number of tokens in a step; null where none is known. */
export function arithmeticRate(isa: Isa, tokens: number): number | null {
  return ARITHMETIC[isa]?.findLast(([least]) => tokens >= least)?.[1] ?? null;
}

/** What each of `batch` took beside what memory and arithmetic allow. */
export function batchReports(
  session: BenchSession,
  { batch = [], genTokens }: BenchOptions,
  turns: readonly Turn[],
): BatchReport[] {
  return batch.map((sequences, i) => {
    const stretches = turns.map(({ batches }) => batches[i]);
    return batchReport(session, sequences, genTokens, stretches);
  });
}

function batchReport(
  session: BenchSession,
  sequences: number,
  genTokens: number,
  stretches: readonly Stretch[],
): BatchReport {
  const { spec, plan, kvBytesPerPosition, threads, head } = session;
  const meanPositions = rangeSum(1, genTokens) / genTokens;
  const rescoredRows = median(stretches.map((stretch) => stretch.rescoredRows)) / genTokens;
  const weightBytes = tokenBytes(plan, head) + moreExpertBytes(spec, plan, sequences) +
    rescoredRows * plan.headRowBytes;
  const bytesPerStep = weightBytes + sequences * meanPositions * kvBytesPerPosition;
  const headMacs = head === "two-stage" ? sketchMacs(spec) : 0;
  const macs = sequences * (activeWeights(spec) + headMacs);
  const rate = arithmeticRate(session.opened.kernel.isa, sequences);
  const arithmeticSeconds = rate === null ? null : macs / (rate * threads);
  const limitOf = (peak: number) => Math.max(bytesPerStep / peak, arithmeticSeconds ?? 0);
  const steps = stretches.map(({ seconds, peakBytesPerSecond: peak }) => ({
    seconds: seconds / genTokens,
    peak,
  }));
  const stepSeconds = median(steps.map(({ seconds }) => seconds));
  return {
    sequences,
    stepSeconds,
    tokensPerSecond: sequences / stepSeconds,
    bytesPerStep,
    memorySeconds: median(steps.map(({ peak }) => bytesPerStep / peak)),
    arithmeticSeconds,
    ratio: median(steps.map(({ seconds, peak }) => seconds / limitOf(peak))),
    ternaryMacsPerSecondPerThread: macs / stepSeconds / threads,
  };
}

/** Bytes of the experts that several tokens pick beside those that one picks. */
function moreExpertBytes(
  { experts, numHiddenLayers }: ModelSpec,
  plan: PackedPlan,
  tokens: number,
) {
  if (experts === undefined) return 0;
  const more = expertsRead(experts, tokens) - experts.numExpertsPerTok;
  return numHiddenLayers * more * plan.expertBytes;
}
