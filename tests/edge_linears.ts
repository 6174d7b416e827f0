/** Ternary linears of inconvenient shapes, without a model around them. */
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
