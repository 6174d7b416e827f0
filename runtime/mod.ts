/**
 * The model runtime: load a ternary model and generate text.
 *
 * ```ts
 * await using model = await loadModel("models/story");
 * for await (const piece of model.generate("Once upon a time", { maxTokens: 64 })) {
 *   console.log(piece.text);
 * }
 * ```
 *
 * @module
 */
export { loadModel } from "./engine.ts";
export { type EncodeOptions, loadTokenizer, type StreamingTokenizer } from "./tokenizer.ts";
export { embeddedModelFolder } from "./embedded.ts";
export { inspectModel } from "./inspect.ts";
export {
  type ComparedModel,
  compareModels,
  type CompareOptions,
  type CompareProgress,
  type CompareReport,
  type Estimate,
} from "./compare.ts";
export {
  perplexity,
  type PerplexityOptions,
  type PerplexityProgress,
  type PerplexityResult,
} from "./perplexity.ts";
export type { ChunkOptions, TextProgress } from "./text_chunks.ts";
export { type TextSource, textSource } from "./text_source.ts";
export { doctorReport } from "./doctor.ts";
export { clearKernels, kernelSources, listKernels } from "./kernel_reports.ts";
export { runBench } from "./bench.ts";
export { knownTunings, tuneModel } from "./tune.ts";
export { SHAPES } from "./shapes.ts";
export * from "./errors.ts";
export { POOLINGS } from "./pooling.ts";
export type * from "./types.ts";
export type * from "./reports.ts";
export * from "./grammar/types.ts";
