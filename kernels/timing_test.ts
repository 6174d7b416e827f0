import assert from "node:assert/strict";
import { kernelName, TERNARY_KERNELS } from "../codegen/ternary_linear/spec.ts";
import { detectCpuWithZig, missingFeatures } from "./cpu.ts";
import { NativeTeam } from "./native_model.ts";
import { LinearTimers } from "./timing.ts";
import { ensureZig } from "./toolchain.ts";

const ZIG = await ensureZig();
const CPU = await detectCpuWithZig(ZIG.path);

/** More than one unit of blocks, and features that no tile divides. */
const SHAPE = { n: 161, k: 100 };

for (const kernel of TERNARY_KERNELS) {
  if (missingFeatures(CPU, kernel.isa).length > 0) continue;
  Deno.test(`timing: ${kernelName(kernel)} takes time, on one matrix and on many`, async () => {
    using timers = await LinearTimers.open(ZIG, kernel, [SHAPE, { n: 32, k: 64 }]);
    const team = new NativeTeam(timers.library, 2);
    for (const [bytes, matrices] of [[1, 1], [100_000, Math.ceil(100_000 / matrixBytes(timers))]]) {
      const weights = timers.weights(SHAPE, bytes);
      assert.equal(weights.matrices, matrices);
      assert.equal(weights.bytes, matrices * weights.matrixBytes);
      for (const tokens of [1, 9]) {
        using timer = timers.timer(team, weights, tokens);
        assert.ok(timer.run(3) > 0);
        assert.ok(timer.measureNs({ repeats: 3, atLeastMs: 0.1, withInputs: true }) > 0);
      }
      weights.release();
    }
    team.destroy();
  });
}

function matrixBytes(timers: LinearTimers): number {
  const weights = timers.weights(SHAPE, 1);
  weights.release();
  return weights.matrixBytes;
}
