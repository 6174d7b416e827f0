import assert from "node:assert/strict";
import { activeWeights, expertShapes, LINEAR_NAMES, linearShape } from "../model_spec.ts";
import { ODD_SPEC, SMALL_SPEC } from "../test_helpers.ts";
import { linearWork, weightsOf } from "./work.ts";

Deno.test("work: every linear of every layer is counted once", () => {
  for (const spec of [SMALL_SPEC, ODD_SPEC]) {
    const works = linearWork(spec);
    const count = works.reduce((sum, { perToken }) => sum + perToken, 0);
    assert.equal(count, LINEAR_NAMES.length * spec.numHiddenLayers);
    const expected = LINEAR_NAMES.reduce((sum, name) => {
      const { n, k } = linearShape(spec, name);
      return sum + n * k * spec.numHiddenLayers;
    }, 0);
    assert.equal(weightsOf(works), expected);
  }
});

Deno.test("work: an input is made once a group, or for each linear where it norms its own", () => {
  const inputs = (spec: typeof SMALL_SPEC) =>
    linearWork(spec).filter(({ makesInput }) => makesInput)
      .reduce((sum, { perToken }) => sum + perToken, 0);
  const shared = { ...SMALL_SPEC, linearNormEps: null };
  assert.equal(inputs(shared), 4 * shared.numHiddenLayers);
  const own = { ...SMALL_SPEC, linearNormEps: 1e-6 };
  assert.equal(inputs(own), 7 * own.numHiddenLayers);
  assert.ok(linearWork(own).every(({ makesInput }) => makesInput));
});

Deno.test("work: of experts those that are picked, which share one input", () => {
  const experts = {
    numExperts: 8,
    numExpertsPerTok: 3,
    routerType: "f32",
    swigluLimit: null,
  } as const;
  const spec = { ...SMALL_SPEC, subNorms: false, rowScales: true, experts };
  const works = linearWork(spec);
  assert.equal(weightsOf(works), activeWeights(spec));
  const [gateUp, down] = expertShapes(spec);
  const counts = (shape: { n: number; k: number }) =>
    works.filter(({ n, k }) => n === shape.n && k === shape.k)
      .map(({ makesInput, perToken }) => [makesInput, perToken / spec.numHiddenLayers]);
  assert.deepEqual(counts(gateUp), [[true, 1], [false, 2]]);
  assert.deepEqual(counts(down), [[true, 3]]);
  const one = { ...spec, experts: { ...experts, numExpertsPerTok: 1 } };
  assert.equal(weightsOf(linearWork(one)), activeWeights(one));
});
