import assert from "node:assert/strict";
import { remoteModels } from "./remote_models.ts";

function model(name: string) {
  const found = remoteModels().find((entry) => entry.name === name);
  assert.ok(found, name);
  return found;
}

Deno.test("remoteModels: computed downloads agree with sizes that were published", () => {
  // Sources: formats of the published files: 3.27 GB, 864 MB, 2.18 GB.
  assert.equal((model("falcon3-7b").downloadBytes! / 1e9).toFixed(2), "3.27");
  assert.equal((model("falcon-e-3b").downloadBytes! / 1e6).toFixed(0), "864");
  assert.equal((model("bonsai-8b").downloadBytes! / 1e9).toFixed(2), "2.18");
  assert.equal(model("bitnet-2b-4t").downloadBytes, 1_178_623_988);
});

Deno.test("remoteModels: memory is more than the packed weights and never invented", () => {
  for (const { name, downloadBytes, memoryBytes, contextSize } of remoteModels()) {
    for (const value of [downloadBytes, memoryBytes, contextSize]) {
      assert.ok(value === null || (Number.isInteger(value) && value > 0), name);
    }
  }
  // 1.18 GB of weights, 0.14 GB of the head's sketch, 4,096 positions of 154 kB.
  assert.equal((model("bitnet-2b-4t").memoryBytes! / 1e9).toFixed(1), "2.0");
  assert.equal(model("bitcpm4-8b").memoryBytes, null);
});
