import assert from "node:assert/strict";
import fc from "fast-check";
import { logprobOf } from "./logprobs.ts";

Deno.test("logprobs: they are those of a plain softmax, best first", () => {
  const logit = fc.float({ min: -30, max: 30, noNaN: true });
  const rows = fc.array(logit, { minLength: 1, maxLength: 50 });
  fc.assert(fc.property(rows, fc.nat(49), fc.nat(20), (values, at, top) => {
    const logits = Float32Array.from(values);
    const id = at % logits.length;
    const total = logits.reduce((sum, value) => sum + Math.exp(value), 0);
    const expected = Array.from(logits, (value) => Math.log(Math.exp(value) / total));
    const told = logprobOf(logits, id, top);
    assert.ok(Math.abs(told.logprob - expected[id]) < 1e-9);
    const order = expected.map((_, other) => other)
      .sort((a, b) => logits[b] - logits[a] || a - b).slice(0, top);
    assert.deepEqual(told.top.map((best) => best.id), order);
    for (const best of told.top) assert.ok(Math.abs(best.logprob - expected[best.id]) < 1e-9);
  }));
});

Deno.test("logprobs: a token that can't come has none", () => {
  const told = logprobOf(Float32Array.of(0, -Infinity, 0), 1, 3);
  assert.equal(told.logprob, -Infinity);
  assert.deepEqual(told.top.map(({ id }) => id), [0, 2, 1]);
});
