/**
 * The float arithmetic of the generated kernels, slow and obvious: IEEE single precision with a
 * rounding after every operation and sums over 16 lanes with a fixed tree. Kernels fuse a multiply-add
 * only where the product is exact, see `shortened`.
 * `kernels/zig/math.zig` must give the same bits on every CPU.
 */
const f = Math.fround;

/** Lanes of every float reduction, whatever the CPU's registers hold. */
export const LANES = 16;

/** Adds 16 lanes as a tree: halves, quarters, pairs. */
export function treeSum(lanes: Float32Array): number {
  let width = LANES;
  const v = Float32Array.from(lanes);
  while (width > 1) {
    width /= 2;
    for (let i = 0; i < width; i++) v[i] = f(v[i] + v[i + width]);
  }
  return v[0];
}

/** Sum of term(i) for i < n: lane i % 16 adds its terms in order, then the tree. */
export function laneSum(n: number, term: (i: number) => number): number {
  const lanes = new Float32Array(LANES);
  for (let i = 0; i < n; i++) lanes[i % LANES] = f(lanes[i % LANES] + term(i));
  return treeSum(lanes);
}

/** Sum of a[i] * b[i], both of length n. */
export function dot(a: Float32Array, b: Float32Array): number {
  const lanes = new Float32Array(LANES);
  for (let i = 0; i < a.length; i++) {
    const lane = i & (LANES - 1);
    lanes[lane] = f(lanes[lane] + f(a[i] * b[i]));
  }
  return treeSum(lanes);
}

/** As `treeSum`, in double precision. */
export function treeSumWide(lanes: Float64Array): number {
  let width = LANES;
  const v = Float64Array.from(lanes);
  while (width > 1) {
    width /= 2;
    for (let i = 0; i < width; i++) v[i] += v[i + width];
  }
  return v[0];
}

/**
 * Sum of a[i] * b[i] in double precision, lane i % 16 adding its products in order. Where a rounding
 * error would be amplified (scores are exponents) or could tip an int8 rounding, sums are doubles.
 */
export function dotWide(a: Float32Array | Float64Array, b: Float32Array | Float64Array): number {
  const lanes = new Float64Array(LANES);
  for (let i = 0; i < a.length; i++) lanes[i % LANES] += a[i] * b[i];
  return treeSumWide(lanes);
}

const SHORTENED_LIMIT = 2 ** 100;
const SHORTENED_LEAST = 2 ** -60;
/** Of a float32's 24 significant bits, those that `shortened` rounds away. */
const SHORTENED_UNIT = 2 ** 11;

/**
 * The nearest number of 13 significant bits, ties to even, of a float32: its product with a number of
 * 11 bits is a float32. Zero where it is below 2^-60 in size; bounded by 2^100; NaN is -2^100.
 */
export function shortened(x: number): number {
  if (Number.isNaN(x)) return -SHORTENED_LIMIT;
  const bounded = Math.min(Math.max(x, -SHORTENED_LIMIT), SHORTENED_LIMIT);
  if (Math.abs(bounded) < SHORTENED_LEAST / 2) return 0;
  const ulp = 2 ** (Math.floor(Math.log2(Math.abs(bounded))) - 23);
  const unit = ulp * SHORTENED_UNIT;
  const rounded = roundHalfEvenWide(bounded / unit) * unit;
  return Math.abs(rounded) < SHORTENED_LEAST ? 0 : rounded;
}

/** 1.5 * 2^52: adding it leaves the nearest integer, ties to even, in a double's low bits. */
const WIDE_ROUND_MAGIC = 6755399441055744;

/** Nearest integer, ties to even, for doubles below 2^31 in size. */
export function roundHalfEvenWide(x: number): number {
  return x + WIDE_ROUND_MAGIC - WIDE_ROUND_MAGIC;
}

/** 1.5 * 2^23: adding it leaves the nearest integer, ties to even, in a float's low bits. */
const ROUND_MAGIC = 12582912;

/** Nearest integer, ties to even, for values below 2^22 in size. */
export function roundHalfEven(x: number): number {
  return f(f(x + ROUND_MAGIC) - ROUND_MAGIC);
}

const LOG2_E = f(1.44269504088896341);
const LN2_HIGH = f(0.693359375);
const LN2_LOW = f(-2.12194440e-4);
const EXP_POLYNOMIAL = [
  1.9875691500e-4,
  1.3981999507e-3,
  8.3334519073e-3,
  4.1665795894e-2,
  1.6666665459e-1,
  5.0000001201e-1,
].map(f);
const EXP_MIN = f(-87.3);
const EXP_MAX = f(88.3);

/** e^x to about 1 ulp of float32; x is clamped to [-87.3, 88.3]. Polynomial: Cephes, expf. */
export function exp(xIn: number): number {
  const x = Math.min(Math.max(xIn, EXP_MIN), EXP_MAX);
  const n = roundHalfEven(f(x * LOG2_E));
  const r = f(f(x - f(n * LN2_HIGH)) - f(n * LN2_LOW));
  let p = EXP_POLYNOMIAL[0];
  for (const c of EXP_POLYNOMIAL.slice(1)) p = f(f(p * r) + c);
  const y = f(f(f(p * f(r * r)) + r) + 1);
  return f(y * 2 ** n);
}
