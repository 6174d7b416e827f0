import type { TernaryLayout } from "../layouts/layout.ts";

/**
 * y[t, row] = sum over k of W[row, k] * x[t, k]: what every ternary_linear kernel computes, bit for
 * bit. Integers, so there is one right answer.
 *
 * @param packed W, (n, k), in `layout`.
 * @param x Activations of one token, (k,) int8.
 * @returns (n,) int32, unscaled.
 *
 * Source: BitNet b1.58, arXiv 2402.17764, section 2.
 */
export function ternaryLinear(
  layout: TernaryLayout,
  packed: Uint8Array,
  n: number,
  k: number,
  x: Int8Array,
  rows: { first: number; last: number } = { first: 0, last: n },
): Int32Array {
  const y = new Int32Array(rows.last - rows.first);
  for (let row = rows.first; row < rows.last; row++) {
    y[row - rows.first] = ternaryDot(layout.unpackRow(packed, n, k, row), x);
  }
  return y;
}

/** Sum of (code - 1) * x. Codes and activations of length k. */
export function ternaryDot(codes: Uint8Array, x: Int8Array): number {
  let sum = 0;
  for (let i = 0; i < codes.length; i++) sum += (codes[i] - 1) * x[i];
  return sum;
}
