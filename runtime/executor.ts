import type { Batch } from "../codegen/step/batch.ts";
import type { HeadKind } from "./types.ts";

/** Runs batches: the native kernels, or the reference in TypeScript. Same bits from both. */
export interface Executor extends AsyncDisposable {
  /** "avx512", ..., "reference". */
  readonly kernels: string;
  readonly threads: number;
  /** "two-stage" where the batch's `logitCandidates` are made use of. */
  readonly head: HeadKind;
  /** One call at a time. @returns Logits, (logitRows, vocabSize) float32, until the next step. */
  step(batch: Batch): Promise<Float32Array>;
  /** What the last step's `hiddenRows` asked for: (hiddenRows, hiddenSize) float32. */
  hiddenStates(): Float32Array;
}
