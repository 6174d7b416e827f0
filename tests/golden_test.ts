/**
 * The golden checkpoints through the public API: what Hugging Face's transformers computed in
 * float32 is what Trilith computes, up to the tie-breaks that the conformance data explains.
 */
import assert from "node:assert/strict";
import { LINEAR_NAMES } from "../codegen/model_spec.ts";
import { ReferenceStep, type Tap } from "../codegen/step/reference.ts";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { readModelConfig } from "../runtime/config.ts";
import { loadModel, type LoadOptions, type Model, NotTernaryError } from "../runtime/mod.ts";
import { packModel } from "../runtime/pack.ts";
import { ternaryOf } from "../runtime/ternary.ts";
import { planOf } from "../codegen/plan.ts";
import { ropeTables } from "../runtime/rope.ts";
import { prefillBatch } from "./batches.ts";
import { ternarisedLogits } from "./float64_llama.ts";
import {
  argmax,
  differenceOf,
  type GoldenGreedy,
  type GoldenModel,
  goldenModel,
  goldenModels,
  type GoldenSequence,
  PLAIN_MODEL,
} from "./golden_models.ts";

/** Of a logit, where no rounding is near a tie. */
const TOLERANCE = 1e-3;

/** Elsewhere means may be this many times what noise of 2^-22 does. */
const NOISE_FACTOR = 3;

const TERNARY_MODELS = goldenModels().filter(({ name }) => name !== PLAIN_MODEL);

async function logitsOf(model: Model, ids: readonly number[]): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  for await (const { position, logits } of model.logits(ids, { positions: "all" })) {
    assert.equal(position, rows.length);
    rows.push(logits);
  }
  return rows;
}

async function checkSequence(
  model: Model,
  golden: GoldenModel,
  sequence: GoldenSequence,
): Promise<{ wrongTops: number }> {
  const { name, exact_positions: exact } = sequence;
  const rows = await logitsOf(model, sequence.input_ids);
  assert.equal(rows.length, sequence.input_ids.length);
  const expected = golden.read(sequence.logits_file);
  const means = sequence.logits_positions.map((position, i) => {
    const { max, mean } = differenceOf(rows[position], expected.row(i));
    if (exact.includes(position)) {
      assert.ok(max <= TOLERANCE, `${name}: a logit of position ${position} is off by ${max}`);
    }
    return mean;
  });
  if (exact.length < sequence.logits_positions.length) {
    const mean = means.reduce((a, b) => a + b) / means.length;
    const limit = NOISE_FACTOR * golden.manifest.sensitivity.f32_noise.per_sequence[name].mean_abs;
    assert.ok(mean <= limit, `${name}: the mean difference is ${mean}, must be at most ${limit}`);
  }
  const tops = rows.map(argmax);
  for (const position of exact) {
    assert.equal(tops[position], sequence.argmax_all_positions[position], `${name}: ${position}`);
  }
  const wrongTops = tops.filter((id, i) => id !== sequence.argmax_all_positions[i]).length;
  return { wrongTops };
}

async function checkSequences(model: Model, golden: GoldenModel, longest: number): Promise<void> {
  const sequences = golden.manifest.sequences
    .filter(({ input_ids: ids }) => ids.length <= longest);
  assert.ok(sequences.length >= 4);
  let positions = 0;
  let wrong = 0;
  for (const sequence of sequences) {
    wrong += (await checkSequence(model, golden, sequence)).wrongTops;
    positions += sequence.input_ids.length;
  }
  const { argmax_agreement: agreement } = golden.manifest.sensitivity.f32_noise.worst;
  const allowed = NOISE_FACTOR * (1 - agreement) * positions;
  assert.ok(wrong <= allowed, `${wrong} of ${positions} best tokens differ, allowed ${allowed}`);
}

async function checkGreedy(model: Model, greedy: GoldenGreedy): Promise<void> {
  const maxTokens = greedy.new_ids.length;
  const options = { temperature: 0, maxTokens, ignoreEos: true };
  const { tokenIds, finishReason } = await model.generate(greedy.prompt_ids, options);
  const stable = greedy.stable_prefix;
  assert.deepEqual(tokenIds.slice(0, stable), greedy.new_ids.slice(0, stable));
  assert.deepEqual([tokenIds.length, finishReason], [maxTokens, "length"]);
}

/** Logits before each new token, when the reference's tokens are followed. */
async function checkStepLogits(
  model: Model,
  golden: GoldenModel,
  greedy: GoldenGreedy,
): Promise<void> {
  const expected = golden.read(greedy.step_logits_file!);
  assert.equal(expected.count, greedy.new_ids.length);
  const first = greedy.prompt_ids.length - 1;
  const rows = (await logitsOf(model, [...greedy.prompt_ids, ...greedy.new_ids.slice(0, -1)]))
    .slice(first);
  const means = rows.map((row, step) => differenceOf(row, expected.row(step)).mean);
  const mean = means.reduce((a, b) => a + b) / means.length;
  const limit = NOISE_FACTOR * golden.manifest.sensitivity.f32_noise.worst.mean_abs;
  assert.ok(mean <= limit, `the mean difference is ${mean}, must be at most ${limit}`);
  rows.slice(0, greedy.stable_prefix).forEach((row, step) => {
    assert.equal(argmax(row), greedy.new_ids[step], `step ${step}`);
  });
}

for (const golden of TERNARY_MODELS) {
  Deno.test(`golden: ${golden.name}: logits, greedy tokens and their logits`, async () => {
    await using model = await loadModel(golden.folder);
    assert.notEqual(model.kernels, "reference");
    await checkSequences(model, golden, Infinity);
    for (const greedy of golden.manifest.greedy) await checkGreedy(model, greedy);
    const withLogits = golden.manifest.greedy.filter((greedy) => greedy.step_logits_file);
    assert.ok(withLogits.length > 0);
    for (const greedy of withLogits) await checkStepLogits(model, golden, greedy);
  });
}

Deno.test("golden: the reference alone gives the logits of short sequences", async () => {
  for (const golden of TERNARY_MODELS) {
    await using model = await loadModel(golden.folder, { kernels: "reference" });
    assert.equal(model.kernels, "reference");
    await checkSequences(model, golden, 14);
  }
});

// ---------------------------------------------------------------- inside the network

async function referenceOf(golden: GoldenModel): Promise<ReferenceStep> {
  await using checkpoint = await openCheckpoint(golden.folder);
  const config = await readModelConfig(checkpoint);
  const packed = new Uint8Array(planOf(config.spec).totalBytes);
  await packModel(config.spec, openWeights(config, checkpoint), (bytes, offset) => {
    packed.set(bytes, offset);
  });
  return new ReferenceStep(config.spec, packed, ropeTables(config, 16), "f32");
}

/** The manifest's name of a tapped value: `l0_q_proj`, `layer2_out`, `embed`. */
function hiddenName(name: string, layer: number): string {
  if (layer < 0) return name;
  return name === "out" ? `layer${layer}_out` : `l${layer}_${name}`;
}

for (const golden of TERNARY_MODELS) {
  Deno.test(`golden: ${golden.name}: hidden states`, async () => {
    const { sequences, hidden } = golden.manifest;
    const sequence = sequences.find(({ name }) => name === hidden.sequence)!;
    const reference = await referenceOf(golden);
    const seen = new Map<string, Float32Array>();
    const tap: Tap = (name, layer, token, values) => {
      seen.set(`${hiddenName(name, layer)} ${token}`, Float32Array.from(values));
    };
    reference.tap = tap;
    reference.step(prefillBatch(sequence.input_ids));
    for (const [name, { file }] of Object.entries(hidden.files)) {
      const expected = golden.read(file);
      for (const token of sequence.exact_positions) {
        const values = seen.get(`${name} ${token}`);
        assert.ok(values, `nothing was tapped as ${name}`);
        const { max } = differenceOf(values, expected.row(token));
        const size = Math.max(1, ...expected.row(token).map(Math.abs));
        assert.ok(max <= TOLERANCE * size, `${name} of token ${token} is off by ${max}`);
      }
    }
  });
}

// ---------------------------------------------------------------- twins and the plain checkpoint

Deno.test("golden: shards give what the single file gives, bit for bit", async () => {
  await using whole = await loadModel(goldenModel("llama3-158-packed").folder);
  await using sharded = await loadModel(goldenModel("llama3-158-packed-sharded").folder);
  const ids = [1, 7, 300, 12, 5];
  assert.deepEqual(await logitsOf(sharded, ids), await logitsOf(whole, ids));
});

Deno.test("golden: ternarising the bf16 master gives the packed codes", async () => {
  const [master, packed] = ["bitnet-2b4t-bf16", "bitnet-2b4t-packed"].map(goldenModel);
  await using masterFile = await openCheckpoint(master.folder);
  await using packedFile = await openCheckpoint(packed.folder);
  const fromMaster = openWeights(await readModelConfig(masterFile), masterFile);
  const config = await readModelConfig(packedFile);
  const fromPacked = openWeights(config, packedFile);
  let equal = 0;
  for (let layer = 0; layer < config.spec.numHiddenLayers; layer++) {
    for (const name of LINEAR_NAMES) {
      const [a, b] = [await fromMaster.linear(layer, name), await fromPacked.linear(layer, name)];
      const codes = [a, b].map(({ matrix, what }) => ternaryOf(matrix, what).codes);
      assert.deepEqual(codes[0], codes[1], `${name} of layer ${layer}`);
      equal++;
    }
  }
  assert.equal(equal, 28);
});

Deno.test("golden: a plain float checkpoint is refused with the remedy", async () => {
  const { folder } = goldenModel(PLAIN_MODEL);
  await assert.rejects(loadModel(folder), (error: Error) => {
    assert.ok(error instanceof NotTernaryError, error.stack);
    assert.match(error.message, /--quantize absmean/);
    return true;
  });
});

Deno.test("golden: a plain float checkpoint runs when it is ternarised on request", async () => {
  const { folder, manifest } = goldenModel(PLAIN_MODEL);
  const ids = manifest.sequences.find(({ name }) => name === "len7_text")!.input_ids;
  const run = async (options: LoadOptions) => {
    await using model = await loadModel(folder, { quantize: "absmean", ...options });
    return await logitsOf(model, ids);
  };
  const expected = ternarisedLogits(folder, ids);
  (await run({})).forEach((row, position) => {
    const { max } = differenceOf(row, expected[position]);
    assert.ok(max <= TOLERANCE, `a logit of position ${position} is off by ${max}`);
  });
  assert.deepEqual(await run({}), await run({ kernels: "reference" }));
});
