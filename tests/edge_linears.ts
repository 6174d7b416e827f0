/** Ternary linears of inconvenient shapes, without a model around them. */
import type { Shape } from "../codegen/ternary_linear/scheme.ts";
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { linearPrelude, linears } from "../codegen/ternary_linear/template.ts";
import { VOCABULARY } from "../kernels/vocabulary.ts";

/** Around the borders of tiles, blocks of 32 rows, packed groups, and slices of tables. */
const EDGES = [1, 2, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 100, 128, 192, 252, 253, 270];

export const EDGE_SHAPES: readonly Shape[] = [
  ...EDGES.map((k) => ({ n: 33, k })),
  ...EDGES.map((n) => ({ n, k: 17 })),
  // Sums that come near to what 16 bits hold, and the most rows and features of a known model.
  { n: 8, k: 8640 },
  { n: 192, k: 8640 },
  { n: 8640, k: 192 },
];

/** A library that has nothing but linears. */
export function linearsSources(
  { scheme }: TernaryKernel,
  shapes: readonly Shape[],
): Map<string, string> {
  const imports = `
const math = @import("math.zig");
const host = @import("host.zig");
comptime {
    _ = host;
}
`;
  const text = [imports, linearPrelude(scheme), linears(scheme, shapes)].join("\n");
  return new Map([...VOCABULARY, ["kernels.zig", text]]);
}
