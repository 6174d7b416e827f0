/** What a model can be converted to: for flags, without what does it. */

export const CONVERT_FORMATS = ["gguf", "safetensors", "packed"] as const;
export type ConvertFormat = (typeof CONVERT_FORMATS)[number];

/** Types of ternary tensors of GGUF files. */
export const TERNARY_TYPES = ["tq1_0", "tq2_0", "q2_0", "pq2_0", "i2_s"] as const;
export type TernaryType = (typeof TERNARY_TYPES)[number];
