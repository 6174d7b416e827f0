import process from "node:process";
import type { Isa } from "../../../codegen/isa.ts";
import { ternaryShapes } from "../../../codegen/model_spec.ts";
import type { Shape } from "../../../codegen/ternary_linear/scheme.ts";
import {
  kernelName,
  TERNARY_KERNELS,
  type TernaryKernel,
} from "../../../codegen/ternary_linear/spec.ts";
import { uniqueShapes } from "../../../codegen/ternary_linear/template.ts";
import {
  type Cpu,
  defaultThreads,
  detectCpuWithZig,
  missingFeatures,
} from "../../../kernels/cpu.ts";
import { NativeTeam } from "../../../kernels/native_model.ts";
import { type MachinePeak, measurePeak } from "../../../kernels/peak.ts";
import { LinearTimers, STREAMED_BYTES } from "../../../kernels/timing.ts";
import { ensureZig, type Zig } from "../../../kernels/toolchain.ts";
import { runBench } from "../../bench.ts";
import { shapeOf } from "../../shapes.ts";
import type { BenchReport } from "../types.ts";
import type { LinearFigures, MachineReport, MachineReportOptions } from "./types.ts";

/** Tokens of a linear's points: decode, small batches, prefill. */
const TOKENS = [1, 2, 4, 8, 16, 64];

/** A point is the median of so many measurements of at least so long. */
const MEASURE = { repeats: 5, atLeastMs: 8, withInputs: true };

/** How much of everything is measured; tests take less. */
export interface Effort {
  streamedBytes: number;
  peakBytes?: number;
  tokens: readonly number[];
  measure: typeof MEASURE;
  /** Default: all that the CPU runs. */
  kernels?: readonly TernaryKernel[];
}

const FULL: Effort = { streamedBytes: STREAMED_BYTES, tokens: TOKENS, measure: MEASURE };

/**
 * Measures this machine for a report: both roofs, every kernel, every shape, and whole models.
 *
 * @throws {RangeError} If the shape is unknown or does not fit in memory.
 */
export async function measureMachine(
  options: MachineReportOptions,
  version: string,
  effort: Effort = FULL,
): Promise<MachineReport> {
  const zig = await ensureZig(options);
  const cpu = await detectCpuWithZig(zig.path, options.signal);
  const threads = options.threads ?? [...new Set([1, defaultThreads(cpu)])];
  const runs = await runModels(options, threads);
  const [{ kernels }] = runs;
  const used = TERNARY_KERNELS.find(({ isa, scheme }) =>
    isa === kernels[0].isa && scheme.name === kernels[0].scheme
  )!;
  const most = Math.max(...threads);
  const modelShapes = uniqueShapes(ternaryShapes(shapeOf(options.shape)));
  const [largest] = modelShapes.toSorted((a, b) => b.n * b.k - a.n * a.k);
  const time = (kernel: TernaryKernel, shapes: readonly Shape[]) =>
    timeKernel(zig, kernel, shapes, most, options, effort);
  const schemes: LinearFigures[] = [];
  for (const kernel of effort.kernels ?? kernelsOf(cpu)) {
    schemes.push(...await time(kernel, [largest]));
  }
  const shapes = await time(used, modelShapes);
  const peaks: MachinePeak[] = [];
  for (const run of runs) peaks.push(await peakOf(zig, used.isa, run, options, effort));
  return {
    versions: { trilith: version, zig: zig.version, runtime: runtimeName() },
    cpu: cpu.modelName,
    isa: used.isa,
    command: commandOf(options, threads),
    shape: options.shape,
    peaks,
    schemes,
    shapes,
    runs,
    ...(options.peers && { peers: options.peers }),
  };
}

/** The most that memory gave, beside the model's turns or now: it changes with what neighbours do. */
async function peakOf(
  zig: Zig,
  isa: Isa,
  { threads, memory }: BenchReport,
  { signal }: MachineReportOptions,
  effort: Effort,
): Promise<MachinePeak> {
  signal?.throwIfAborted();
  const peak = await measurePeak(zig, isa, threads, { memoryBytes: effort.peakBytes });
  const bytesPerSecond = Math.max(peak.bytesPerSecond, memory.peakReadBytesPerSecond);
  return { ...peak, bytesPerSecond };
}

async function runModels(
  { peers: _, threads: __, ...options }: MachineReportOptions,
  threads: readonly number[],
): Promise<BenchReport[]> {
  const runs: BenchReport[] = [];
  for (const count of threads) {
    runs.push(await runBench({ ...options, threads: count, profile: true }));
  }
  return runs;
}

function kernelsOf(cpu: Cpu): TernaryKernel[] {
  return TERNARY_KERNELS.filter(({ isa }) => missingFeatures(cpu, isa).length === 0);
}

async function timeKernel(
  zig: Zig,
  kernel: TernaryKernel,
  shapes: readonly Shape[],
  threads: number,
  options: MachineReportOptions,
  effort: Effort,
): Promise<LinearFigures[]> {
  options.signal?.throwIfAborted();
  options.onProgress?.({ phase: "bench", message: `Measuring ${kernelName(kernel)}` });
  using timers = await LinearTimers.open(zig, kernel, shapes, options);
  const team = new NativeTeam(timers.library, threads);
  try {
    return shapes.flatMap((shape) => timeShape(timers, team, shape, effort));
  } finally {
    team.destroy();
  }
}

function timeShape(
  timers: LinearTimers,
  team: NativeTeam,
  shape: Shape,
  { streamedBytes, tokens, measure }: Effort,
): LinearFigures[] {
  const { kernel } = timers;
  const weights = timers.weights(shape, streamedBytes);
  try {
    return tokens.map((count) => {
      using timer = timers.timer(team, weights, count);
      const seconds = timer.measureNs(measure) / 1e9;
      const bytes = kernel.scheme.layout.packedBytes(shape.n, shape.k);
      const macs = shape.n * shape.k * count;
      return {
        kernel: kernelName(kernel),
        ...shape,
        tokens: count,
        threads: team.threads,
        bitsPerWeight: bytes * 8 / (shape.n * shape.k),
        seconds,
        bytesPerSecond: bytes / seconds,
        macsPerSecond: macs / seconds,
        macsPerByte: macs / bytes,
      };
    });
  } finally {
    weights.release();
  }
}

function runtimeName(): string {
  if (process.versions.bun) return `Bun ${process.versions.bun}`;
  return `Deno ${(process.versions as Record<string, string>).deno}`;
}

function commandOf(options: MachineReportOptions, threads: readonly number[]): string {
  const { shape, promptTokens, genTokens, repeat, batch, kernels } = options;
  const flags = {
    shape,
    "prompt-tokens": promptTokens,
    "gen-tokens": genTokens,
    repeat,
    batch: batch.join(","),
    threads: threads.join(","),
    ...(kernels && { kernels }),
  };
  const words = Object.entries(flags).map(([flag, value]) => `--${flag} ${value}`);
  return `trilith bench report ${words.join(" ")}`;
}
