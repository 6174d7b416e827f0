/** Ternary linears of inconvenient shapes, without a model around them. */
import type { Groups } from "../codegen/model_spec.ts";
import type { Shape } from "../codegen/ternary_linear/scheme.ts";

/** Around the borders of tiles, groups of packed codes, words of 9 and 10 and slices of 240 to 252 features. */
const FEATURES = [1, 9, 15, 16, 17, 31, 33, 49, 100, 241, 253, 270];

/** Around the borders of tiles and of one, two and four blocks of 32 rows. */
const ROWS = [1, 15, 16, 17, 31, 32, 64, 65, 100, 129];

export const EDGE_SHAPES: readonly Shape[] = [
  ...FEATURES.map((k) => ({ n: 33, k })),
  ...ROWS.map((n) => ({ n, k: 17 })),
  // Sums that come near to what 16 bits hold, and the most rows and features of a known model.
  { n: 8, k: 8640 },
  { n: 192, k: 8640 },
  { n: 8640, k: 192 },
];

/** Groups, whole and cut, of each type of factors and without; larger ones than are unpacked at once. */
export const GROUPS: readonly Groups[] = [
  { size: 128, weightScales: true, scaleType: "f16" },
  { size: 32, weightScales: false },
  { size: 1024, weightScales: true, scaleType: "bf16" },
  { size: 64, weightScales: true },
];

/** Around the borders of tiles and blocks, and of groups; more than one of the largest. */
export const GROUP_SHAPES: readonly Shape[] = [
  { n: 33, k: 1 },
  { n: 33, k: 140 },
  { n: 65, k: 256 },
  { n: 7, k: 2100 },
];
