import { activeWeights, ternaryShapes } from "../codegen/model_spec.ts";
import { tokenBytes } from "../codegen/plan.ts";
import { uniqueShapes } from "../codegen/ternary_linear/template.ts";
import { batchReports } from "./bench/batches.ts";
import { costReport } from "./bench/cost.ts";
import { EnergyMeter, type EnergyProblem } from "./bench/energy.ts";
import { energyReport } from "./bench/energy_report.ts";
import { BenchSession } from "./bench/session.ts";
import { median, rateOf } from "./bench/statistics.ts";
import { contextTokensOf, measureTurn, profileTurns, rangeSum, type Turn } from "./bench/turns.ts";
import type { BenchOptions, BenchReport, EnergyReport, FromStart } from "./bench/types.ts";
import { peakRssBytes } from "./memory.ts";

/**
 * Measures the memory peak, prefill, decode and what else was asked for in turn, `repeat` times,
 * after one unmeasured turn. Figures are medians.
 *
 * @throws {RangeError} If the shape is unknown, does not fit in memory, or an option is out of range.
 */
export async function runBench(options: BenchOptions): Promise<BenchReport> {
  await using session = await BenchSession.open(options);
  const meter = options.energy ? EnergyMeter.open() : undefined;
  const turns: Turn[] = [];
  for (let i = 0; i <= options.repeat; i++) {
    options.signal?.throwIfAborted();
    const message = i === 0 ? "Warming up" : `Measuring ${i} of ${options.repeat}`;
    options.onProgress?.({ phase: "bench", message });
    const turn = await measureTurn(session, options, workingMeter(meter));
    if (i > 0) turns.push(turn);
  }
  const report = reportOf(session, options, turns);
  if (options.batch) report.batches = batchReports(session, options, turns);
  if (meter !== undefined) report.energy = energyOf(meter, turns, options);
  if (options.cost !== undefined) report.cost = costReport(options.cost, report);
  if (options.profile) {
    options.onProgress?.({ phase: "bench", message: "Profiling" });
    report.profile = await profileTurns(session, options);
  }
  return report;
}

function workingMeter(meter?: EnergyMeter | EnergyProblem): EnergyMeter | undefined {
  return meter instanceof EnergyMeter ? meter : undefined;
}

function energyOf(
  meter: EnergyMeter | EnergyProblem,
  turns: readonly Turn[],
  options: BenchOptions,
): EnergyReport {
  if (!(meter instanceof EnergyMeter)) return meter;
  return energyReport(meter.domains, turns.map((turn) => turn.energy!), options);
}

function reportOf(
  session: BenchSession,
  options: BenchOptions,
  turns: readonly Turn[],
): BenchReport {
  const { promptTokens, genTokens } = options;
  const { source, opened, plan, threads, kvType } = session;
  const prefill = rateOf(turns.map((turn) => promptTokens / turn.prefillSeconds));
  const decode = rateOf(turns.map((turn) => genTokens / turn.decode.seconds));
  const contextTokens = contextTokensOf(options);
  const positions = rangeSum(contextTokens + 1, contextTokens + genTokens) / genTokens;
  const kvBytesPerToken = positions * session.kvBytesPerPosition;
  const weightBytes = turns.map(({ decode }) =>
    tokenBytes(plan, session.head) +
    decode.rescoredRows / genTokens * plan.headRowBytes
  );
  const weightBytesPerToken = median(weightBytes);
  const bytesPerToken = weightBytesPerToken + kvBytesPerToken;
  const fractions = turns.map(({ decode: { seconds, peakBytesPerSecond } }, i) =>
    (weightBytes[i] + kvBytesPerToken) * genTokens / seconds / peakBytesPerSecond
  );
  const macs = activeWeights(source.spec);
  return {
    shape: source.name,
    threads,
    cpu: opened.cpu.modelName,
    head: session.head,
    kvType,
    prefill: {
      ...prefill,
      promptTokens,
      ternaryMacsPerSecondPerThread: prefill.tokensPerSecond * macs / threads,
    },
    decode: {
      ...decode,
      genTokens,
      contextTokens,
      weightBytesPerToken,
      kvBytesPerToken,
      bytesPerSecond: decode.tokensPerSecond * bytesPerToken,
      fromStart: fromStartOf(session, options, turns),
    },
    memory: {
      peakReadBytesPerSecond: median(turns.map(({ decode }) => decode.peakBytesPerSecond)),
      bestReadBytesPerSecond: session.bestReadBytesPerSecond,
      rooflineFraction: median(fractions),
      weightBytes: plan.totalBytes,
      peakRssBytes: peakRssBytes(),
    },
    kernels: kernelsOf(session),
  };
}

/** How decoding after the context compares with decoding from the start, turn by turn. */
function fromStartOf(
  { kvBytesPerPosition }: BenchSession,
  { genTokens, context }: BenchOptions,
  turns: readonly Turn[],
): FromStart | undefined {
  if (context === undefined) return undefined;
  const bytes = context * genTokens * kvBytesPerPosition;
  const rates = turns.map(({ decode, start }) => {
    const rate = bytes / (decode.seconds - start!.seconds);
    return {
      rate,
      fraction: rate / decode.peakBytesPerSecond,
      kept: start!.seconds / decode.seconds,
    };
  });
  return {
    tokensPerSecond: median(turns.map(({ start }) => genTokens / start!.seconds)),
    keptFraction: median(rates.map(({ kept }) => kept)),
    kvBytesPerSecond: median(rates.map(({ rate }) => rate)),
    kvRooflineFraction: median(rates.map(({ fraction }) => fraction)),
  };
}

function kernelsOf({ spec, opened: { kernel, reason } }: BenchSession): BenchReport["kernels"] {
  const shapes = uniqueShapes(ternaryShapes(spec));
  return shapes.map(({ n, k }) => ({
    op: "ternary_linear",
    n,
    k,
    scheme: kernel.scheme.name,
    isa: kernel.isa,
    bitsPerWeight: kernel.scheme.layout.packedBytes(n, k) * 8 / (n * k),
    reason,
  }));
}
