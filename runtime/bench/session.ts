import { kvCacheBytes } from "../../codegen/attention/cache.ts";
import type { KvType, ModelSpec } from "../../codegen/model_spec.ts";
import { headOf, type PackedPlan, planOf } from "../../codegen/plan.ts";
import type { Batch } from "../../codegen/step/batch.ts";
import { type OpenedKernels, openKernels } from "../../kernels/choose.ts";
import { defaultThreads } from "../../kernels/cpu.ts";
import {
  allocate,
  type ModelLibrary,
  type NativeMemory,
  writeBytes,
} from "../../kernels/native_model.ts";
import { SequenceMemory } from "../block_pool.ts";
import { DEFAULT_KV_TYPE, kvBytesPerPosition } from "../kv_cache.ts";
import { availableMemoryBytes } from "../memory.ts";
import { NativeExecutor } from "../native_executor.ts";
import type { HeadKind } from "../types.ts";
import { openPacker } from "../ternary_packer.ts";
import { joinedTables, ropeTables } from "../rope.ts";
import { type BenchSource, benchSource } from "./source.ts";
import { contextTokensOf } from "./turns.ts";
import type { BenchOptions } from "./types.ts";

/** Most tokens of one prefill step. */
export const MAX_BATCH_TOKENS = 512;

/** A model in memory that is ready to be measured. */
export class BenchSession implements AsyncDisposable {
  #leastReadSeconds = Infinity;

  private constructor(
    readonly source: BenchSource,
    readonly opened: OpenedKernels,
    readonly plan: PackedPlan,
    readonly kvType: KvType,
    readonly executor: NativeExecutor,
    private readonly memory: NativeMemory,
    private readonly tableStride: number,
    readonly head: HeadKind,
  ) {}

  /**
   * @param given A model that is none of the options' shapes.
   * @throws {RangeError} If the shape is unknown, does not fit in memory, or an option is out of range.
   */
  static async open(options: BenchOptions, given?: BenchSource): Promise<BenchSession> {
    const choice = options.kernels ?? "auto";
    if (choice === "reference") {
      throw new RangeError("Cannot measure --kernels reference: it is for checking, not for speed");
    }
    const source = given ?? await benchSource(options);
    const kvType = options.kvType ?? DEFAULT_KV_TYPE;
    const opened = await openKernels(
      { ...options, model: source.name, spec: source.spec, kvType, choice },
      options,
    );
    try {
      return await BenchSession.#load(source, opened, kvType, options);
    } catch (error) {
      opened.library.close();
      throw error;
    }
  }

  static async #load(
    source: BenchSource,
    opened: OpenedKernels,
    kvType: KvType,
    options: BenchOptions,
  ): Promise<BenchSession> {
    const { layout } = opened.kernel.scheme;
    const plan = planOf(source.spec, layout);
    const cacheBytes = kvCacheBytes(source.spec, kvType, cacheBlocks(options));
    checkFits(source.name, plan.totalBytes + cacheBytes);
    const memory = allocate(opened.library, plan.totalBytes);
    try {
      options.onProgress?.({ phase: "bench", message: `Making ${source.name} weights` });
      const threads = options.threads ?? defaultThreads(opened.cpu);
      using packer = openPacker(opened.packerPath, layout, threads);
      await source.fill(packer, (bytes, at) => writeBytes(opened.library, memory, bytes, at));
      const tableStride = SequenceMemory.blocksFor(positionsOf(options));
      const executor = startExecutor(source.spec, opened, memory, options);
      if (options.context !== undefined) executor.fillCache(tableStride);
      const head = options.head === "full" ? "full" : executor.head;
      return new BenchSession(source, opened, plan, kvType, executor, memory, tableStride, head);
    } catch (error) {
      memory.release();
      throw error;
    }
  }

  get spec(): ModelSpec {
    return this.source.spec;
  }

  get threads(): number {
    return this.executor.threads;
  }

  /** Bytes of one position's keys and values in all layers. */
  get kvBytesPerPosition(): number {
    return kvBytesPerPosition(this.spec, this.kvType);
  }

  /** Seconds in which the team reads all weights once, and does nothing else. */
  async readSeconds(): Promise<number> {
    const seconds = await this.executor.team.readPeakNs(this.memory, 1) / 1e9;
    this.#leastReadSeconds = Math.min(this.#leastReadSeconds, seconds);
    return seconds;
  }

  /** Bytes a second of the fastest such read so far. */
  get bestReadBytesPerSecond(): number {
    return this.memory.bytes / this.#leastReadSeconds;
  }

  /** Tokens 0 .. count of one sequence, in steps as large as they may be. @returns The last's logits. */
  async prefillAll(count: number): Promise<Float32Array> {
    let logits: Float32Array = new Float32Array(0);
    for (let from = 0; from < count; from += MAX_BATCH_TOKENS) {
      logits = await this.#prefill(from, Math.min(MAX_BATCH_TOKENS, count - from));
    }
    return logits;
  }

  #prefill(from: number, count: number): Promise<Float32Array> {
    const tokens = Array.from({ length: count }, (_, i) => [0, from + i] as const);
    return this.executor.step(this.#batch(tokens));
  }

  /** One token at `position` of each of the first sequences. @returns Logits of all. */
  decode(position: number, sequences = 1): Promise<Float32Array> {
    const tokens = Array.from(
      { length: sequences },
      (_, sequence) => [sequence, position] as const,
    );
    return this.executor.step(this.#batch(tokens));
  }

  /** Logits of each sequence's last token. */
  #batch(tokens: readonly (readonly [sequence: number, position: number])[]): Batch {
    const sequences = tokens[tokens.length - 1][0] + 1;
    const logitRows = tokens.flatMap(([sequence], i) => tokens[i + 1]?.[0] === sequence ? [] : [i]);
    return {
      ids: Int32Array.from(tokens, ([s, position]) => (s + position) * 7919 % this.spec.vocabSize),
      positions: Int32Array.from(tokens, ([, position]) => position),
      tablesOf: Int32Array.from(tokens, ([sequence]) => sequence),
      logitRows: Int32Array.from(logitRows),
      logitCandidates: new Int32Array(logitRows.length).fill(this.head === "full" ? 0 : 1),
      tables: Int32Array.from({ length: sequences * this.tableStride }, (_, i) => i),
      tableStride: this.tableStride,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.executor[Symbol.asyncDispose]();
    this.opened.library.close();
  }
}

/** Positions of the longest sequence. */
function positionsOf(options: BenchOptions): number {
  return Math.max(options.promptTokens, contextTokensOf(options)) + options.genTokens;
}

/** KV blocks of all sequences that decode together. */
function cacheBlocks(options: BenchOptions): number {
  return Math.max(1, ...options.batch ?? []) * SequenceMemory.blocksFor(positionsOf(options));
}

function checkFits(name: string, bytes: number): void {
  const available = availableMemoryBytes();
  if (available === null || bytes < available * 0.95) return;
  throw new RangeError(
    `Cannot run ${name} as its weights and KV cache need ${gigabytes(bytes)}: ${
      gigabytes(available)
    } are free`,
  );
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

/** The library stays the session's; the executor gets one that it can't close. */
function startExecutor(
  spec: ModelSpec,
  { library, kernel, cpu }: OpenedKernels,
  weights: NativeMemory,
  options: BenchOptions,
): NativeExecutor {
  const contextSize = positionsOf(options);
  const borrowed: ModelLibrary = { ...library, close: () => {} };
  const rope = ropeTables({ spec, ropeTheta: 10000, ropeScaling: null }, contextSize);
  return new NativeExecutor({
    library: borrowed,
    kernels: kernel.isa,
    head: headOf(spec),
    threads: options.threads ?? defaultThreads(cpu),
    weights,
    vocabSize: spec.vocabSize,
    hiddenSize: spec.hiddenSize,
    rope: joinedTables(rope),
    maxBatchTokens: Math.max(Math.min(MAX_BATCH_TOKENS, contextSize), ...options.batch ?? []),
    contextSize,
    kvBlocks: cacheBlocks(options),
  });
}
