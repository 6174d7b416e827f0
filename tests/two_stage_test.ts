/**
 * Whole generations with the two-stage head and with drafts, by native kernels: the tokens are those
 * of the full head, one at a time, whatever the sampler. On random weights, and on the story model's.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import type { RopeTables } from "../codegen/step/reference.ts";
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { librarySources } from "../kernels/choose.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { readModelConfig } from "../runtime/config.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { type GenerationContext, startGeneration } from "../runtime/generation.ts";
import { type NativeExecutor, openPacked } from "../runtime/native_executor.ts";
import { packModel } from "../runtime/pack.ts";
import { joinedTables, ropeTables } from "../runtime/rope.ts";
import { Scheduler } from "../runtime/scheduler.ts";
import { referencePacker } from "../runtime/ternary_packer.ts";
import { loadTokenizer } from "../runtime/tokenizer.ts";
import type { GenerateOptions, HeadKind, Tokenizer } from "../runtime/types.ts";
import { KERNELS_OF_ARCH, lackingFor, ZIG } from "./machine.ts";
import { ODD_MODELS } from "./odd_models.ts";
import { randomPacked, someRope } from "./random_model.ts";

const KERNEL = KERNELS_OF_ARCH.find(({ isa }) => lackingFor(isa) === null)!;
const CONTEXT = 128;

interface Weighted {
  spec: ModelSpec;
  packed: Uint8Array;
  rope: RopeTables;
}

async function randomModel(): Promise<Weighted> {
  const spec = { ...ODD_MODELS[0].spec, vocabSize: 1500, headSketch: true };
  const packed = await randomPacked(spec, 5, KERNEL.scheme.layout);
  return { spec, packed, rope: someRope(spec, CONTEXT) };
}

async function storyModel(): Promise<Weighted> {
  await using checkpoint = await openCheckpoint(embeddedModelFolder());
  const config = await readModelConfig(checkpoint);
  config.spec = { ...config.spec, headSketch: true };
  const { layout } = KERNEL.scheme;
  const packed = new Uint8Array(planOf(config.spec, layout).totalBytes);
  const sink = (bytes: Uint8Array, offset: number) => packed.set(bytes, offset);
  using packer = referencePacker(layout);
  await packModel(config.spec, openWeights(config, checkpoint), sink, { packer });
  return { spec: config.spec, packed, rope: ropeTables(config, CONTEXT) };
}

async function openExecutor(
  { spec, packed, rope }: Weighted,
  kernel: TernaryKernel,
): Promise<NativeExecutor> {
  const sources = librarySources(spec, kernel, "f32");
  const { path } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
  return openPacked(path, packed, {
    kernels: kernel.isa,
    head: "two-stage",
    threads: 2,
    vocabSize: spec.vocabSize,
    hiddenSize: spec.hiddenSize,
    maxBatchTokens: CONTEXT,
    contextSize: CONTEXT,
    kvBlocks: 4 * CONTEXT / KV_BLOCK_POSITIONS,
    rope: joinedTables(rope),
  });
}

function contextOf(
  executor: NativeExecutor,
  tokenizer: Tokenizer,
  { vocabSize }: ModelSpec,
  head: HeadKind,
): GenerationContext {
  const kvBlocks = 4 * CONTEXT / KV_BLOCK_POSITIONS;
  return {
    scheduler: new Scheduler({ executor, vocabSize, kvBlocks, maxBatchTokens: CONTEXT }),
    tokenizer,
    vocabSize,
    contextSize: CONTEXT,
    eosTokenIds: [],
    head,
    compileMs: 0,
    loadMs: 0,
  };
}

const SAMPLERS: fc.Arbitrary<GenerateOptions> = fc.record({
  temperature: fc.constantFrom(0, 0, 0.4, 1.2),
  topK: fc.constantFrom(0, 1, 4, 40, 100, 250),
  topP: fc.constantFrom(0.5, 0.95, 1),
  minP: fc.constantFrom(0, 0.05),
  typicalP: fc.constantFrom(0.7, 1, 1),
  repeatPenalty: fc.constantFrom(1, 1.2),
  presencePenalty: fc.constantFrom(0, 0, 0.5),
  frequencyPenalty: fc.constantFrom(0, 0, 0.3),
  penaltyLastN: fc.constantFrom(-1, 8, 64),
  logitBias: fc.constantFrom(undefined, new Map([[3, -Infinity], [7, -1]]), new Map([[11, 4]])),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

async function compare(model: Weighted, prompts: fc.Arbitrary<number[]>): Promise<void> {
  const tokenizer = await loadTokenizer(embeddedModelFolder());
  await using executor = await openExecutor(model, KERNEL);
  let twoStage = 0;
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(prompts, SAMPLERS), { minLength: 1, maxLength: 3 }),
      fc.constantFrom("off" as const, "auto" as const, 3, 9),
      async (requests, speculate) => {
        const plain = contextOf(executor, tokenizer, model.spec, "full");
        const quick = contextOf(executor, tokenizer, model.spec, "two-stage");
        const expected: number[][] = [];
        for (const [prompt, sampler] of requests) {
          const options = { ...sampler, maxTokens: 24, speculate: "off" as const };
          expected.push((await startGeneration(plain, prompt, options)).tokenIds);
        }
        const results = await Promise.all(
          requests.map(([prompt, sampler]) =>
            startGeneration(quick, prompt, { ...sampler, maxTokens: 24, speculate })
          ),
        );
        assert.deepEqual(results.map(({ tokenIds }) => tokenIds), expected);
        twoStage += results.filter(({ head }) => head === "two-stage").length;
        accepted += results.reduce((sum, { timings }) => sum + timings.acceptedTokens, 0);
      },
    ),
    { numRuns: 60, seed: 12 },
  );
  assert.ok(twoStage > 20 && accepted > 20, `${twoStage} with two stages, ${accepted} accepted`);
  assert.ok(executor.rescoredRows > 0);
}

Deno.test("two-stage head: generations of a random model are those of the full head", async () => {
  const id = fc.integer({ min: 0, max: 1499 });
  await compare(await randomModel(), fc.array(id, { minLength: 1, maxLength: 20 }));
});

Deno.test("two-stage head: generations of the story model are those of the full head", async () => {
  const tokenizer = await loadTokenizer(embeddedModelFolder());
  const prompts = [
    "Once upon a time",
    "Tom and Lily like to play. Tom and Lily",
    "The dog said: no",
  ];
  const ids = prompts.map((prompt) => tokenizer.encode(prompt));
  await compare(await storyModel(), fc.constantFrom(...ids));
});
