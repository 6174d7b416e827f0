import assert from "node:assert/strict";
import { randomOf } from "../codegen/random.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import {
  exactFactors,
  factorCount,
  finerGrain,
  type Grain,
  grainOf,
  signCodes,
} from "./exact_ternary.ts";

type Kind = "f32" | "f16" | "bf16";

function stored(kind: Kind, values: Float32Array, n: number, k: number): StoredMatrix {
  const words = new Uint32Array(values.buffer);
  const typed = kind === "f32"
    ? values
    : kind === "f16"
    ? Float16Array.from(values)
    : Uint16Array.from(words, (word) => word >>> 16);
  return { kind, bytes: new Uint8Array(typed.buffer as ArrayBuffer), n, k, exact: true };
}

/** Random signs times factors that every type holds; no two neighbouring factors are alike. */
function ternary(grain: Grain, n: number, k: number, seed = 1) {
  const random = randomOf(seed);
  const codes = Uint8Array.from({ length: n * k }, () => Math.floor(3 * random()));
  const count = factorCount({ n, k }, grain);
  const factors = Float32Array.from(
    { length: count },
    (_, i) => (1 + i % 7 / 8) * 2 ** (i % 5 - 9),
  );
  const groups = Math.ceil(k / (typeof grain === "number" ? grain : k));
  const values = Float32Array.from(codes, (code, i) => {
    const group = Math.floor(i / k) * groups +
      (typeof grain === "number" ? Math.floor(i % k / grain) : 0);
    return (code - 1) * factors[grain === "matrix" ? 0 : group];
  });
  return { codes, factors, values };
}

const SHAPES = [[3, 640], [5, 100], [2, 2050]] as const;
const GRAINS: readonly Grain[] = ["matrix", "row", 1024, 512, 256, 128, 64, 32];

for (const kind of ["f32", "f16", "bf16"] as const) {
  Deno.test(`exact ternary: ${kind} of every grain gives back codes and factors`, () => {
    for (const [n, k] of SHAPES) {
      for (const grain of GRAINS.filter((grain) => typeof grain === "string" || grain < k)) {
        const { codes, factors, values } = ternary(grain, n, k);
        const matrix = stored(kind, values, n, k);
        assert.equal(grainOf(matrix), grain, `${n} x ${k}`);
        assert.deepEqual(exactFactors(matrix, grain, "w"), factors);
        assert.deepEqual(signCodes(matrix), codes);
      }
    }
  });
}

Deno.test("exact ternary: floats of ordinary models are not", () => {
  const random = randomOf(2);
  const values = Float32Array.from({ length: 640 }, () => random() - 0.5);
  assert.equal(grainOf(stored("f32", values, 1, 640)), null);
  const { values: nearly } = ternary("matrix", 2, 640);
  nearly[777] = 0.125;
  assert.equal(grainOf(stored("f16", nearly, 2, 640)), null);
  nearly[777] = Infinity;
  assert.equal(grainOf(stored("bf16", nearly, 2, 640)), null);
});

Deno.test("exact ternary: where all weights are 0 the factor is 0, and fits in any grain", () => {
  const zeros = stored("f32", new Float32Array(128), 2, 64);
  assert.equal(grainOf(zeros), "matrix");
  assert.deepEqual(exactFactors(zeros, 32, "w"), new Float32Array(4));
  const { values } = ternary("row", 2, 64);
  values.fill(0, 0, 64);
  assert.equal(grainOf(stored("f32", values, 2, 64)), "matrix");
});

Deno.test("exact ternary: a coarse matrix has finer factors too", () => {
  const matrix = stored("f16", ternary("row", 3, 640).values, 3, 640);
  const rows = exactFactors(matrix, "row", "w");
  const groups = exactFactors(matrix, 128, "w");
  groups.forEach((factor, i) => assert.equal(factor, rows[Math.floor(i / 5)]));
});

Deno.test("exact ternary: an error names both elements, or the one that is not finite", () => {
  const { values } = ternary("row", 2, 640);
  values[0] = -values[1] || 0.25;
  values[1] = 0.25;
  values[700] = 0.3125;
  assert.throws(
    () => exactFactors(stored("f32", values, 2, 640), "row", "w"),
    /^CheckpointError: Cannot use w as it stands as all weights of a row must have one finite magnitude or be 0: row [01], column \d+ is -?[\d.e-]+, row [01], column \d+ is -?[\d.e-]+, quantise the model$/,
  );
  const { values: infinite } = ternary("row", 1, 32);
  infinite[5] = -Infinity;
  assert.throws(() => exactFactors(stored("bf16", infinite, 1, 32), 32, "w"), {
    name: "CheckpointError",
    message: "Cannot use w as it stands as all weights of 32 features must have one finite " +
      "magnitude or be 0: row 0, column 5 is -Infinity, quantise the model",
  });
});

Deno.test("exact ternary: the finer of two grains", () => {
  assert.equal(finerGrain("matrix", "row"), "row");
  assert.equal(finerGrain(128, "row"), 128);
  assert.equal(finerGrain(128, 64), 64);
  assert.equal(finerGrain("matrix", "matrix"), "matrix");
});
