import assert from "node:assert/strict";
import fc from "fast-check";
import { exactExp, exactLog, exactPow, exactSinCos, MAX_ANGLE } from "./exact_math.ts";

/** Math.* is right to about one unit in the last place: 2.2e-16. */
const ERROR = 1e-15;

function near(actual: number, expected: number, size = Math.abs(expected)): void {
  assert.ok(Math.abs(actual - expected) <= ERROR * size, `${actual} is not ${expected}`);
}

Deno.test("exactExp and exactLog agree with Math's", () => {
  fc.assert(
    fc.property(fc.double({ min: -30, max: 30, noNaN: true }), (x) => {
      near(exactExp(x), Math.exp(x));
    }),
  );
  fc.assert(
    fc.property(fc.double({ min: 1e-300, max: 1e300, noNaN: true }), (x) => {
      // Close to 1 the logarithm is small, and so is what is left of it.
      near(exactLog(x), Math.log(x), Math.max(Math.abs(Math.log(x)), 1e-3));
    }),
  );
  assert.equal(exactLog(1), 0);
  assert.equal(exactExp(0), 1);
});

Deno.test("exactPow agrees with Math.pow to 14 digits", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 1, max: 1e9, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (base, exponent) => {
        const expected = Math.pow(base, exponent);
        assert.ok(Math.abs(exactPow(base, exponent) - expected) <= 1e-14 * expected);
      },
    ),
  );
});

function checkSinCos(x: number): void {
  const { sin, cos } = exactSinCos(x);
  near(sin, Math.sin(x), 1);
  near(cos, Math.cos(x), 1);
}

Deno.test("exactSinCos agrees with Math's over its whole range", () => {
  const angle = fc.double({ min: 0, max: MAX_ANGLE, noNaN: true }).map(Math.fround);
  fc.assert(fc.property(angle, checkSinCos), { numRuns: 2000 });
  for (let i = 0; i < 2000; i++) checkSinCos(i / 64);
  checkSinCos(MAX_ANGLE);
});

Deno.test("exactSinCos keeps its digits near multiples of pi / 2", () => {
  for (let quarter = 1; quarter < 600_000; quarter += 997) {
    const x = Math.fround(quarter * Math.PI / 2);
    const { sin, cos } = exactSinCos(x);
    const [small, expected] = quarter % 2 === 0 ? [sin, Math.sin(x)] : [cos, Math.cos(x)];
    // The small one of the two must keep its relative precision.
    near(small, expected);
  }
});

Deno.test("angles beyond the range are refused", () => {
  for (const x of [-1, MAX_ANGLE * 2, NaN, Infinity]) {
    assert.throws(() => exactSinCos(x), RangeError);
  }
});
