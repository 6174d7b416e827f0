import type { Batch } from "../codegen/step/batch.ts";
import { ReferenceStep, type RopeTables } from "../codegen/step/reference.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import type { Executor } from "./executor.ts";

/** `--kernels reference`: no compiler, no native code, and no speed. */
export class ReferenceExecutor implements Executor {
  readonly kernels = "reference";
  readonly threads = 1;
  readonly head = "full";
  readonly reference: ReferenceStep;

  constructor(spec: ModelSpec, packed: Uint8Array, rope: RopeTables, kvType: KvType) {
    this.reference = new ReferenceStep(spec, packed, rope, kvType);
  }

  async step(batch: Batch): Promise<Float32Array> {
    // One turn of the event loop a step, so that signals and timers run.
    await new Promise((resolve) => setTimeout(resolve));
    return this.reference.step(batch);
  }

  hiddenStates(): Float32Array {
    return this.reference.hiddenStates;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
