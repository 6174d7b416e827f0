import assert from "node:assert/strict";
import { randomOf } from "../codegen/random.ts";
import { LogHistogram } from "./log_histogram.ts";

Deno.test("quantiles are those of the sorted numbers, within 0.6 %", () => {
  const random = randomOf(7);
  const histogram = new LogHistogram();
  const values = Array.from({ length: 5000 }, () => random() < 0.1 ? 0 : 10 ** (6 * random() - 5));
  for (const value of values) histogram.add(value);
  values.sort((a, b) => a - b);
  for (const share of [0.05, 0.5, 0.9, 0.99, 1]) {
    const exact = values[Math.ceil(share * values.length) - 1];
    const found = histogram.quantile(share);
    assert.ok(found >= exact && found <= exact * 1.006, `${share}: ${found}, not ${exact}`);
  }
});

Deno.test("numbers beyond its range count as its ends", () => {
  const histogram = new LogHistogram();
  for (const value of [1e-300, 1e300, Infinity]) histogram.add(value);
  assert.ok(histogram.quantile(0.3) > 0 && histogram.quantile(0.3) < 1e-20);
  assert.ok(histogram.quantile(1) >= 2 ** 48);
  assert.equal(new LogHistogram().quantile(0.5), 0);
});
