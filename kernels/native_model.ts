import { type Batch, encodeBatch } from "../codegen/step/batch.ts";
import { STEP_PHASE_NAMES, type StepPhase } from "../codegen/step/phases.ts";
import { ABI_VERSION } from "../codegen/step/context.ts";
import { type NativeLibrary, openLibrary, type Pointer } from "./ffi.ts";

/** What every generated library exports, even one without a model. */
export const HOST_SYMBOLS = {
  trilith_alloc: { parameters: ["u64"], result: "pointer" },
  trilith_free: { parameters: ["pointer", "u64"], result: "void" },
  trilith_write: { parameters: ["pointer", "u64", "buffer", "u64"], result: "void" },
  trilith_map_file: { parameters: ["buffer", "u64", "u64"], result: "pointer" },
  trilith_unmap: { parameters: ["pointer", "u64"], result: "void" },
  trilith_team_create: { parameters: ["i32"], result: "pointer" },
  trilith_team_destroy: { parameters: ["pointer"], result: "void" },
  trilith_read_peak: {
    parameters: ["pointer", "pointer", "u64", "i32"],
    result: "u64",
    async: true,
  },
} as const;

/** What every model's library exports, whatever its model. */
export const MODEL_SYMBOLS = {
  ...HOST_SYMBOLS,
  trilith_abi: { parameters: [], result: "i32" },
  trilith_probe: { parameters: [], result: "i32" },
  trilith_model_create: {
    parameters: ["pointer", "pointer", "i32", "i32", "i32", "buffer"],
    result: "pointer",
  },
  trilith_model_destroy: { parameters: ["pointer"], result: "void" },
  trilith_fill_cache: { parameters: ["pointer", "i32"], result: "void" },
  trilith_model_bytes: { parameters: ["pointer"], result: "u64" },
  trilith_rescored: { parameters: ["pointer"], result: "u64" },
  trilith_hidden: { parameters: ["pointer", "i32", "i32", "buffer"], result: "void" },
  trilith_step: { parameters: ["pointer", "buffer", "buffer"], result: "i32", async: true },
  trilith_profile_start: { parameters: ["pointer"], result: "void" },
  trilith_profile_stop: { parameters: ["pointer", "buffer"], result: "void" },
} as const;

export type HostLibrary = NativeLibrary<typeof HOST_SYMBOLS>;
export type ModelLibrary = NativeLibrary<typeof MODEL_SYMBOLS>;

/**
 * Opens a compiled library.
 *
 * @throws {Error} If it was made for another version of this program.
 */
export function openModelLibrary(path: string): ModelLibrary {
  const library = openLibrary(path, MODEL_SYMBOLS);
  const abi = library.symbols.trilith_abi();
  if (abi !== ABI_VERSION) {
    library.close();
    throw new Error(
      `Cannot use ${path} as this program needs interface ${ABI_VERSION}` +
        `: current value is ${abi}, remove the file so that it is rebuilt`,
    );
  }
  return library;
}

/** Native memory that is given back once. */
export interface NativeMemory {
  readonly pointer: Pointer;
  readonly bytes: number;
  release(): void;
}

/** Offsets into mapped files are multiples of this: every system's page size divides it. */
export const MAP_ALIGNMENT = 65536;

/** Part of a file, mapped read-only and shared between processes; null where the system can't map. */
export function mapFile(
  library: HostLibrary,
  path: string,
  { offset, bytes }: { offset: number; bytes: number },
): NativeMemory | null {
  const name = new TextEncoder().encode(`${path}\0`);
  const pointer = library.symbols.trilith_map_file(name, BigInt(bytes), BigInt(offset));
  if (pointer === null) return null;
  return {
    pointer,
    bytes,
    release: () => library.symbols.trilith_unmap(pointer, BigInt(bytes)),
  };
}

/**
 * Zeroed memory in large pages, touched only where it is written.
 *
 * @throws {Error} If the system has no room.
 */
export function allocate(library: HostLibrary, bytes: number): NativeMemory {
  const pointer = library.symbols.trilith_alloc(BigInt(bytes));
  if (pointer === null) {
    throw new Error(
      `Cannot allocate ${
        (bytes / 1e9).toFixed(2)
      } GB: the system refused, use a smaller --ctx or model`,
    );
  }
  return {
    pointer,
    bytes,
    release: () => library.symbols.trilith_free(pointer, BigInt(bytes)),
  };
}

/** Copies bytes into native memory. */
export function writeBytes(
  library: HostLibrary,
  memory: NativeMemory,
  bytes: Uint8Array,
  offset = 0,
): void {
  if (offset < 0 || offset + bytes.length > memory.bytes) {
    throw new RangeError(
      `Cannot write bytes ${offset} to ${offset + bytes.length} of a memory of ${memory.bytes}`,
    );
  }
  if (bytes.length === 0) return;
  library.symbols.trilith_write(memory.pointer, BigInt(offset), bytes, BigInt(bytes.length));
}

/** A team of native threads. */
export class NativeTeam {
  readonly pointer: Pointer;
  constructor(private readonly library: HostLibrary, readonly threads: number) {
    const pointer = library.symbols.trilith_team_create(threads);
    if (pointer === null) {
      throw new Error(`Cannot start ${threads} threads: the system refused, use fewer --threads`);
    }
    this.pointer = pointer;
  }

  /** Nanoseconds that all threads need to read `memory` once, the best of `rounds`. */
  async readPeakNs(memory: NativeMemory, rounds: number): Promise<number> {
    const bytes = BigInt(memory.bytes);
    return Number(
      await this.library.symbols.trilith_read_peak(this.pointer, memory.pointer, bytes, rounds),
    );
  }

  destroy(): void {
    this.library.symbols.trilith_team_destroy(this.pointer);
  }
}

/** Time of thread 0 in a phase of steps; together the phases are the whole time of the steps. */
export interface PhaseTime {
  workSeconds: number;
  /** At the barrier after it, for other threads. */
  waitSeconds: number;
}

export interface NativeModelOptions {
  library: ModelLibrary;
  team: NativeTeam;
  /** Start of the packed data. */
  weights: Pointer;
  vocabSize: number;
  hiddenSize: number;
  maxBatchTokens: number;
  contextSize: number;
  kvBlocks: number;
  /** cos then sin, (contextSize, headDim / 2) each. */
  rope: Float32Array;
}

/** A model in native memory: weights are the caller's, KV cache and buffers its own. */
export class NativeModel {
  readonly #options: NativeModelOptions;
  readonly #pointer: Pointer;
  #logits = new Float32Array(1);
  #lastBatch: Batch | null = null;

  constructor(options: NativeModelOptions) {
    this.#options = options;
    const { library, team, weights, maxBatchTokens, contextSize, kvBlocks, rope } = options;
    const pointer = library.symbols.trilith_model_create(
      weights,
      team.pointer,
      maxBatchTokens,
      contextSize,
      kvBlocks,
      rope,
    );
    if (pointer === null) {
      throw new Error(
        `Cannot allocate the KV cache for ${contextSize} tokens: the system refused, use a smaller --ctx`,
      );
    }
    this.#pointer = pointer;
  }

  /**
   * Runs a batch off the event loop. One call at a time.
   *
   * @returns Logits, (logitRows, vocabSize) float32, until the next step.
   */
  async step(batch: Batch): Promise<Float32Array<ArrayBuffer>> {
    const { library, vocabSize } = this.#options;
    const count = batch.logitRows.length * vocabSize;
    this.#lastBatch = batch;
    // Kept: half a megabyte of new pages for each row of a large vocabulary took 200 us a token.
    if (this.#logits.length < count) this.#logits = new Float32Array(count);
    await library.symbols.trilith_step(this.#pointer, encodeBatch(batch), this.#logits);
    return this.#logits.subarray(0, count);
  }

  /** (hiddenRows, hiddenSize) of the last step. */
  hiddenStates(): Float32Array<ArrayBuffer> {
    const { library, hiddenSize } = this.#options;
    const { logitRows, hiddenRows } = this.#lastBatch ?? {};
    const count = hiddenRows?.length ?? 0;
    const states = new Float32Array(count * hiddenSize);
    library.symbols.trilith_hidden(this.#pointer, logitRows?.length ?? 0, count, states);
    return states;
  }

  /** Gives the cache's first blocks made-up keys and values, in place of computing some. */
  fillCache(blocks: number): void {
    this.#options.library.symbols.trilith_fill_cache(this.#pointer, blocks);
  }

  /** From now on the time of steps is divided into phases, until `stopProfile`. Between steps only. */
  startProfile(): void {
    this.#options.library.symbols.trilith_profile_start(this.#pointer);
  }

  /** Native bytes of its buffers and its cache, touched or not. */
  get memoryBytes(): number {
    return Number(this.#options.library.symbols.trilith_model_bytes(this.#pointer));
  }

  /** Rows of the head that were scored exactly after its sketch, in all steps so far. */
  get rescoredRows(): number {
    return Number(this.#options.library.symbols.trilith_rescored(this.#pointer));
  }

  /** How long the steps since `startProfile` were in each phase. */
  stopProfile(): Map<StepPhase, PhaseTime> {
    const seconds = new Float64Array(2 * STEP_PHASE_NAMES.length);
    this.#options.library.symbols.trilith_profile_stop(this.#pointer, seconds);
    return new Map(STEP_PHASE_NAMES.map((name, i) => {
      return [name, { workSeconds: seconds[2 * i], waitSeconds: seconds[2 * i + 1] }];
    }));
  }

  destroy(): void {
    this.#options.library.symbols.trilith_model_destroy(this.#pointer);
  }
}
