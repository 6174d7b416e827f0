import assert from "node:assert/strict";
import { ISAS } from "../isa.ts";
import { lookup, LOOKUP_48 } from "./lookup.ts";
import { defaultKernel, kernelName, LAYOUTS, TERNARY_KERNELS, ternaryKernel } from "./spec.ts";

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
  assert.deepEqual([...new Set(layouts)].sort(), ["lookup10", "lookup48", "lookup9", "rows32"]);
});

Deno.test("token tiles fall and end in 1, so that any number of tokens is covered", () => {
  for (const { scheme } of TERNARY_KERNELS) {
    assert.deepEqual(scheme.tokenTiles, [...scheme.tokenTiles].sort((a, b) => b - a));
    assert.equal(scheme.tokenTiles.at(-1), 1);
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
