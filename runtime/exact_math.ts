/**
 * exp, log, sin and cos from + - * / alone. Math.exp and its kin differ in their last bits between
 * JavaScript engines; IEEE arithmetic does not, so these give the same bits everywhere. Errors are
 * below 1e-15 (relative; absolute for sin and cos), far below a float32's half ulp of 3e-8.
 *
 * Constants split in parts with trailing zeros: FreeBSD msun (e_rem_pio2.c, e_log.c).
 */

/** ln 2 in two parts; the first has 33 bits, so multiples up to 2^20 are exact. */
const LN2_HIGH = 6.93147180369123816490e-01;
const LN2_LOW = 1.90821492927058770002e-10;

/** pi / 2 in three parts, the first two of 33 bits. */
const HALF_PI_1 = 1.57079632673412561417e+00;
const HALF_PI_2 = 6.07710050630396597660e-11;
const HALF_PI_3 = 2.02226624879595063154e-21;

/** 1 / n! for n = 0 .. 19: factorials up to 18! are exact doubles, each quotient is rounded once. */
const INVERSE_FACTORIALS = factorials(19).map((factorial) => 1 / factorial);

function factorials(most: number): number[] {
  const values = [1];
  for (let n = 1; n <= most; n++) values.push(values[n - 1] * n);
  return values;
}

/** Sum of terms[i] * x^i by Horner's rule. */
function polynomial(x: number, terms: readonly number[]): number {
  let sum = 0;
  for (let i = terms.length - 1; i >= 0; i--) sum = sum * x + terms[i];
  return sum;
}

/** Powers of two by exact products. @param n An integer from -1000 to 1000. */
function powerOfTwo(n: number): number {
  let power = 1;
  const factor = n < 0 ? 0.5 : 2;
  for (let i = Math.abs(n); i > 0; i--) power *= factor;
  return power;
}

const EXP_TERMS = INVERSE_FACTORIALS.slice(0, 15);

/** e^x for |x| < 690. */
export function exactExp(x: number): number {
  const n = Math.round(x / (LN2_HIGH + LN2_LOW));
  const rest = (x - n * LN2_HIGH) - n * LN2_LOW;
  return polynomial(rest, EXP_TERMS) * powerOfTwo(n);
}

/** 2 / (2i + 1), the terms of log((1 + s) / (1 - s)) / s in s^2. */
const LOG_TERMS = Array.from({ length: 14 }, (_, i) => 2 / (2 * i + 1));
const SQRT_2 = 1.4142135623730951;

/** Natural logarithm of a normal positive number. */
export function exactLog(x: number): number {
  let mantissa = x;
  let exponent = 0;
  for (; mantissa > SQRT_2; exponent++) mantissa *= 0.5;
  for (; mantissa < SQRT_2 / 2; exponent--) mantissa *= 2;
  const s = (mantissa - 1) / (mantissa + 1);
  return exponent * LN2_HIGH + (s * polynomial(s * s, LOG_TERMS) + exponent * LN2_LOW);
}

/** base^exponent for base >= 1. */
export function exactPow(base: number, exponent: number): number {
  return exactExp(exponent * exactLog(base));
}

/** (-1)^i / (2i)! and (-1)^i / (2i + 1)!, terms of cos(x) and sin(x) / x in x^2. */
const COS_TERMS = Array.from({ length: 10 }, (_, i) => signOf(i) * INVERSE_FACTORIALS[2 * i]);
const SIN_TERMS = Array.from({ length: 10 }, (_, i) => signOf(i) * INVERSE_FACTORIALS[2 * i + 1]);

function signOf(i: number): number {
  return i % 2 === 0 ? 1 : -1;
}

/** Largest angle: its quarter turns, times a 33-bit part of pi / 2, are exact. */
export const MAX_ANGLE = 2 ** 20;

/** Sine and cosine of 0 <= x <= MAX_ANGLE. @throws {RangeError} Beyond that. */
export function exactSinCos(x: number): { sin: number; cos: number } {
  if (!(x >= 0 && x <= MAX_ANGLE)) {
    throw new RangeError(
      `Cannot compute a sine as the angle must lie in 0..${MAX_ANGLE}: current value is ${x}`,
    );
  }
  const turns = Math.round(x / HALF_PI_1);
  const rest = ((x - turns * HALF_PI_1) - turns * HALF_PI_2) - turns * HALF_PI_3;
  const square = rest * rest;
  const sin = rest * polynomial(square, SIN_TERMS);
  const cos = polynomial(square, COS_TERMS);
  switch (turns % 4) {
    case 0:
      return { sin, cos };
    case 1:
      return { sin: cos, cos: -sin };
    case 2:
      return { sin: -sin, cos: -cos };
    default:
      return { sin: -cos, cos: sin };
  }
}
