import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import path from "node:path";
import process from "node:process";
import { TERNARY_KERNELS } from "../codegen/ternary_linear/spec.ts";
import { ensureZig } from "../kernels/toolchain.ts";
import { withFolder } from "../tests/safetensors_file.ts";
import { aarch64Runner, testWith } from "../tests/tools.ts";
import { countKernel, countLines } from "./instructions.ts";

Deno.test("instructions: lines of a log are counted across reads", async () => {
  await withFolder({ log: Buffer.from("Trace 0: main\n".repeat(200_000)) }, (folder) => {
    assert.equal(countLines(path.join(folder, "log")), 200_000);
    return Promise.resolve();
  });
});

const NEON = TERNARY_KERNELS.filter(({ isa }) => isa.startsWith("neon"));

testWith(aarch64Runner(), "instructions: NEON's kernels are counted", async () => {
  if (process.arch === "arm64") return;
  const zig = await ensureZig();
  for (const kernel of NEON) {
    const counts = await countKernel(zig, kernel, [1, 9]);
    assert.ok(Array.isArray(counts));
    const [one, nine] = counts.map((count) => count.per64Products);
    // One instruction does at most 32 products, and sharing unpacked weights saves some.
    assert.ok(one > nine && nine > 2 && one < 64, `${one}, ${nine}`);
  }
});

Deno.test("instructions: what can't be counted has a reason", async () => {
  const avx512 = TERNARY_KERNELS.find(({ isa }) => isa === "avx512")!;
  const uncounted = await countKernel(await ensureZig(), avx512, [1]);
  assert.deepEqual(uncounted, {
    kernel: "avx512-multiply",
    reason: "qemu does not emulate AVX-512",
  });
});
