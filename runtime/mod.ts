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
export { loadTokenizer } from "./tokenizer.ts";
export { embeddedModelFolder } from "./embedded.ts";
export * from "./errors.ts";
export type * from "./types.ts";
