import assert from "node:assert/strict";
import { planOf, regionOf } from "../../codegen/plan.ts";
import { STEP_PHASE_NAMES } from "../../codegen/step/phases.ts";
import { LAYOUTS } from "../../codegen/ternary_linear/spec.ts";
import { shapeOf, SHAPES } from "../shapes.ts";
import { ternaryMacsPerToken, workOf } from "./work.ts";

const ONE_TOKEN = { steps: 1, tokens: 1, logitRows: 1, positionsSeen: 10, positionsRead: 10 };

Deno.test("work: the phases of a decoded token read what the plan says it reads", () => {
  for (const name of Object.keys(SHAPES)) {
    const spec = shapeOf(name);
    for (const layout of LAYOUTS) {
      const plan = planOf(spec, layout);
      const counts = { ...ONE_TOKEN, positionsRead: 0 };
      const bytes = STEP_PHASE_NAMES.filter((phase) => phase !== "embedding")
        .reduce((sum, phase) => sum + workOf(phase, spec, plan, 0, counts).bytes, 0);
      const scales = spec.numHiddenLayers * regionOf(plan.layer, "scales").bytes;
      const padding = plan.bytesPerToken - bytes - scales;
      assert.ok(padding >= 0 && padding < 1e-3 * plan.bytesPerToken, `${name}: ${padding}`);
    }
  }
});

Deno.test("work: weights count once a step, multiply-adds once a token", () => {
  const spec = shapeOf("bitnet-2b-4t");
  const plan = planOf(spec, LAYOUTS[0]);
  const one = workOf("down", spec, plan, 0, ONE_TOKEN);
  const many = workOf("down", spec, plan, 0, { ...ONE_TOKEN, steps: 2, tokens: 100 });
  assert.equal(many.bytes, 2 * one.bytes);
  assert.equal(many.macs, 100 * one.macs);
  assert.equal(one.macs, 30 * 2560 * 6912);
  assert.equal(
    ternaryMacsPerToken(spec),
    30 * (2 * 2560 * 2560 + 2 * 640 * 2560 + 3 * 2560 * 6912),
  );
});

Deno.test("work: attention reads its cache and multiplies keys and values", () => {
  const spec = shapeOf("bitnet-2b-4t");
  const work = workOf("attention", spec, planOf(spec, LAYOUTS[0]), 76_800, ONE_TOKEN);
  assert.equal(work.bytes, 768_000);
  assert.equal(work.macs, 2 * 30 * 20 * 128 * 10);
  const silent = { ...ONE_TOKEN, logitRows: 0 };
  assert.deepEqual(workOf("head", spec, planOf(spec, LAYOUTS[0]), 0, silent), {
    bytes: 0,
    macs: 0,
  });
});
