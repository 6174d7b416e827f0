/**
 * The same float32 bits from every kernel of this CPU and from the reference, on any number of
 * threads, alone or beside others, in one chunk or many. `neon_test.ts` does the same for ARM.
 */
import assert from "node:assert/strict";
import type { KernelChoice } from "../codegen/isa.ts";
import type { KvType } from "../codegen/model_spec.ts";
import { defaultKernel, kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { cacheDirectory } from "../kernels/cache.ts";
import { LogitsWork } from "../runtime/logits.ts";
import { loadModel, type LoadOptions, type Model } from "../runtime/mod.ts";
import { Scheduler } from "../runtime/scheduler.ts";
import { documentOf, runCli } from "./cli_process.ts";
import { type GoldenModel, goldenModels, PLAIN_MODEL } from "./golden_models.ts";
import { KERNELS_OF_ARCH, lackingFor, NATIVE_ISAS } from "./machine.ts";
import {
  expectedLogits,
  FEW_ODD_MODELS,
  firstDifference,
  kernelFor,
  KV_BLOCKS,
  ODD_MODELS,
  type OddModel,
  sequencesOf,
} from "./odd_models.ts";
import { openOddModel } from "./odd_executor.ts";
import { testUnless } from "./tools.ts";

/** One way to run the same tokens. */
interface Way {
  threads: number;
  /** Most tokens of a step: prompts are prefilled in chunks of it. */
  maxBatchTokens: number;
  /** All sequences at once, so that steps mix them; else one after the other. */
  together: boolean;
}

const WAYS: readonly Way[] = [
  { threads: 1, maxBatchTokens: 256, together: false },
  { threads: 2, maxBatchTokens: 1, together: false },
  { threads: 3, maxBatchTokens: 7, together: true },
  { threads: 2, maxBatchTokens: 256, together: true },
  { threads: 1, maxBatchTokens: 7, together: false },
];

function nameOf({ threads, maxBatchTokens, together }: Way): string {
  return `${threads} threads, steps of ${maxBatchTokens}, ${together ? "together" : "alone"}`;
}

/** Runs calls at once or one after the other. */
async function runAll<T>(calls: readonly (() => Promise<T>)[], together: boolean): Promise<T[]> {
  if (together) return await Promise.all(calls.map((call) => call()));
  const results: T[] = [];
  for (const call of calls) results.push(await call());
  return results;
}

function joined(rows: readonly Float32Array[]): Float32Array {
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  const index = firstDifference(actual, expected);
  assert.equal(index, -1, `${what}: logit ${index} is ${actual[index]}, not ${expected[index]}`);
}

// ---------------------------------------------------------------- odd shapes

async function nativeLogits(
  model: OddModel,
  kernel: TernaryKernel,
  way: Way,
): Promise<Float32Array[]> {
  await using executor = await openOddModel(model, kernel, way);
  const { vocabSize } = model.spec;
  const { maxBatchTokens, together } = way;
  const scheduler = new Scheduler({ executor, vocabSize, kvBlocks: KV_BLOCKS, maxBatchTokens });
  const calls = sequencesOf(model).map((ids) => async () => {
    const work = new LogitsWork(ids, "all");
    scheduler.add(work);
    const results = await Array.fromAsync(work.results());
    return joined(results.map(({ logits }) => logits));
  });
  return await runAll(calls, together);
}

/**
 * All models for the kernels that instruction sets have by default. The others differ in their linears
 * only, which are proved on all edge shapes, or just in what they fetch ahead. Portable kernels matter
 * where there are no others.
 */
function modelsFor(kernel: TernaryKernel): readonly OddModel[] {
  if (kernelName(kernel).endsWith("-prefetch")) return ODD_MODELS.slice(0, 1);
  const isDefault = [null, "AuthenticAMD"].some((vendor) =>
    kernel === defaultKernel(kernel.isa, vendor)
  );
  const isLast = kernel.isa === "portable" && NATIVE_ISAS[0] !== "portable";
  return isDefault && !isLast ? ODD_MODELS : FEW_ODD_MODELS;
}

for (const kernel of KERNELS_OF_ARCH) {
  testUnless(lackingFor(kernel.isa), `bit-exact: ${kernelName(kernel)}, odd shapes`, async () => {
    for (const model of modelsFor(kernel)) {
      const own = kernelFor(model, kernel);
      if (own === undefined) continue;
      const expected = await expectedLogits(model);
      for (const way of WAYS) {
        const actual = await nativeLogits(model, own, way);
        actual.forEach((logits, s) => {
          assertSameBits(logits, expected[s], `${model.name}; ${nameOf(way)}; sequence ${s}`);
        });
      }
    }
  });
}

// ---------------------------------------------------------------- golden checkpoints

async function modelLogits(model: Model, ids: readonly number[]): Promise<Float32Array> {
  const results = await Array.fromAsync(model.logits(ids, { positions: "all" }));
  return joined(results.map(({ logits }) => logits));
}

async function goldenLogits(
  { folder }: GoldenModel,
  sequences: readonly number[][],
  options: LoadOptions,
  together = false,
): Promise<Float32Array[]> {
  await using model = await loadModel(folder, options);
  return await runAll(sequences.map((ids) => () => modelLogits(model, ids)), together);
}

/** Of instruction sets, what `--kernels` says. */
const CHOICES: readonly KernelChoice[] = [
  ...new Set(NATIVE_ISAS.map((isa) => isa.startsWith("neon") ? "neon" : isa as KernelChoice)),
];

/** The best; the others run odd shapes, narrow caches and the command line. */
const GOLDEN_CHOICES = CHOICES.slice(0, 1);

for (const golden of goldenModels().filter(({ name }) => name !== PLAIN_MODEL)) {
  Deno.test(`bit-exact: ${golden.name} with ${GOLDEN_CHOICES.join(", ")}, reference`, async () => {
    const sequences = golden.manifest.sequences
      .filter(({ name }) => /^len(7|14)_random$/.test(name)).map(({ input_ids: ids }) => ids);
    assert.equal(sequences.length, 2);
    const expected = await goldenLogits(golden, sequences, { kernels: "reference" });
    for (const [i, kernels] of GOLDEN_CHOICES.entries()) {
      for (const { together, ...way } of [WAYS[2], WAYS[i % 2]]) {
        const actual = await goldenLogits(golden, sequences, { kernels, ...way }, together);
        actual.forEach((logits, s) => assertSameBits(logits, expected[s], `${kernels} ${s}`));
      }
    }
  });
}

for (const kvType of ["f16", "int8"] as const) {
  Deno.test(`bit-exact: ${kvType} caches give the same bits with all kernels, others than f32's`, () =>
    checkNarrowCache(kvType));
}

async function checkNarrowCache(kvType: KvType): Promise<void> {
  const golden = goldenModels().find(({ name }) => name === "falcon3-158-packed")!;
  const sequences = [
    golden.manifest.sequences.find(({ name }) => name === "len64_text")!.input_ids,
  ];
  const [wide] = await goldenLogits(golden, sequences, { kernels: "reference" });
  const [expected] = await goldenLogits(golden, sequences, { kernels: "reference", kvType });
  assert.notEqual(firstDifference(wide, expected), -1);
  for (const kernels of CHOICES) {
    const options = { kernels, kvType, threads: 2, maxBatchTokens: 7 } as const;
    const [actual] = await goldenLogits(golden, sequences, options);
    assertSameBits(actual, expected, kernels);
  }
}

Deno.test("bit-exact: a token decoded alone is a token of a prompt", async () => {
  const golden = goldenModels().find(({ name }) => name === "bitnet-2b4t-packed")!;
  await using model = await loadModel(golden.folder, { threads: 2 });
  const prompt = golden.manifest.sequences.find(({ name }) => name === "len14_random")!.input_ids;
  const options = { temperature: 0, maxTokens: 20, ignoreEos: true };
  const [one, ...others] = await Promise.all(
    [prompt, prompt.slice(0, 5), prompt].map(async (ids) =>
      (await model.generate(ids, options)).tokenIds
    ),
  );
  assert.deepEqual(one, others[1]);
  assert.deepEqual(one, (await model.generate(prompt, options)).tokenIds);
  // Each token is the best after those before it, computed in one go.
  const all = await Array.fromAsync(model.logits([...prompt, ...one], { positions: "all" }));
  one.forEach((id, i) => {
    const { logits } = all[prompt.length - 1 + i];
    assert.equal(logits[id], Math.max(...logits), `token ${i}`);
  });
});

Deno.test("bit-exact: the command line prints the same logits whatever its flags", async () => {
  const ids = Array.from({ length: 40 }, (_, i) => 31 * i % 1000).join(",");
  const args = ["logits", "--ids", ids, "--json", "--quiet"];
  const printed = new Set<string>();
  for (const kernels of [...CHOICES, "reference"]) {
    for (const flags of [["--threads", "1"], ["--threads", "2", "--chunk", "9"]]) {
      const command = [...args, "--kernels", kernels, ...flags];
      const ended = await runCli(command, { cache: cacheDirectory() });
      assert.equal(documentOf(ended).positions.length, 40);
      printed.add(ended.stdout);
    }
  }
  assert.equal(printed.size, 1);
});
