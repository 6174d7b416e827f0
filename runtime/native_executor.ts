import type { Batch } from "../codegen/step/batch.ts";
import type { Pointer } from "../kernels/ffi.ts";
import {
  allocate,
  bytesOf,
  mapFile,
  type ModelLibrary,
  NativeModel,
  type NativeModelOptions,
  NativeTeam,
} from "../kernels/native_model.ts";
import { pointerAt } from "../kernels/ffi.ts";
import type { Executor } from "./executor.ts";
import { HEADER_BYTES, type PackedFile, readPackedData } from "./packed_file.ts";

/** Packed weights in native memory. */
export interface NativeWeights {
  pointer: Pointer;
  release(): void;
}

/** Maps a packed file; where the system can't map, reads it into memory. */
export async function loadWeights(
  library: ModelLibrary,
  file: PackedFile,
): Promise<NativeWeights> {
  const mapped = mapFile(library, file.path, HEADER_BYTES + file.dataBytes);
  if (mapped !== null) {
    return { pointer: pointerAt(mapped.pointer, HEADER_BYTES), release: () => mapped.release() };
  }
  const memory = allocate(library, file.dataBytes);
  bytesOf(memory).set(await readPackedData(file));
  return memory;
}

export interface NativeExecutorOptions extends Omit<NativeModelOptions, "team" | "weights"> {
  /** Name of the kernels, for people. */
  kernels: string;
  threads: number;
  weights: NativeWeights;
}

/** Runs the generated kernels. Owns the team, the model's memory, the weights and the library. */
export class NativeExecutor implements Executor {
  readonly kernels: string;
  readonly threads: number;
  readonly team: NativeTeam;
  readonly #options: NativeExecutorOptions;
  readonly #model: NativeModel;
  #running: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(options: NativeExecutorOptions) {
    this.#options = options;
    this.kernels = options.kernels;
    this.threads = options.threads;
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
