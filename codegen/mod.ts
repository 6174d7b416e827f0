/**
 * Code generation: from a model's shapes and an instruction set to Zig source. Pure.
 *
 * @module
 */
export * from "./isa.ts";
export * from "./model_spec.ts";
export * from "./plan.ts";
export { BLOCK_ROWS, type NativeLayout, packMatrix, type TernaryLayout } from "./layouts/layout.ts";
export { LOOKUP10, LOOKUP48, LOOKUP9 } from "./layouts/lookup.ts";
export { ROWS32 } from "./layouts/rows32.ts";
export { ABI_VERSION, type StepOptions } from "./step/context.ts";
export { stepSource } from "./step/template.ts";
export { STEP_PHASES, type StepPhase } from "./step/phases.ts";
export { type Batch, encodeBatch } from "./step/batch.ts";
export { KV_BLOCK_POSITIONS, kvBlockBytes } from "./attention/cache.ts";
export { ReferenceStep, type RopeTables, type Tap } from "./step/reference.ts";
export type { InputBuffer, Scheme } from "./ternary_linear/scheme.ts";
export {
  defaultKernel,
  kernelName,
  kernelsFor,
  LAYOUTS,
  TERNARY_KERNELS,
  type TernaryKernel,
  ternaryKernel,
} from "./ternary_linear/spec.ts";
export { ternaryLinear } from "./ternary_linear/reference.ts";
