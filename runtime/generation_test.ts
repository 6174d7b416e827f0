import assert from "node:assert/strict";
import { loadModel } from "./engine.ts";
import { TOY_VOCAB_SIZE, toyContext } from "./fake_executor.ts";
import { startGeneration } from "./generation.ts";
import type { Grammar } from "./grammar/types.ts";
import type { GenerateOptions, GenerationResult, Model } from "./types.ts";

const PROMPT = "Once upon a time";

async function withModel(run: (model: Model) => Promise<void>): Promise<void> {
  await using model = await loadModel(undefined, { threads: 1 });
  await run(model);
}

Deno.test("generation: pieces together are the text, and tell their tokens", () =>
  withModel(async (model) => {
    const generation = model.generate(PROMPT, { maxTokens: 40, seed: 3, temperature: 0.8 });
    let text = "";
    const tokenIds: number[] = [];
    for await (const piece of generation) {
      text += piece.text;
      tokenIds.push(...piece.tokenIds);
    }
    const result = await generation;
    assert.equal(text, result.text);
    assert.deepEqual(tokenIds, result.tokenIds.slice(0, tokenIds.length));
    assert.equal(model.tokenizer.decode(tokenIds), text);
    assert.equal(result.promptTokens, model.tokenizer.encode(PROMPT).length);
    assert.equal(result.completionTokens, result.tokenIds.length);
  }));

Deno.test("generation: the same seeds give the same text alone and in a crowd", () =>
  withModel(async (model) => {
    const start = (seed: number) =>
      model.generate(PROMPT, { maxTokens: 30, seed, temperature: 0.9, topK: 50 });
    const alone: string[] = [];
    for (const seed of [1, 2, 3, 4]) alone.push((await start(seed)).text);
    const crowd = await Promise.all([1, 2, 3, 4].map(start));
    assert.deepEqual(crowd.map(({ text }) => text), alone);
    assert.equal(new Set(alone).size, 4);
  }));

Deno.test("generation: leaving the loop gives the memory back", () =>
  withModel(async (model) => {
    // Each may become as long as the context: a leak of one would block all that follow.
    for (let i = 0; i < 20; i++) {
      for await (const { text } of model.generate(PROMPT, { ignoreEos: true, seed: i })) {
        assert.ok(text.length > 0);
        break;
      }
    }
    assert.equal((await model.generate(PROMPT, { maxTokens: 1 })).completionTokens, 1);
  }));

Deno.test("generation: a signal ends it with what there is", () =>
  withModel(async (model) => {
    const controller = new AbortController();
    const generation = model.generate(PROMPT, { ignoreEos: true, signal: controller.signal });
    let pieces = 0;
    for await (const _ of generation) if (++pieces === 5) controller.abort();
    const result = await generation;
    assert.equal(result.finishReason, "abort");
    assert.ok(result.completionTokens >= 5 && result.completionTokens < 200);
    const late = await model.generate(PROMPT, { signal: controller.signal });
    assert.deepEqual([late.finishReason, late.text], ["abort", ""]);
  }));

Deno.test("generation: it stops at a string, at the length, and at the context's end", () =>
  withModel(async (model) => {
    const greedy = await model.generate(PROMPT, { maxTokens: 20, temperature: 0 });
    const stop = greedy.text.slice(10, 14);
    const stopped = await model.generate(PROMPT, { maxTokens: 20, temperature: 0, stop: [stop] });
    assert.equal(stopped.text, greedy.text.slice(0, greedy.text.indexOf(stop)));
    assert.equal(stopped.finishReason, "stop");
    assert.equal(greedy.finishReason, "length");
    const none = await model.generate(PROMPT, { maxTokens: 0 });
    assert.deepEqual([none.finishReason, none.completionTokens], ["length", 0]);
    const all = await model.generate(PROMPT, { ignoreEos: true, seed: 1, temperature: 1 });
    assert.equal(all.promptTokens + all.completionTokens, model.contextSize);
    assert.equal(all.finishReason, "length");
  }));

Deno.test("generation: drafts change the speed and no token, greedy and drawn, in a crowd", () =>
  withModel(async (model) => {
    const story = (await model.generate(PROMPT, { maxTokens: 60, seed: 1 })).text;
    // Told twice, a story is told again: the model's own words are there to be copied.
    const prompt = `${PROMPT}${story} ${PROMPT}${story} ${PROMPT}`;
    const samplers = [
      { temperature: 0 },
      { temperature: 0.8, seed: 7 },
      { temperature: 0.6, topK: 20, seed: 7 },
      { temperature: 0.9, topP: 0.9, repeatPenalty: 1.1, seed: 9 },
    ];
    const start = (speculate: GenerateOptions["speculate"]) =>
      samplers.map((sampler) => model.generate(prompt, { ...sampler, maxTokens: 60, speculate }));
    const plain: GenerationResult[] = [];
    for (const generation of start("off")) plain.push(await generation);
    let accepted = 0;
    for (const speculate of ["auto", 1, 7, 15] as const) {
      const results = await Promise.all(start(speculate));
      results.forEach(({ tokenIds, text, timings }, i) => {
        assert.deepEqual([tokenIds, text], [plain[i].tokenIds, plain[i].text]);
        if (speculate !== "auto") accepted += timings.acceptedTokens;
      });
    }
    assert.ok(accepted > 10);
    assert.ok(plain.every(({ timings }) => timings.draftTokens === 0));
    assert.throws(() => model.generate(PROMPT, { speculate: 16 }), /speculate must be .* is 16/);
  }));

Deno.test("generation: impossible requests are refused with the value", () =>
  withModel(async (model) => {
    const { vocabSize } = model.spec;
    assert.throws(() => model.generate([]), /empty prompt/);
    assert.throws(() => model.generate([vocabSize]), new RegExp(`token id ${vocabSize}`));
    assert.throws(() => model.generate([1.5]), /token id 1.5/);
    assert.throws(() => model.generate(PROMPT, { maxTokens: -1 }), /maxTokens .* -1/);
    assert.throws(
      () => model.generate(new Array(model.contextSize).fill(1)),
      /a prompt of 512 tokens as the context holds 512/,
    );
    await assert.rejects(loadModel(undefined, { threads: 0 }), /threads 0/);
    await assert.rejects(loadModel(undefined, { contextSize: 2 ** 30 }), RangeError);
  }));

Deno.test("generation: closing the model ends what runs", async () => {
  const model = await loadModel(undefined, { threads: 2 });
  const running = model.generate(PROMPT, { ignoreEos: true });
  const ended = assert.rejects(Promise.resolve(running), /The model was closed/);
  await model[Symbol.asyncDispose]();
  await model[Symbol.asyncDispose]();
  await ended;
  assert.throws(() => model.generate(PROMPT), /the model is closed/);
});

Deno.test("generation: a known beginning, also of an aborted one, gives the same text", () =>
  withModel(async (model) => {
    const prompt = "Once upon a time there was a dragon. ".repeat(6);
    const options = { maxTokens: 20, seed: 5, temperature: 0.8 };
    const fresh = await model.generate(prompt, { ...options, cachePrompt: false });
    assert.equal(fresh.cachedTokens, 0);
    for await (const _ of model.generate(prompt, { ...options, seed: 1 })) break;
    const again = await model.generate(prompt, options);
    assert.ok(again.cachedTokens >= 32);
    assert.deepEqual([again.tokenIds, again.text], [fresh.tokenIds, fresh.text]);
    const { kvBlocks, totals } = model.status();
    assert.equal(kvBlocks.used, 0);
    assert.ok(kvBlocks.cached > 0 && totals.cachedTokens === again.cachedTokens);
  }));

Deno.test("generation: where the cache is too small for all, all get their text", async () => {
  await using roomy = await loadModel(undefined, { threads: 1, cacheTokens: 8192 });
  await using narrow = await loadModel(undefined, { threads: 1 });
  const texts = async (model: Model) => {
    const crowd = [1, 2, 3, 4, 5, 6].map((seed) =>
      model.generate(`${PROMPT} ${seed}`, { seed, temperature: 1, maxTokens: 200, ignoreEos: true })
    );
    return (await Promise.all(crowd)).map(({ tokenIds }) => tokenIds);
  };
  assert.deepEqual(await texts(narrow), await texts(roomy));
  assert.ok(narrow.status().totals.preemptions > 0);
  assert.equal(roomy.status().totals.preemptions, 0);
  assert.equal(narrow.status().kvBlocks.used, 0);
});

Deno.test("generation: log-probabilities are of every token, whatever the pieces", () =>
  withModel(async (model) => {
    const options = { maxTokens: 30, temperature: 0, logprobs: 3 };
    const generation = model.generate(PROMPT, options);
    const told: number[] = [];
    for await (const { tokenIds, logprobs } of generation) {
      assert.deepEqual(logprobs!.map(({ id }) => id), tokenIds);
      told.push(...tokenIds);
    }
    const { logprobs, tokenIds, head } = await generation;
    assert.deepEqual(logprobs!.map(({ id }) => id), tokenIds);
    assert.equal(head, "full");
    for (const { id, logprob, top } of logprobs!) {
      assert.deepEqual(top[0], { id, logprob });
      assert.equal(top.length, 3);
      assert.ok(logprob <= 0 && top[0].logprob >= top[1].logprob);
    }
    assert.throws(() => model.generate(PROMPT, { logprobs: 21 }), /logprobs must be .* is 21/);
  }));

/** Texts of the letters a and b, in turn, of even length. */
const TURNS: Grammar = {
  source: { kind: "regex", pattern: "(ab)*" },
  numStates: 2,
  start() {
    let length = 0;
    const allowed = new Uint32Array(Math.ceil(TOY_VOCAB_SIZE / 32));
    const idOf = (at: number) => "ab".charCodeAt(at % 2) - "0".charCodeAt(0);
    return {
      allowed() {
        allowed.fill(0);
        allowed[idOf(length) >> 5] = 1 << (idOf(length) & 31);
        return allowed;
      },
      accept(id) {
        assert.equal(id, idOf(length));
        length++;
      },
      get isComplete() {
        return length % 2 === 0;
      },
      get isFinished() {
        return length === 10;
      },
    };
  },
};

Deno.test("generation: a grammar holds with either head, greedy and drawn, beside others", async () => {
  for (const head of ["full", "two-stage"] as const) {
    const context = toyContext({ head });
    const samplers = [{ temperature: 0 }, { temperature: 1, topK: 3, seed: 1 }, { seed: 2 }];
    const running = samplers.map((sampler) =>
      startGeneration(context, [1, 2, 3], { ...sampler, grammar: TURNS })
    );
    const other = startGeneration(context, [4], { temperature: 0, maxTokens: 20 });
    for (const { text, finishReason } of await Promise.all(running)) {
      assert.deepEqual([text, finishReason], ["ababababab", "stop"]);
    }
    assert.equal((await other).completionTokens, 20);
  }
});
