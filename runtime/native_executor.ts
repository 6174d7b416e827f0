import type { Batch } from "../codegen/step/batch.ts";
import type { StepPhase } from "../codegen/step/phases.ts";
import {
  allocate,
  mapFile,
  type ModelLibrary,
  type NativeMemory,
  NativeModel,
  type NativeModelOptions,
  NativeTeam,
  openModelLibrary,
  type PhaseTime,
  writeBytes,
} from "../kernels/native_model.ts";
import type { Executor } from "./executor.ts";
import type { HeadKind } from "./types.ts";
import { HEADER_BYTES, type PackedFile, packedPieces } from "./packed_file.ts";

/** Maps a packed file; where the system can't map, reads it into memory, a piece at a time. */
export async function loadWeights(
  library: ModelLibrary,
  file: PackedFile,
): Promise<NativeMemory> {
  const { path, dataBytes: bytes } = file;
  const mapped = mapFile(library, path, { offset: HEADER_BYTES, bytes });
  if (mapped !== null) return mapped;
  const memory = allocate(library, file.dataBytes);
  try {
    for await (const { at, piece } of packedPieces(file)) writeBytes(library, memory, piece, at);
    return memory;
  } catch (error) {
    memory.release();
    throw error;
  }
}

export interface NativeExecutorOptions extends Omit<NativeModelOptions, "team" | "weights"> {
  /** Name of the kernels, for people. */
  kernels: string;
  threads: number;
  /** "two-stage" where the packed weights have a sketch of the head. */
  head: HeadKind;
  /** Packed weights, given back with the rest. */
  weights: NativeMemory;
}

/**
 * A compiled library with packed weights that are in memory already, which are copied.
 *
 * @param path The library.
 */
export function openPacked(
  path: string,
  packed: Uint8Array,
  options: Omit<NativeExecutorOptions, "library" | "weights">,
): NativeExecutor {
  const library = openModelLibrary(path);
  const weights = allocate(library, packed.length);
  writeBytes(library, weights, packed);
  return new NativeExecutor({ ...options, library, weights });
}

/** Runs the generated kernels. Owns the team, the model's memory, the weights and the library. */
export class NativeExecutor implements Executor {
  readonly kernels: string;
  readonly threads: number;
  readonly head: HeadKind;
  readonly team: NativeTeam;
  readonly #options: NativeExecutorOptions;
  readonly #model: NativeModel;
  #running: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(options: NativeExecutorOptions) {
    this.#options = options;
    this.kernels = options.kernels;
    this.threads = options.threads;
    this.head = options.head;
    this.team = new NativeTeam(options.library, options.threads);
    try {
      const weights = options.weights.pointer;
      this.#model = new NativeModel({ ...options, team: this.team, weights });
    } catch (error) {
      this.team.destroy();
      throw error;
    }
  }

  step(batch: Batch): Promise<Float32Array> {
    const step = this.#model.step(batch);
    this.#running = step.catch(() => {});
    return step;
  }

  hiddenStates(): Float32Array {
    return this.#model.hiddenStates();
  }

  /** Gives the KV cache's first blocks made-up keys and values, to measure decoding beyond them. */
  fillCache(blocks: number): void {
    this.#model.fillCache(blocks);
  }

  /** Native bytes of buffers and cache, touched or not; weights are beside them. */
  get memoryBytes(): number {
    return this.#model.memoryBytes;
  }

  /** Rows of the head that were scored exactly after its sketch, in all steps so far. */
  get rescoredRows(): number {
    return this.#model.rescoredRows;
  }

  /**
   * Runs `work` and tells how long its steps were in each phase. No other step may be under way.
   */
  async profile(work: () => Promise<void>): Promise<Map<StepPhase, PhaseTime>> {
    this.#model.startProfile();
    try {
      await work();
    } finally {
      await this.#running;
    }
    return this.#model.stopProfile();
  }

  /** Waits for the step under way; memory goes only when nothing uses it any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#running;
    this.#model.destroy();
    this.team.destroy();
    this.#options.weights.release();
    this.#options.library.close();
  }
}
