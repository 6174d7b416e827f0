import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type Groups, linearShape, ternaryShapes } from "../model_spec.ts";
import { EXPERTS_SPEC, ODD_SPEC, SMALL_SPEC } from "../test_helpers.ts";
import { defaultKernel, kernelName, kernelsFor, TERNARY_KERNELS } from "../ternary_linear/spec.ts";
import { linearPrelude, linears } from "../ternary_linear/template.ts";
import { stepSource } from "./template.ts";

const GROUPS: Groups = { size: 128, weightScales: true, scaleType: "f16" };

const GOLDEN = new URL("../../tests/golden/", import.meta.url);

/** Compares with the committed text, or rewrites it when UPDATE_GOLDEN=1. */
function assertGolden(name: string, text: string): void {
  const path = fileURLToPath(new URL(name, GOLDEN));
  if (process.env.UPDATE_GOLDEN === "1") {
    mkdirSync(fileURLToPath(GOLDEN), { recursive: true });
    writeFileSync(path, text);
  }
  const replay = `${name} differs: review it, then run the test with UPDATE_GOLDEN=1`;
  assert.ok(existsSync(path), `${name} is missing: run the test with UPDATE_GOLDEN=1`);
  assert.equal(text, readFileSync(path, "utf8"), replay);
}

for (const kernel of TERNARY_KERNELS) {
  const name = kernelName(kernel);

  Deno.test(`${name}: the emitted linears are the golden ones`, () => {
    const { scheme } = kernel;
    const shapes = [linearShape(SMALL_SPEC, "gate"), linearShape(SMALL_SPEC, "down")];
    assertGolden(`linears_${name}.zig`, `${linearPrelude(scheme)}\n${linears(scheme, shapes)}`);
  });

  Deno.test(`${name}: the same model gives the same text`, () => {
    for (const spec of [SMALL_SPEC, ODD_SPEC, EXPERTS_SPEC]) {
      const once = stepSource(spec, { kernel, kvType: "f16" });
      assert.equal(stepSource(structuredClone(spec), { kernel, kvType: "f16" }), once);
      assert.notEqual(stepSource(spec, { kernel, kvType: "f32" }), once);
    }
  });

  Deno.test(`${name}: emitted text names its kernel and its shapes, and leaves no hole`, () => {
    for (const spec of [SMALL_SPEC, ODD_SPEC, EXPERTS_SPEC]) {
      const text = stepSource(spec, { kernel, kvType: "f32" });
      assert.match(text, new RegExp(`^//! Trilith: .* for ${name}\\. .*\n//! do not edit`));
      for (const { n, k } of ternaryShapes(spec)) {
        assert.ok(text.includes(`pub export fn trilith_linear_${n}x${k}(`), `${n} x ${k}`);
      }
      assert.ok(text.includes(`for (0..${spec.numHiddenLayers}) |index|`));
      assert.ok(text.includes(`math.share(${spec.vocabSize}, thread`));
      assert.doesNotMatch(text, /\bNaN\b|\[object|\$\{|\t| $|\n\n\n/m);
    }
  });
}

for (const kernel of kernelsFor(GROUPS)) {
  const name = kernelName(kernel);
  const kinds: readonly Groups[] = [GROUPS, { size: 64, weightScales: false }];

  Deno.test(`${name}: the emitted linears with groups are the golden ones`, () => {
    const shapes = [{ n: 33, k: 300 }];
    const { scheme } = kernel;
    assertGolden(
      `linears_groups_${name}.zig`,
      `${linearPrelude(scheme)}\n${linears(scheme, shapes)}`,
    );
  });

  Deno.test(`${name}: a step with groups names its shapes, and leaves no hole`, () => {
    for (const groups of kinds) {
      const own = kernelsFor(groups).find((row) => kernelName(row) === name)!;
      const isTernary = groups.weightScales ? { ternaryHead: true, ternaryEmbedding: true } : {};
      const spec = { ...SMALL_SPEC, tieWordEmbeddings: true, groups, ...isTernary };
      const text = stepSource(spec, { kernel: own, kvType: "f32" });
      for (const { n, k } of ternaryShapes(spec)) {
        assert.ok(text.includes(`pub export fn trilith_linear_${n}x${k}(`), `${n} x ${k}`);
      }
      assert.equal(/const head_at\b/.test(text), !groups.weightScales);
      assert.doesNotMatch(text, /\bNaN\b|\[object|\$\{|\t| $|\n\n\n/m);
    }
  });
}

Deno.test("a step refuses kernels that round inputs otherwise than its model", () => {
  const options = { kvType: "f32" } as const;
  const spec = { ...SMALL_SPEC, groups: GROUPS };
  assert.throws(() => stepSource(spec, { ...options, kernel: defaultKernel("portable") }), {
    name: "RangeError",
    message: "Cannot use portable-multiply as the model has groups of 128,f16: the kernel has none",
  });
  const kernel = defaultKernel("portable", null, GROUPS);
  assert.throws(() => stepSource(SMALL_SPEC, { ...options, kernel }), {
    name: "RangeError",
    message:
      "Cannot use portable-multiply as the model has no groups: the kernel has groups of 128,f16",
  });
});

Deno.test("a whole emitted step is the golden one", () => {
  const kernel = defaultKernel("portable");
  assertGolden("step_portable.zig", stepSource(SMALL_SPEC, { kernel, kvType: "f16" }));
  assertGolden("step_portable_odd.zig", stepSource(ODD_SPEC, { kernel, kvType: "f32" }));
  assertGolden("step_portable_experts.zig", stepSource(EXPERTS_SPEC, { kernel, kvType: "f32" }));
});
