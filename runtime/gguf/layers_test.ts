import assert from "node:assert/strict";
import { CheckpointError } from "../errors.ts";
import { configOf } from "./config.ts";
import type { Metadata } from "./values.ts";

/** A file of this architecture that says how many layers it has, with the keys that all need. */
function configWith(architecture: string, layers: number) {
  const keys: [string, string | number][] = [
    ["block_count", layers],
    ["embedding_length", 64],
    ["feed_forward_length", 128],
    ["attention.head_count", 2],
    ["attention.sliding_window", 8],
    ["expert_count", 4],
    ["expert_used_count", 2],
    ["expert_feed_forward_length", 32],
  ];
  const metadata: Metadata = new Map([
    ["general.architecture", architecture],
    ...keys.map(([key, value]) => [`${architecture}.${key}`, value] as const),
  ]);
  const tensors = new Map([["model.embed_tokens.weight", { shape: [100, 64] }]]);
  return configOf({ metadata, tensors, ropeFactors: {} });
}

for (const architecture of ["llama", "qwen3", "gemma3", "minicpm", "maple"]) {
  Deno.test(`${architecture}: a number of layers is checked before lists are made of it`, () => {
    assert.equal(configWith(architecture, 12).num_hidden_layers, 12);
    for (const layers of [10_001, 2 ** 31, 2 ** 32 - 1, 2 ** 53 - 1]) {
      assert.throws(() => configWith(architecture, layers), (error: Error) => {
        assert.ok(error instanceof CheckpointError);
        assert.match(error.message, /block_count must be at most 10000: current value is \d+$/);
        return true;
      });
    }
  });
}
