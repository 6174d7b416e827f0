import { KV_BLOCK_POSITIONS } from "../codegen/attention/template.ts";
import type { Isa, KernelChoice } from "../codegen/isa.ts";
import { LINEAR_NAMES, linearShape, type ModelSpec } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import type { Batch } from "../codegen/step/batch.ts";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { uniqueShapes } from "../codegen/ternary_linear/template.ts";
import { type OpenedKernels, openKernels } from "../kernels/choose.ts";
import { defaultThreads } from "../kernels/cpu.ts";
import {
  allocate,
  type ModelLibrary,
  type NativeMemory,
  writeBytes,
} from "../kernels/native_model.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { openWeights } from "./checkpoint_weights.ts";
import { readModelConfig } from "./config.ts";
import { embeddedModelFolder } from "./embedded.ts";
import { availableMemoryBytes, peakRssBytes } from "./memory.ts";
import { NativeExecutor } from "./native_executor.ts";
import { packModel } from "./pack.ts";
import { joinedTables, ropeTables } from "./rope.ts";
import { shapeOf } from "./shapes.ts";
import { fillSynthetic } from "./synthetic.ts";
import type { OnProgress } from "./types.ts";

export interface BenchOptions {
  /** A synthetic model of this shape; or a real `model`; neither: the embedded one. */
  shape?: string;
  model?: string;
  promptTokens: number;
  genTokens: number;
  threads?: number;
  repeat: number;
  kernels?: KernelChoice;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export interface Rate {
  tokensPerSecond: number;
  /** Sample standard deviation of tokensPerSecond over the repeats. */
  stdev: number;
}

export interface BenchReport {
  shape: string;
  threads: number;
  cpu: string;
  prefill: Rate & {
    promptTokens: number;
    /** Ternary multiply-adds a second and thread, all other work counted as if it were theirs. */
    ternaryMacsPerSecondPerThread: number;
  };
  decode: Rate & { genTokens: number; weightBytesPerToken: number; bytesPerSecond: number };
  memory: {
    /** Median over the repeats; measured beside each, with the same threads, on the weights. */
    peakReadBytesPerSecond: number;
    /** Median over the repeats of decode's bytes a second / that repeat's peak. */
    rooflineFraction: number;
    weightBytes: number;
    peakRssBytes: number;
  };
  kernels: { op: string; n: number; k: number; scheme: string; isa: Isa; bitsPerWeight: number }[];
}

/** Reads of the weights that each repeat's memory peak is the best of. */
const PEAK_ROUNDS = 3;
const MAX_BATCH_TOKENS = 512;

/**
 * Measures prefill, decode and the memory peak in turn, `repeat` times, after one unmeasured turn.
 * Figures are medians.
 *
 * @throws {RangeError} If the shape is unknown, does not fit in memory, or an option is out of range.
 */
export async function runBench(options: BenchOptions): Promise<BenchReport> {
  const choice = options.kernels ?? "auto";
  if (choice === "reference") {
    throw new RangeError("Cannot measure --kernels reference: it is for checking, not for speed");
  }
  const source = await benchSource(options);
  const opened = await openKernels({ spec: source.spec, kvType: "f32", choice }, options);
  try {
    return await measure(source, opened, options);
  } finally {
    opened.library.close();
  }
}

type Write = (bytes: Uint8Array, offset: number) => void;

/** A model to measure: its shape, and how its weights get into memory. */
interface BenchSource {
  name: string;
  spec: ModelSpec;
  fill(layout: TernaryLayout, write: Write): Promise<void>;
}

async function benchSource({ shape, model }: BenchOptions): Promise<BenchSource> {
  if (shape !== undefined) {
    const spec = shapeOf(shape);
    return { name: shape, spec, fill: (layout, write) => fillMade(spec, layout, write) };
  }
  const path = model ?? embeddedModelFolder();
  await using checkpoint = await openCheckpoint(path);
  const { name, spec } = readModelConfig(checkpoint);
  return { name, spec, fill: (layout, write) => fillReal(path, layout, write) };
}

function fillMade(spec: ModelSpec, layout: TernaryLayout, write: Write): Promise<void> {
  fillSynthetic(spec, layout, write);
  return Promise.resolve();
}

async function fillReal(path: string, layout: TernaryLayout, write: Write): Promise<void> {
  await using checkpoint = await openCheckpoint(path);
  const config = readModelConfig(checkpoint);
  const weights = openWeights(config, checkpoint);
  await packModel(config.spec, weights, write, { layout });
}

async function measure(
  source: BenchSource,
  opened: OpenedKernels,
  options: BenchOptions,
): Promise<BenchReport> {
  const { spec } = source;
  const plan = planOf(spec, opened.kernel.scheme.layout);
  checkFits(source.name, plan.totalBytes);
  const memory = allocate(opened.library, plan.totalBytes);
  options.onProgress?.({ phase: "bench", message: `Making ${source.name} weights` });
  await source.fill(
    opened.kernel.scheme.layout,
    (bytes, at) => writeBytes(opened.library, memory, bytes, at),
  );
  const threads = options.threads ?? defaultThreads(opened.cpu);
  await using executor = startExecutor(spec, opened, memory, threads, options);
  const turns: Turn[] = [];
  for (let i = 0; i <= options.repeat; i++) {
    options.signal?.throwIfAborted();
    options.onProgress?.({
      phase: "bench",
      message: i === 0 ? "Warming up" : `Measuring ${i} of ${options.repeat}`,
    });
    const turn = await measureTurn(executor, memory, spec, options);
    if (i > 0) turns.push(turn);
  }
  return reportOf(source, opened, options, threads, turns);
}

function checkFits(name: string, bytes: number): void {
  const available = availableMemoryBytes();
  if (available === null || bytes < available * 0.95) return;
  throw new RangeError(
    `Cannot run ${name} as its weights need ${gigabytes(bytes)}: ${gigabytes(available)} are free`,
  );
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

/** The library stays the caller's; the executor gets one that it can't close. */
function startExecutor(
  spec: ModelSpec,
  { library, kernel }: OpenedKernels,
  weights: NativeMemory,
  threads: number,
  { promptTokens, genTokens }: BenchOptions,
): NativeExecutor {
  const contextSize = promptTokens + genTokens;
  const borrowed: ModelLibrary = { ...library, close: () => {} };
  const rope = ropeTables({ spec, ropeTheta: 10000, ropeScaling: null }, contextSize);
  return new NativeExecutor({
    library: borrowed,
    kernels: kernel.isa,
    threads,
    weights,
    vocabSize: spec.vocabSize,
    rope: joinedTables(rope),
    maxBatchTokens: Math.min(MAX_BATCH_TOKENS, contextSize),
    contextSize,
    kvBlocks: Math.ceil(contextSize / KV_BLOCK_POSITIONS),
  });
}

interface Turn {
  peakBytesPerSecond: number;
  prefillSeconds: number;
  decodeSeconds: number;
}

async function measureTurn(
  executor: NativeExecutor,
  memory: NativeMemory,
  spec: ModelSpec,
  { promptTokens, genTokens }: BenchOptions,
): Promise<Turn> {
  const peakNs = await executor.team.readPeakNs(memory, PEAK_ROUNDS);
  const prefillSeconds = await seconds(async () => {
    for (let from = 0; from < promptTokens; from += MAX_BATCH_TOKENS) {
      const count = Math.min(MAX_BATCH_TOKENS, promptTokens - from);
      await executor.step(batchOf(spec, from, count, promptTokens + genTokens));
    }
  });
  const decodeSeconds = await seconds(async () => {
    for (let i = 0; i < genTokens; i++) {
      await executor.step(batchOf(spec, promptTokens + i, 1, promptTokens + genTokens));
    }
  });
  return { peakBytesPerSecond: memory.bytes / (peakNs / 1e9), prefillSeconds, decodeSeconds };
}

async function seconds(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return (performance.now() - startedMs) / 1000;
}

/** Tokens from .. from + count of one sequence; logits of the last. */
function batchOf(spec: ModelSpec, from: number, count: number, contextSize: number): Batch {
  const tableStride = Math.ceil(contextSize / KV_BLOCK_POSITIONS);
  return {
    ids: Int32Array.from({ length: count }, (_, i) => (from + i) * 7919 % spec.vocabSize),
    positions: Int32Array.from({ length: count }, (_, i) => from + i),
    tablesOf: new Int32Array(count),
    logitRows: Int32Array.of(count - 1),
    logitCandidates: Int32Array.of(0),
    tables: Int32Array.from({ length: tableStride }, (_, i) => i),
    tableStride,
  };
}

function reportOf(
  { name, spec }: BenchSource,
  { kernel, cpu }: OpenedKernels,
  { promptTokens, genTokens }: BenchOptions,
  threads: number,
  turns: readonly Turn[],
): BenchReport {
  const { layout } = kernel.scheme;
  const plan = planOf(spec, layout);
  const prefill = rateOf(turns.map((turn) => promptTokens / turn.prefillSeconds));
  const decode = rateOf(turns.map((turn) => genTokens / turn.decodeSeconds));
  const weightBytesPerToken = plan.bytesPerToken;
  const fractions = turns.map((turn) =>
    weightBytesPerToken * genTokens / turn.decodeSeconds / turn.peakBytesPerSecond
  );
  const shapes = LINEAR_NAMES.map((linear) => linearShape(spec, linear));
  const macs = shapes.reduce((sum, { n, k }) => sum + n * k, 0) * spec.numHiddenLayers;
  return {
    shape: name,
    threads,
    cpu: cpu.modelName,
    prefill: {
      ...prefill,
      promptTokens,
      ternaryMacsPerSecondPerThread: prefill.tokensPerSecond * macs / threads,
    },
    decode: {
      ...decode,
      genTokens,
      weightBytesPerToken,
      bytesPerSecond: decode.tokensPerSecond * weightBytesPerToken,
    },
    memory: {
      peakReadBytesPerSecond: median(turns.map((turn) => turn.peakBytesPerSecond)),
      rooflineFraction: median(fractions),
      weightBytes: plan.totalBytes,
      peakRssBytes: peakRssBytes(),
    },
    kernels: uniqueShapes(shapes).map(({ n, k }) => ({
      op: "ternary_linear",
      n,
      k,
      scheme: kernel.scheme.name,
      isa: kernel.isa,
      bitsPerWeight: layout.packedBytes(n, k) * 8 / (n * k),
    })),
  };
}

/** Median and sample standard deviation. */
function rateOf(values: readonly number[]): Rate {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const stdev = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
  return { tokensPerSecond: median(values), stdev };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
