import { shown } from "./errors.ts";
import type { SafetensorsType } from "./safetensors.ts";

/** Types of GGUF tensors that this version reads, beside those that safetensors files have too. */
export const GGML_TYPES = [
  "I2_S",
  "TQ1_0",
  "TQ2_0",
  "Q2_0",
  "PQ2_0",
  "PTQ1_0",
  "Q2_K",
  "Q3_K",
  "Q4_0",
  "Q4_1",
  "Q4_K",
  "Q5_0",
  "Q5_1",
  "Q5_K",
  "Q6_K",
  "Q8_0",
  "IQ4_NL",
  // None of GGUF's: Q2_0 with factors in bfloat16, see `mlx/matrix.ts`.
  "Q2_0_BF16",
] as const;
export type GgmlType = typeof GGML_TYPES[number];

/** A tensor of a checkpoint, as its file's header describes it. */
export interface TensorInfo {
  readonly dtype: SafetensorsType | GgmlType;
  /** Outermost first: (rows, columns). */
  readonly shape: readonly number[];
  /** First byte, from the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** @throws {RangeError} If a tensor has not so many bytes from byte `start` on. */
export function checkRange(
  name: string,
  { byteLength }: Pick<TensorInfo, "byteLength">,
  start: number,
  length: number,
): void {
  const isRange = Number.isSafeInteger(start) && Number.isSafeInteger(length) && start >= 0 &&
    length >= 0 && start + length <= byteLength;
  if (isRange) return;
  throw new RangeError(
    `Cannot read ${shown(name)}: bytes must lie within its ${byteLength}: ` +
      `current values are start ${start}, length ${length}`,
  );
}

/** A file of weights: what tells one state of it from another. */
export interface WeightFile {
  readonly path: string;
  readonly fileBytes: number;
  readonly modifiedMs: number;
  /** SHA-256 of the header, hexadecimal. */
  readonly headerSha256: string;
}
