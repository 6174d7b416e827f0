import assert from "node:assert/strict";
import fc from "fast-check";
import { fixturePath } from "../tests/fixtures.ts";
import { fixtureTokenizer } from "../tests/tokenizer_fixtures.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { readModelConfig } from "./config.ts";
import { CheckpointError } from "./errors.ts";
import { parseGenerationDefaults, readGenerationDefaults } from "./generation_config.ts";
import type { JsonObject } from "./json.ts";
import { loadTokenizer } from "./tokenizer.ts";

const CONFIG = { bosTokenId: 1, eosTokenIds: [2], spec: { vocabSize: 128256 } };

Deno.test("end tokens of both configs stop, each once", () => {
  const eos = (json: JsonObject) => parseGenerationDefaults(json, CONFIG).eosTokenIds;
  assert.deepEqual(eos({}), [2]);
  assert.deepEqual(eos({ eos_token_id: null }), [2]);
  assert.deepEqual(eos({ eos_token_id: 5 }), [5, 2]);
  assert.deepEqual(eos({ eos_token_id: [5, 2, 5] }), [5, 2]);
  assert.deepEqual(eos({ eos_token_id: [5, -1, 999_999_999] }), [5, 2]);
});

Deno.test("the Llama 3 vocabulary ends at both of its end tokens", () => {
  const of = (tokenizer: "llama3" | "llama2") =>
    parseGenerationDefaults({ eos_token_id: 128001 }, CONFIG, fixtureTokenizer(tokenizer));
  assert.deepEqual(of("llama3").eosTokenIds, [128001, 2, 128009]);
  assert.deepEqual(of("llama2").eosTokenIds, [128001, 2]);
});

Deno.test("the authors' sampler is taken over, with what transformers adds to it", () => {
  const json = {
    bos_token_id: 7,
    pad_token_id: 8,
    do_sample: true,
    temperature: 0.6,
    top_k: 20,
    top_p: 0.9,
    min_p: 0.05,
    typical_p: 0.95,
    repetition_penalty: 1.1,
    max_new_tokens: 100,
    transformers_version: "4.44.0",
  };
  assert.deepEqual(parseGenerationDefaults(json, CONFIG), {
    eosTokenIds: [2],
    bosTokenId: 7,
    padTokenId: 8,
    doSample: true,
    temperature: 0.6,
    topK: 20,
    topP: 0.9,
    minP: 0.05,
    typicalP: 0.95,
    repeatPenalty: 1.1,
    maxNewTokens: 100,
  });
  const topK = (json: JsonObject) => parseGenerationDefaults(json, CONFIG).topK;
  assert.equal(topK({ do_sample: true }), 50, "as transformers");
  assert.equal(topK({ do_sample: true, top_k: null }), undefined);
  assert.equal(topK({ do_sample: true, top_k: 0 }), 0);
  assert.equal(topK({ temperature: 0.6 }), undefined);
  assert.deepEqual(parseGenerationDefaults({ top_k: null }, CONFIG), {
    eosTokenIds: [2],
    bosTokenId: 1,
    padTokenId: null,
    doSample: false,
  });
});

Deno.test("the fixtures' defaults are read from their folders", async () => {
  const of = async (name: string) => {
    const folder = fixturePath(`models/${name}`);
    await using checkpoint = await openCheckpoint(folder);
    return await readGenerationDefaults(
      checkpoint.companions,
      await readModelConfig(checkpoint),
      await loadTokenizer(folder),
    );
  };
  const llama = await of("llama3-158-packed");
  assert.deepEqual(llama.eosTokenIds, [1009, 1017]);
  assert.deepEqual([llama.doSample, llama.temperature, llama.topP], [true, 0.6, 0.9]);
  const falcon = await of("falcon3-158-packed");
  assert.deepEqual([falcon.eosTokenIds, falcon.bosTokenId], [[11], null]);
  assert.deepEqual((await of("bitnet-2b4t-packed")).eosTokenIds, [1009, 1017]);
});

Deno.test("a wrong value is one error that names key and value", () => {
  for (
    const [key, value] of [
      ["temperature", "hot"],
      ["temperature", -1],
      ["top_p", 2],
      ["top_k", -5],
      ["do_sample", 1],
      ["eos_token_id", "x"],
      ["max_new_tokens", 0],
    ] as const
  ) {
    assert.throws(
      () => parseGenerationDefaults({ [key]: value }, CONFIG),
      new RegExp(`generation_config.json: ${key} must be .*: current value is "?${value}`),
    );
  }
  assert.throws(() => parseGenerationDefaults([], CONFIG), CheckpointError);
});

Deno.test("any generation_config.json is an error of ours or sound defaults", () => {
  const keys = ["eos_token_id", "temperature", "top_k", "top_p", "do_sample", "__proto__"];
  const json = fc.dictionary(fc.constantFrom(...keys), fc.jsonValue({ maxDepth: 1 }));
  fc.assert(
    fc.property(json, (value) => {
      try {
        const { eosTokenIds } = parseGenerationDefaults(value as JsonObject, CONFIG);
        assert.ok(eosTokenIds.every((id) => id >= 0 && id < 128256));
      } catch (error) {
        assert.ok(error instanceof CheckpointError, String(error));
      }
    }),
  );
});
