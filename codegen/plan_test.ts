import assert from "node:assert/strict";
import { layerLinears, LINEAR_NAMES, linearShape, type ModelSpec } from "./model_spec.ts";
import { type PackedPlan, planOf, type Region, regionOf } from "./plan.ts";
import { EXPERTS_SPEC, ODD_SPEC, SMALL_SPEC } from "./test_helpers.ts";
import { LAYOUTS } from "./ternary_linear/spec.ts";

const SPECS: [string, ModelSpec][] = [
  ["small", SMALL_SPEC],
  ["odd", ODD_SPEC],
  ["experts", EXPERTS_SPEC],
];

function assertApart(regions: readonly Region[], from: number, to: number): void {
  let end = from;
  for (const { name, offset, bytes } of regions) {
    assert.equal(offset % 64, 0, `${name} is not on a cache line`);
    assert.ok(offset >= end, `${name} overlaps what is before it`);
    assert.ok(bytes > 0, `${name} is empty`);
    end = offset + bytes;
  }
  assert.ok(end <= to, "the last region passes the end");
}

for (const layout of LAYOUTS) {
  for (const [name, spec] of SPECS) {
    const plan = planOf(spec, layout);

    Deno.test(`plan of the ${name} spec in ${layout.name}: regions are apart, aligned, inside`, () => {
      assertApart(plan.globals, 0, plan.layersOffset);
      assertApart(plan.layer, 0, plan.layerBytes);
      assertApart(plan.expert, 0, plan.expertBytes);
      assert.equal(plan.layersOffset % 4096, 0);
      assert.equal(plan.layerBytes % 4096, 0);
      assert.equal(plan.totalBytes, plan.layersOffset + spec.numHiddenLayers * plan.layerBytes);
    });

    Deno.test(`plan of the ${name} spec in ${layout.name}: matrices have the layout's bytes`, () => {
      let sum = 0;
      for (const linear of layerLinears(spec)) {
        const { n, k } = linearShape(spec, linear);
        const { bytes } = regionOf(plan.layer, `${linear}_codes`);
        assert.equal(bytes, layout.packedBytes(n, k));
        sum += bytes;
      }
      for (const { name, bytes } of plan.expert) {
        if (name.endsWith("_codes")) sum += bytes * spec.experts!.numExperts;
      }
      assert.equal(plan.ternaryBytes, sum * spec.numHiddenLayers);
    });
  }
}

/** Names of regions, sorted. */
function names(regions: readonly Region[]): string[] {
  return regions.map((region) => region.name).sort();
}

Deno.test("plan: a tied head is the embedding, an untied one has its own region", () => {
  const tied = planOf(SMALL_SPEC);
  assert.deepEqual(names(tied.globals), ["embedding", "final_norm"]);
  assert.equal(regionOf(tied.globals, "embedding").bytes, 50 * 64 * 2);
  const untied = planOf(ODD_SPEC);
  assert.deepEqual(names(untied.globals), ["embedding", "final_norm", "head"]);
  // Rows of 100 features are padded to 112.
  assert.equal(regionOf(untied.globals, "embedding").bytes, 50 * 112 * 2);
  assert.equal(regionOf(untied.globals, "head").bytes, 50 * 112 * 4);
  assert.equal(planOf(ODD_SPEC).headBytes, 50 * 112 * 4);
});

Deno.test("plan: optional parts have regions exactly where the model has them", () => {
  const optional = (plan: PackedPlan) =>
    names(plan.layer).filter((name) => /_bias$|_norm$/.test(name) && !/^(input|post)/.test(name));
  assert.deepEqual(optional(planOf(SMALL_SPEC)), ["attn_sub_norm", "ffn_sub_norm"]);
  assert.deepEqual(
    optional(planOf(ODD_SPEC)),
    ["down_bias", "q_bias", ...LINEAR_NAMES.map((name) => `${name}_norm`)].sort(),
  );
  assert.equal(regionOf(planOf(ODD_SPEC).layer, "q_bias").bytes, 32 * 4);
});

Deno.test("plan: a decoded token reads all layers, the final norm and the head", () => {
  const plan = planOf(ODD_SPEC);
  const last = plan.layer[plan.layer.length - 1];
  const read = 2 * (last.offset + last.bytes) + 112 * 4 + planOf(ODD_SPEC).headBytes;
  assert.equal(plan.bytesPerToken, read);
});

Deno.test("plan: of experts, a token reads the router and those it picks", () => {
  const plan = planOf(EXPERTS_SPEC);
  const { offset, bytes } = plan.layer[plan.layer.length - 1];
  assert.equal(bytes, 8 * plan.expertBytes);
  assert.equal(regionOf(plan.layer, "router").bytes, 8 * 64 * 2);
  const layer = offset + 3 * plan.expertBytes;
  assert.equal(plan.bytesPerToken, 2 * layer + 64 * 4 + plan.headBytes);
});

Deno.test("plan: up begins with a block of its own, and every row has its scale", () => {
  const { expert, layer } = planOf(EXPERTS_SPEC);
  // 40 rows of gate and of up take two blocks each.
  assert.equal(regionOf(expert, "gate_up_codes").bytes, 4 * (64 / 16) * 128);
  assert.equal(regionOf(expert, "gate_up_scales").bytes, 4 * 128);
  assert.equal(regionOf(expert, "down_scales").bytes, 4 * 64);
  assert.equal(regionOf(layer, "k_scales").bytes, 4 * 32);
  assert.ok(!names(layer).includes("scales"));
});

Deno.test("plan: parts that no generated code has together are an error", () => {
  const experts = EXPERTS_SPEC.experts!;
  const others: Partial<ModelSpec>[] = [
    { rowScales: false },
    { subNorms: true },
    { linearNormEps: 1e-6 },
    { biases: ["down"] },
  ];
  for (const other of others) {
    assert.throws(() => planOf({ ...EXPERTS_SPEC, ...other }), {
      name: "RangeError",
      message: "Cannot lay out a model with experts as it must have rowScales, and neither " +
        "subNorms, linearNormEps nor biases of experts",
    });
  }
  for (const numExpertsPerTok of [0, 9]) {
    assert.throws(() => planOf({ ...EXPERTS_SPEC, experts: { ...experts, numExpertsPerTok } }), {
      name: "RangeError",
      message: "Cannot lay out a model with experts as numExpertsPerTok must be from 1 to 8: " +
        `current value is ${numExpertsPerTok}`,
    });
  }
  assert.ok(planOf({ ...EXPERTS_SPEC, biases: ["q", "o"] }).totalBytes > 0);
});

Deno.test("plan: an unknown region is an error that names it", () => {
  assert.throws(() => regionOf(planOf(SMALL_SPEC).layer, "q_bias"), {
    name: "RangeError",
    message: "Cannot find region q_bias in the packed plan",
  });
});
