/** What memory a model is said to take, against what the generated library asks for. */
import assert from "node:assert/strict";
import { kvCacheBytes } from "../codegen/attention/cache.ts";
import { KV_TYPES } from "../codegen/model_spec.ts";
import { stepBufferBytes } from "../codegen/step/memory.ts";
import { KERNELS_OF_ARCH, lackingFor } from "./machine.ts";
import { CONTEXT, kernelFor, KV_BLOCKS, ODD_MODELS } from "./odd_models.ts";
import { openOddModel } from "./odd_executor.ts";

/** Ends of cache lines, tickets and counters of models as small as these. */
const ROUNDED_BYTES = 8192;

const kernel = KERNELS_OF_ARCH.find(({ isa }) => lackingFor(isa) === null)!;

for (const model of ODD_MODELS) {
  const own = kernelFor(model, kernel);
  if (own === undefined) continue;
  Deno.test(`memory: ${model.name}: buffers are as large as is said`, async () => {
    for (const sizes of [{ threads: 1, maxBatchTokens: 256 }, { threads: 3, maxBatchTokens: 7 }]) {
      await using executor = await openOddModel(model, own, sizes);
      const cacheBytes = kvCacheBytes(model.spec, model.kvType, KV_BLOCKS);
      const options = { kernel: own, kvType: model.kvType };
      const said = stepBufferBytes(model.spec, options, { ...sizes, contextSize: CONTEXT });
      const left = executor.memoryBytes - cacheBytes - said;
      assert.ok(left >= 0 && left <= ROUNDED_BYTES, `${said} bytes are said, ${left} more taken`);
    }
  });
}

Deno.test("memory: the odd models have every type of cache", () => {
  assert.deepEqual(
    [...new Set(ODD_MODELS.map(({ kvType }) => kvType))].sort(),
    [...KV_TYPES].sort(),
  );
});
