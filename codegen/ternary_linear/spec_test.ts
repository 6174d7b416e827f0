import assert from "node:assert/strict";
import { ISAS } from "../isa.ts";
import { AVX2, AVX512, AVX_VNNI, NEON, NEON_DOTPROD, NEON_I8MM, PORTABLE } from "./dialects.ts";
import { lookup, LOOKUP_48 } from "./lookup.ts";
import { provedTokens } from "./multiply.ts";
import { defaultKernel, kernelName, LAYOUTS, TERNARY_KERNELS, ternaryKernel } from "./spec.ts";

const DIALECTS = [AVX512, AVX_VNNI, AVX2, NEON_I8MM, NEON_DOTPROD, NEON, PORTABLE];

Deno.test("every instruction set has a kernel that needs no knowledge of the CPU", () => {
  for (const isa of ISAS) {
    assert.equal(ternaryKernel(isa).isa, isa);
    assert.equal(defaultKernel(isa, "an unknown vendor"), ternaryKernel(isa));
  }
});

Deno.test("kernels and layouts have names of their own", () => {
  const kernels = TERNARY_KERNELS.map(kernelName);
  assert.equal(new Set(kernels).size, kernels.length);
  const layouts = LAYOUTS.map((layout) => layout.name);
  assert.deepEqual([...new Set(layouts)].sort(), [
    "lookup10",
    "lookup48",
    "lookup9",
    "rows32",
    "shuffle24",
  ]);
});

Deno.test("token tiles fall and end in 1, so that any number of tokens is covered", () => {
  for (const { maskedTiles, packedTiles, unpackedTiles } of DIALECTS) {
    const few = [...maskedTiles, ...packedTiles].map(({ m }) => m).sort((a, b) => b - a);
    for (const tiles of [few, unpackedTiles.map(({ m }) => m)]) {
      assert.deepEqual([...new Set(tiles)], tiles.toSorted((a, b) => b - a));
      if (tiles.length > 0) assert.equal(tiles.at(-1), 1);
    }
    assert.ok(few.length > 0);
  }
});

/** Tiles that loops over `tiles`, largest first, run for a count of tokens. */
function tilesRun(tiles: readonly number[], tokens: number): Set<number> {
  const run = new Set<number>();
  for (const m of tiles) {
    if (tokens >= m) run.add(m);
    tokens %= m;
  }
  return run;
}

Deno.test("proofs run every tile for few tokens, and every one for many", () => {
  for (const dialect of DIALECTS) {
    const few = [...dialect.maskedTiles, ...dialect.packedTiles].map(({ m }) => m).sort((a, b) =>
      b - a
    );
    const [first, second] = provedTokens(dialect);
    assert.ok(first < dialect.unpackFrom);
    assert.deepEqual(tilesRun(few, first), new Set(few));
    if (dialect.unpackedTiles.length === 0) continue;
    assert.ok(second >= dialect.unpackFrom);
    const many = dialect.unpackedTiles.map(({ m }) => m);
    assert.deepEqual(tilesRun(many, second), new Set(many));
  }
});

Deno.test("AVX-512 looks up on AMD's CPUs and multiplies on others", () => {
  assert.equal(kernelName(defaultKernel("avx512", "AuthenticAMD")), "avx512-lookup48");
  assert.equal(kernelName(defaultKernel("avx512", "GenuineIntel")), "avx512-multiply");
  assert.equal(kernelName(defaultKernel("avx2", "AuthenticAMD")), "avx2-multiply");
});

Deno.test("lookups refuse tiles that do not fit in the registers", () => {
  assert.throws(() => lookup(LOOKUP_48, [8, 1], false), {
    name: "RangeError",
    message: "Cannot make lookup48 tiles of 8 tokens as they need 42 registers: there are 32",
  });
});
