/** Neither drafts nor the two-stage head change a token: any options, any company, any end. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { SKETCH_TOKENS } from "../codegen/head/sketch.ts";
import { startGeneration } from "./generation.ts";
import { TOY_VOCAB_SIZE, toyContext, type ToyOptions } from "./fake_executor.ts";
import type { GenerateOptions, GenerationResult } from "./types.ts";

const id = fc.integer({ min: 0, max: TOY_VOCAB_SIZE - 1 });
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const SAMPLERS: fc.Arbitrary<GenerateOptions> = fc.record({
  temperature: fc.constantFrom(0, 0, 0.2, 0.7, 1.5),
  topK: optional(fc.constantFrom(0, 1, 2, 5, 12, 100)),
  topP: optional(fc.constantFrom(0, 0.4, 0.9, 1)),
  minP: optional(fc.constantFrom(0, 0.05, 0.5)),
  typicalP: optional(fc.constantFrom(0.3, 0.9)),
  repeatPenalty: optional(fc.constantFrom(0.7, 1, 1.1, 1.3, 2)),
  presencePenalty: optional(fc.constantFrom(-0.5, 0, 0.3, 0.8)),
  frequencyPenalty: optional(fc.constantFrom(-0.2, 0, 0.1, 0.4)),
  penaltyLastN: optional(fc.constantFrom(-1, 0, 3, 64)),
  logitBias: optional(
    fc.array(fc.tuple(id, fc.constantFrom(-Infinity, -Infinity, -3, -1, 0, 2)), { maxLength: 4 })
      .map((pairs) => new Map(pairs)),
  ),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

const REQUESTS = fc.record({
  prompt: fc.array(id, { minLength: 1, maxLength: 40 }),
  options: SAMPLERS,
  maxTokens: optional(fc.integer({ min: 0, max: 80 })),
  stop: fc.array(fc.constantFrom("A", "BC", "DDD", "01"), { maxLength: 2 }),
  ignoreEos: fc.boolean(),
});
type Request = typeof REQUESTS extends fc.Arbitrary<infer T> ? T : never;

function run(
  request: Request,
  context: ReturnType<typeof toyContext>,
  speculate: GenerateOptions["speculate"],
): PromiseLike<GenerationResult> {
  const { prompt, options, maxTokens, stop, ignoreEos } = request;
  const all = { ...options, maxTokens, stop, ignoreEos, speculate };
  return startGeneration(context, prompt, all);
}

/** All but how long it took. */
function outcome({ tokenIds, text, finishReason }: GenerationResult) {
  return { tokenIds, text, finishReason };
}

const TOY: ToyOptions = { eosTokenIds: [7], kvBlocks: 6 };

/** One after the other, every token with all logits and without drafts. */
async function plainly(requests: readonly Request[]) {
  const results = [];
  for (const request of requests) {
    results.push(outcome(await run(request, toyContext(TOY), "off")));
  }
  return results;
}

const SPECULATE = fc.oneof(
  fc.constantFrom("off" as const, "auto" as const),
  fc.integer({ min: 1, max: 15 }),
);

Deno.test("exactness: drafts and the two-stage head give the same tokens, alone and together", async () => {
  let drafted = 0;
  let accepted = 0;
  let twoStage = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(REQUESTS, SPECULATE), { minLength: 1, maxLength: 5 }),
      fc.constantFrom("full" as const, "two-stage" as const),
      fc.constantFrom(1, 5, 64),
      fc.integer({ min: 6, max: 24 }),
      async (requests, head, maxBatchTokens, kvBlocks) => {
        const expected = await plainly(requests.map(([request]) => request));
        // The context is as long as before: only the room for several sequences differs.
        const context = toyContext({ ...TOY, head, maxBatchTokens, kvBlocks });
        const results = await Promise.all(
          requests.map(([request, speculate]) =>
            run(request, { ...context, contextSize: 6 * 16 }, speculate)
          ),
        );
        assert.deepEqual(results.map(outcome), expected);
        for (const { timings, head } of results) {
          assert.ok(timings.acceptedTokens <= timings.draftTokens);
          drafted += timings.draftTokens;
          accepted += timings.acceptedTokens;
          if (head === "two-stage") twoStage++;
        }
      },
    ),
    { numRuns: 400, seed: 8 },
  );
  assert.ok(accepted > 1000 && drafted > accepted && twoStage > 100, "it has been tried");
});

Deno.test("exactness: drafts save steps, and none is run for what can't become a token", async () => {
  const prompt = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2];
  for (const maxTokens of [1, 2, 3, 10, 80]) {
    const context = toyContext();
    const options = { temperature: 0, maxTokens, speculate: 15 };
    const { timings, completionTokens } = await startGeneration(context, prompt, options);
    const { batches } = context.executor;
    assert.equal(completionTokens, maxTokens);
    assert.equal(batches.length + timings.acceptedTokens, maxTokens);
    const last = Math.max(...batches.flatMap(({ positions }) => [...positions]));
    assert.ok(last <= prompt.length + maxTokens - 2);
    if (maxTokens === 80) assert.ok(timings.acceptedTokens > 5);
  }
});

Deno.test("exactness: an end inside accepted drafts forgets what was run after it", async () => {
  const prompt = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1];
  const all = await startGeneration(toyContext(), prompt, { temperature: 0, maxTokens: 60 });
  for (const at of [3, 8, 15, 30, 44]) {
    const eosTokenIds = [all.tokenIds[at]];
    const ended = all.tokenIds.slice(0, all.tokenIds.indexOf(eosTokenIds[0]) + 1);
    const stop = [all.text.slice(at, at + 3)];
    for (const speculate of [1, 4, 15]) {
      const options = { temperature: 0, maxTokens: 60, speculate };
      const atEos = await startGeneration(toyContext({ eosTokenIds }), prompt, options);
      assert.deepEqual([atEos.tokenIds, atEos.finishReason], [ended, "stop"]);
      const atStop = await startGeneration(toyContext(), prompt, { ...options, stop });
      assert.equal(atStop.text, all.text.slice(0, all.text.indexOf(stop[0])));
    }
  }
});

Deno.test("exactness: a signal inside a step keeps the tokens so far, and others go on", async () => {
  const prompt = [5, 6, 5, 6, 5];
  const options = { temperature: 0, maxTokens: 60, speculate: 6 };
  const expected = await startGeneration(toyContext(), prompt, { ...options, speculate: "off" });
  for (const after of [1, 2, 5, 20]) {
    const context = toyContext();
    const controller = new AbortController();
    const aborted = startGeneration(context, prompt, { ...options, signal: controller.signal });
    const other = startGeneration(context, prompt, options);
    let pieces = 0;
    for await (const _ of aborted) if (++pieces === after) controller.abort();
    const { tokenIds, finishReason } = await aborted;
    assert.equal(finishReason, "abort");
    assert.ok(tokenIds.length >= after);
    assert.deepEqual(tokenIds, expected.tokenIds.slice(0, tokenIds.length));
    assert.deepEqual(outcome(await other), outcome(expected));
  }
});

Deno.test("exactness: drafts only while few sequences decode and none is in its prompt", async () => {
  const context = toyContext({ kvBlocks: 64 });
  const options = { temperature: 0, maxTokens: 30, speculate: 4 };
  const prompt = [1, 2, 1, 2, 1, 2];
  const crowd = Array.from({ length: 6 }, () => startGeneration(context, prompt, options));
  await Promise.all(crowd);
  assert.ok(context.executor.batches.slice(1).every(({ ids }) => ids.length <= 6));
  const two = toyContext({ kvBlocks: 64, maxBatchTokens: 8 });
  await Promise.all([
    startGeneration(two, prompt, options),
    startGeneration(two, new Array(60).fill(3), { ...options, maxTokens: 1 }),
  ]);
  const mixed = two.executor.batches.slice(1).filter(({ tablesOf }) =>
    new Set(tablesOf).size === 2
  );
  assert.ok(mixed.length > 3);
  for (const { tablesOf } of mixed) assert.equal(tablesOf.filter((row) => row === 0).length, 1);
});

Deno.test("exactness: results say which head the tokens came from", async () => {
  const headOf = async (head: "full" | "two-stage", options: GenerateOptions) =>
    (await startGeneration(toyContext({ head }), [1], { maxTokens: 3, ...options })).head;
  assert.equal(await headOf("two-stage", { temperature: 0 }), "two-stage");
  assert.equal(await headOf("two-stage", { topK: 5 }), "two-stage");
  assert.equal(await headOf("two-stage", { topP: 0.9 }), "full");
  assert.equal(await headOf("two-stage", { temperature: 0, repeatPenalty: 0.5 }), "full");
  assert.equal(await headOf("two-stage", { topK: 5, logitBias: new Map([[1, 1]]) }), "full");
  assert.equal(await headOf("full", { temperature: 0 }), "full");
  // Who needs all logits makes them for all that share its steps.
  const context = toyContext({ head: "two-stage" });
  const together = [{ temperature: 0, maxTokens: 3 }, { topP: 0.9, maxTokens: 4 }];
  const results = await Promise.all(together.map((o) => startGeneration(context, [1], o)));
  assert.deepEqual(results.map(({ head }) => head), ["full", "full"]);
});

Deno.test("exactness: steps with more rows than the sketch is for say that they used the full head", async () => {
  for (
    const [count, head] of [[SKETCH_TOKENS, "two-stage"], [SKETCH_TOKENS + 1, "full"]] as const
  ) {
    const limits = { maxBatchTokens: count, maxSequences: count };
    const context = toyContext({ head: "two-stage", kvBlocks: 2 * count, ...limits });
    const crowd = Array.from(
      { length: count },
      () => startGeneration(context, [1], { temperature: 0, maxTokens: 3 }),
    );
    const heads = (await Promise.all(crowd)).map((result) => result.head);
    assert.deepEqual(heads, new Array(count).fill(head));
    const { logitCandidates } = context.executor.batches.at(-1)!;
    assert.deepEqual(logitCandidates, new Int32Array(count).fill(head === "full" ? 0 : 1));
  }
});
