/** Floats that are ternary as they stand are packed as the codes and factors that they are made of. */
import assert from "node:assert/strict";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import { randomOf } from "../codegen/random.ts";
import { SMALL_SPEC } from "../codegen/test_helpers.ts";
import { groupCount } from "../codegen/ternary_linear/groups.ts";
import { randomSource } from "../tests/random_model.ts";
import { packModel } from "./pack.ts";
import type { TernaryWeights, WeightSource } from "./weights.ts";

const FACTOR = 0.75;

/** Factors of groups or rows that f16 holds, none of them 0; or one of the matrix. */
function withFactors(spec: ModelSpec, weights: TernaryWeights): TernaryWeights {
  const { n, k } = weights.matrix;
  const factors = (count: number) =>
    Float32Array.from({ length: count }, (_, i) => (1 + i % 9) / 64);
  if (spec.groups?.weightScales) {
    return { ...weights, groupScales: factors(n * groupCount(spec.groups, k)) };
  }
  return spec.rowScales ? { ...weights, rowScales: factors(n) } : { ...weights, scale: FACTOR };
}

/** Its weights as f16. */
function asFloats(spec: ModelSpec, weights: TernaryWeights): TernaryWeights {
  const { matrix: { bytes, n, k }, groupScales, rowScales } = weights;
  const size = spec.groups?.size ?? k;
  const values = Float16Array.from(bytes, (code, i) => {
    const row = Math.floor(i / k);
    const group = row * Math.ceil(k / size) + Math.floor(i % k / size);
    return (code - 1) * (groupScales?.[group] ?? rowScales?.[row] ?? FACTOR);
  });
  const matrix = { kind: "f16", bytes: new Uint8Array(values.buffer), n, k, exact: true } as const;
  return { ...weights, matrix, scale: null, groupScales: undefined, rowScales: undefined };
}

async function packed(
  spec: ModelSpec,
  change: (weights: TernaryWeights) => TernaryWeights,
): Promise<Uint8Array> {
  const source = randomSource(spec, randomOf(3));
  const changed: WeightSource = {
    ...source,
    linear: async (layer, name) => change(withFactors(spec, await source.linear(layer, name))),
  };
  const data = new Uint8Array(planOf(spec).totalBytes);
  await packModel(spec, changed, (bytes, offset) => data.set(bytes, offset));
  return data;
}

const SPECS: Record<string, ModelSpec> = {
  "of a matrix": SMALL_SPEC,
  "of rows": { ...SMALL_SPEC, rowScales: true },
  "of groups": { ...SMALL_SPEC, groups: { size: 64, weightScales: true, scaleType: "f16" } },
};
for (const [name, spec] of Object.entries(SPECS)) {
  Deno.test(`pack: exact floats with factors ${name} are the same bytes as their codes`, async () => {
    const codes = await packed(spec, (weights) => weights);
    assert.deepEqual(await packed(spec, (weights) => asFloats(spec, weights)), codes);
  });
}

Deno.test("pack: a weight of another size is named, and so is a factor that would lose bits", async () => {
  const spec = SPECS["of groups"];
  await assert.rejects(
    packed(spec, (weights) => {
      const floats = asFloats(spec, weights);
      new Float16Array(floats.matrix.bytes.buffer)[70] = 7;
      return floats;
    }),
    /^CheckpointError: Cannot use q as it stands as all weights of 64 features must .*row \d, column \d+ is/,
  );
  await assert.rejects(
    packed(spec, (weights) => {
      weights.groupScales![5] = 0.1;
      return weights;
    }),
    /^CheckpointError: Cannot pack q without loss as factors of its groups are kept as f16: that of group \d of row \d is 0\.1/,
  );
});
