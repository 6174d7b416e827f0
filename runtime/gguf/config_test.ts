import assert from "node:assert/strict";
import { CheckpointError, UnsupportedModelError } from "../errors.ts";
import { configOf } from "./config.ts";
import type { GgufValue } from "./values.ts";

/** config.json of a small model of this architecture, with more keys. */
function config(
  architecture: string,
  more: Readonly<Record<string, GgufValue>> = {},
  others: readonly [string, GgufValue][] = [],
) {
  const keys = {
    block_count: 2,
    embedding_length: 64,
    feed_forward_length: 128,
    "attention.head_count": 4,
    ...more,
  };
  const named = Object.entries(keys).map(([key, value]): [string, GgufValue] => [
    `${architecture}.${key}`,
    value,
  ]);
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", architecture],
    ...named,
    ...others,
  ]);
  const tensors = new Map([["model.embed_tokens.weight", { shape: [256, 64] }]]);
  return configOf({ metadata, tensors, ropeFactors: {} });
}

Deno.test("gguf config: how an embedding model pools", () => {
  assert.ok(!("pooling" in config("qwen3")));
  // No pooling: states of all tokens, which says nothing of vectors.
  const names = [undefined, "mean", "cls", "last"];
  for (const [type, name] of names.entries()) {
    assert.equal(config("qwen3", { pooling_type: type }).pooling, name);
  }
  for (const type of [4, -1]) {
    assert.throws(() => config("qwen3", { pooling_type: type }), CheckpointError);
  }
});

Deno.test("gguf config: attention to later tokens is told, by any key", () => {
  const key = "use_bidirectional_attention";
  assert.ok(!(key in config("gemma3")));
  assert.ok(!(key in config("qwen3", { "attention.causal": true })));
  assert.equal(config("qwen3", { "attention.causal": false })[key], true);
  assert.equal(config("gemma-embedding")[key], true);
});

Deno.test("gguf config: weights in a rotated basis are refused", () => {
  const others: [string, GgufValue][] = [["prism.hadamard.version", 1]];
  assert.throws(() => config("qwen3", {}, others), (error: Error) => {
    assert.ok(error instanceof UnsupportedModelError);
    return /rotated basis.*without these keys/.test(error.message);
  });
});

Deno.test("gguf config: 1bitLLM's models under Microsoft's architecture have their own activation", () => {
  const act = (theta: number | null, model: string) => {
    const keys: Record<string, GgufValue> = theta === null ? {} : { "rope.freq_base": theta };
    return config("bitnet-b1.58", keys, [["tokenizer.ggml.model", model]]).hidden_act;
  };
  assert.equal(act(10000, "llama"), "silu");
  for (const [theta, model] of [[500000, "gpt2"], [500000, "llama"], [10000, "gpt2"]] as const) {
    assert.equal(act(theta, model), "relu2");
  }
  assert.equal(act(null, "llama"), "relu2");
});

Deno.test("gguf config: what is no model is told by its kind", () => {
  assert.equal(config("llama", {}, [["general.type", "model"]]).model_type, "llama");
  assert.throws(() => config("llama", {}, [["general.type", "adapter"]]), (error: Error) => {
    assert.ok(error instanceof UnsupportedModelError);
    return /holds no model: its general.type is "adapter"/.test(error.message);
  });
});

Deno.test("gguf config: the base of RoPE where the key is missing", () => {
  const base = (architecture: string) => config(architecture).rope_theta;
  assert.deepEqual([base("bitnet-b1.58"), base("bitnet-25")], [500000, 500000]);
  assert.deepEqual([base("bitnet"), base("llama"), base("gemma3")], [10000, 10000, 1e6]);
});
