import assert from "node:assert/strict";
import { loadModel } from "./engine.ts";
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
