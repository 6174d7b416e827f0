import assert from "node:assert/strict";
import { activeWeights } from "../../codegen/model_spec.ts";
import { planOf } from "../../codegen/plan.ts";
import { STEP_PHASE_NAMES } from "../../codegen/step/phases.ts";
import { LAYOUTS } from "../../codegen/ternary_linear/spec.ts";
import { shapeOf, SHAPES } from "../shapes.ts";
import { expertsRead, workOf } from "./work.ts";

const ONE_TOKEN = { steps: 1, tokens: 1, logitRows: 1, positionsSeen: 10, positionsRead: 10 };

Deno.test("work: the phases of a decoded token read what the plan says it reads", () => {
  for (const name of Object.keys(SHAPES)) {
    const spec = shapeOf(name);
    for (const layout of LAYOUTS) {
      const plan = planOf(spec, layout);
      const sketched = plan.sketchBytes > 0 ? { rescoredRows: 0 } : {};
      const counts = { ...ONE_TOKEN, positionsRead: 0, ...sketched };
      const bytes = STEP_PHASE_NAMES.filter((phase) => phase !== "embedding")
        .reduce((sum, phase) => sum + workOf(phase, spec, plan, 0, counts).bytes, 0);
      // Scales: 28 bytes a layer, or 4 bytes a row of a matrix.
      const others = plan.bytesPerToken - bytes;
      const most = (spec.rowScales ? 1e-2 : 1e-3) * plan.bytesPerToken;
      assert.ok(others >= 0 && others < most, `${name}: ${others}`);
    }
  }
});

Deno.test("work: the head is read as a whole, or its sketch and the rows that are scored exactly", () => {
  const spec = shapeOf("bitnet-2b-4t");
  const plan = planOf(spec, LAYOUTS[0]);
  const bytesOf = (rescoredRows?: number) =>
    (["sketch", "head"] as const).map((phase) =>
      workOf(phase, spec, plan, 0, { ...ONE_TOKEN, rescoredRows }).bytes
    );
  assert.deepEqual(bytesOf(), [0, 128_256 * 2560 * 2]);
  assert.deepEqual(bytesOf(7), [plan.sketchBytes, 7 * 2560 * 2]);
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
    activeWeights(spec),
    30 * (2 * 2560 * 2560 + 2 * 640 * 2560 + 3 * 2560 * 6912),
  );
});

Deno.test("work: of experts, a step reads those that its tokens pick", () => {
  const experts = shapeOf("maple-20b-a1b").experts!;
  assert.equal(expertsRead(experts, 1), 8);
  // The second token picks 8 of 256 too, of which 8 * 8 / 256 on average are the first one's.
  assert.equal(expertsRead(experts, 2), 16 - 8 * 8 / 256);
  assert.ok(expertsRead(experts, 512) > 255.9 && expertsRead(experts, 512) <= 256);
  const spec = shapeOf("maple-20b-a1b");
  const plan = planOf(spec, LAYOUTS[0]);
  const down = workOf("down", spec, plan, 0, { ...ONE_TOKEN, steps: 3, tokens: 3 });
  assert.equal(down.macs, 3 * 24 * 8 * 2048 * 512);
  assert.equal(down.bytes, 3 * 24 * 8 * LAYOUTS[0].packedBytes(2048, 512));
  const router = workOf("router", spec, plan, 0, { ...ONE_TOKEN, tokens: 10 });
  assert.equal(router.macs, 10 * 24 * 256 * 2048);
  assert.equal(router.bytes, 24 * 256 * 2048 * 2);
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
