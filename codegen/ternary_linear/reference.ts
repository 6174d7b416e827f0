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

/**
 * What a row of weights gives where inputs are rounded by groups of `size` features. In float32, over the
 * groups in order, from 0 on:
 *
 *     y += round(round(exact sum of the group * inverses[group]) * factors[group])
 *
 * and every addition is rounded too. Where weights have no factors by group, the inner product is the
 * term. A group's sum is an exact float32, as |sum| <= 128 * size < 2^24; so the order of its terms is
 * of no account, and batch, tiles and threads can't change a bit.
 *
 * @param codes A row's codes, (k,).
 * @param x Activations of one token, (k,) int8.
 * @param inverses (ceil(k / size),) float32.
 * @param factors (ceil(k / size),) float32, or null.
 */
export function groupedDot(
  codes: Uint8Array,
  x: Int8Array,
  size: number,
  inverses: Float32Array,
  factors: Float32Array | null,
): number {
  const f = Math.fround;
  let y = 0;
  for (let from = 0, g = 0; from < codes.length; from += size, g++) {
    const exact = ternaryDot(codes.subarray(from, from + size), x.subarray(from, from + size));
    const term = f(exact * inverses[g]);
    y = f(y + (factors === null ? term : f(term * factors[g])));
  }
  return y;
}

/** Sum of (code - 1) * x. Codes and activations of length k. */
export function ternaryDot(codes: Uint8Array, x: Int8Array): number {
  let sum = 0;
  for (let i = 0; i < codes.length; i++) sum += (codes[i] - 1) * x[i];
  return sum;
}
