/**
 * GGUF files against their safetensors twins and against what llama.cpp and bitnet.cpp computed of
 * them: the same packed weights, and logits as near as each program's rounding allows.
 */
import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { readModelConfig } from "../runtime/config.ts";
import { toFloat32 } from "../runtime/float_formats.ts";
import { inspectModel } from "../runtime/inspect.ts";
import { loadModel, NotTernaryError } from "../runtime/mod.ts";
import { fixturePath } from "./fixtures.ts";
import { argmax, differenceOf, goldenModel, readJson, readNpy } from "./golden_models.ts";
import { packed, regionsOf } from "./packed_model.ts";
import { withFolder } from "./safetensors_file.ts";

interface Twin {
  gguf: string;
  folder: string;
  /** Whether the factors of linears are those of the twin, and not rounded to half precision. */
  sameFactors?: boolean;
  /** A file with the same linears whose embedding and head are not quantised. */
  sibling?: string;
}

const TWINS: readonly Twin[] = [
  { gguf: "bitnet-2b4t-I2_S", folder: "bitnet-2b4t-packed", sameFactors: true },
  { gguf: "llama3-158-I2_S", folder: "llama3-158-packed", sameFactors: true },
  { gguf: "bitnet-silu-TQ1_0", folder: "bitnet-silu-packed", sameFactors: true },
  { gguf: "bitnet-silu-TQ2_0", folder: "bitnet-silu-packed", sameFactors: true },
  {
    gguf: "bitnet-silu-TQ1_0-quantize",
    folder: "bitnet-silu-packed",
    sameFactors: true,
    sibling: "bitnet-silu-TQ1_0",
  },
  { gguf: "llama3-158-TQ1_0", folder: "llama3-158-packed" },
  { gguf: "llama3-158-TQ2_0", folder: "llama3-158-packed" },
  {
    gguf: "llama3-158-TQ2_0-quantize",
    folder: "llama3-158-packed",
    sibling: "llama3-158-TQ2_0",
  },
  { gguf: "llama31-158-ropescaled-TQ2_0", folder: "llama31-158-packed-ropescaled" },
];

function ggufPath(name: string): string {
  return fixturePath(`models-gguf/${name}.gguf`);
}

/** Half an ulp of half precision, and what norms below its normal range lose. */
const HALF_ERROR = 2 ** -11;
const HALF_LEAST = 2 ** -24;

function assertHalves(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    const most = Math.abs(expected[i]) * HALF_ERROR + HALF_LEAST;
    assert.ok(Math.abs(actual[i] - expected[i]) <= most, `${what}[${i}]`);
  }
}

function isMatrix(name: string): boolean {
  return name === "embedding" || name === "head";
}

for (const { gguf, folder, sameFactors, sibling } of TWINS) {
  Deno.test(`${gguf} is packed as ${folder}`, async () => {
    const [own, twin] = [
      await packed(ggufPath(gguf)),
      await packed(fixturePath(`models/${folder}`)),
    ];
    const types = { embeddingType: "f16", headType: "f16" };
    assert.deepEqual({ ...own.config.spec, ...types }, { ...twin.config.spec, ...types });
    assert.deepEqual(own.config.ropeTheta, twin.config.ropeTheta);
    assert.deepEqual(own.config.eosTokenIds, twin.config.eosTokenIds);
    const regions = regionsOf(twin);
    for (const [name, bytes] of regionsOf(own)) {
      const expected = regions.get(name)!;
      if (isMatrix(name)) {
        if (sibling !== undefined) continue;
        const values = toFloat32(expected, twin.config.spec.embeddingType);
        assertHalves(toFloat32(bytes, own.config.spec.embeddingType), values, name);
      } else if (name.endsWith("scales") && !sameFactors) {
        assertHalves(toFloat32(bytes, "f32"), toFloat32(expected, "f32"), name);
      } else assert.deepEqual(bytes, expected, name);
    }
  });
}

interface Reference {
  sequences: {
    name: string;
    input_ids: number[];
    logits_positions: number[];
    logits_file: string;
    argmax_all_positions: number[];
    vs_transformers_f32: { mean_abs: number; argmax_agreement: number };
  }[];
}

function referenceOf(gguf: string): Reference {
  return readJson(fixturePath(`models-gguf/expected/${gguf}/manifest.json`));
}

/** Where no rounding is near a tie, of models with the same factors. */
const TOLERANCE = 1e-4;
/** Noise of K-quantised embeddings on top of the other program's rounding of activations. */
const EMBEDDING_NOISE = 1.7;
const SHORT = 14;

for (const { gguf, folder, sameFactors, sibling } of TWINS) {
  Deno.test(`${gguf} gives the logits of transformers and of llama.cpp`, async () => {
    await using model = await loadModel(ggufPath(gguf), { kernels: "reference" });
    const golden = goldenModel(folder);
    const nearest = referenceOf(sibling ?? gguf);
    for (const [i, sequence] of referenceOf(gguf).sequences.entries()) {
      const { name, input_ids: ids } = sequence;
      if (ids.length > SHORT) continue;
      const rows: Float32Array[] = [];
      for await (const { logits } of model.logits(ids, { positions: "all" })) rows.push(logits);
      // Transformers rounds inputs by token as we do: llama.cpp is as far from us as from it.
      const own = readNpy(fixturePath(`models-gguf/expected/${gguf}/${sequence.logits_file}`));
      const means = sequence.logits_positions.map((at, j) =>
        differenceOf(rows[at], own.row(j)).mean
      );
      const mean = means.reduce((a, b) => a + b) / means.length;
      const { mean_abs: theirs, argmax_agreement: agreement } =
        nearest.sequences[i].vs_transformers_f32;
      const most = 1.05 * theirs * (sibling === undefined ? 1 : EMBEDDING_NOISE);
      assert.ok(mean <= most, `${name}: the mean difference is ${mean}, at most ${most}`);
      if (sibling !== undefined) continue;
      const tops = sequence.argmax_all_positions.filter((id, j) => argmax(rows[j]) === id).length;
      // One more may differ, where two tokens are nearly alike.
      assert.ok(tops >= agreement * ids.length - 1.01, `${name}: ${tops} tops agree`);
      if (sameFactors) checkGolden(golden, name, rows);
    }
  });
}

function checkGolden(golden: ReturnType<typeof goldenModel>, name: string, rows: Float32Array[]) {
  const sequence = golden.manifest.sequences.find((each) => each.name === name)!;
  const expected = golden.read(sequence.logits_file);
  for (const [i, position] of sequence.logits_positions.entries()) {
    if (!sequence.exact_positions.includes(position)) continue;
    const { max } = differenceOf(rows[position], expected.row(i));
    assert.ok(max <= TOLERANCE, `${name}: a logit of position ${position} is off by ${max}`);
  }
}

Deno.test("an I2_S file writes transformers' text with native kernels", async () => {
  const golden = goldenModel("bitnet-2b4t-packed");
  await using model = await loadModel(ggufPath("bitnet-2b4t-I2_S"));
  assert.notEqual(model.kernels, "reference");
  for (
    const { prompt_ids: prompt, new_ids: expected, stable_prefix: stable } of golden.manifest.greedy
  ) {
    const options = { temperature: 0, maxTokens: expected.length, ignoreEos: true };
    const { tokenIds } = await model.generate(prompt, options);
    assert.deepEqual(tokenIds.slice(0, stable), expected.slice(0, stable));
  }
  assert.equal(model.chatTemplate?.includes("message"), true);
  const messages = [{ role: "user" as const, content: "hi" }];
  assert.match(model.applyChatTemplate(messages), /User: hi/);
});

Deno.test("a plain model in BF16 is packed as its twin, and only when asked for", async () => {
  const path = ggufPath("llama-plain-BF16");
  const twin = fixturePath("models/llama-plain-bf16");
  assert.deepEqual((await packed(path, "absmean")).bytes, (await packed(twin, "absmean")).bytes);
  await assert.rejects(packed(path), NotTernaryError);
});

Deno.test("a plain model in Q8_0 has its twin's weights, within half a step", async () => {
  await using own = await openCheckpoint(ggufPath("llama-plain-Q8_0"));
  await using twin = await openCheckpoint(fixturePath("models/llama-plain-bf16"));
  const sources = await Promise.all([own, twin].map(async (checkpoint) => {
    const config = await readModelConfig(checkpoint, { quantize: "absmean" });
    return openWeights(config, checkpoint);
  }));
  for (const name of ["q", "k", "gate"] as const) {
    const [q8, bf16] = await Promise.all(sources.map((source) => source.linear(1, name)));
    assert.equal(q8.matrix.kind, "f32");
    const values = toFloat32(q8.matrix.bytes, "f32");
    const expected = toFloat32(bf16.matrix.bytes, "bf16");
    for (let from = 0; from < values.length; from += 32) {
      const block = expected.subarray(from, from + 32);
      const largest = block.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
      // The step is largest / 127, in half precision.
      const most = largest / 127 * (0.5 + 127 * HALF_ERROR);
      block.forEach((w, i) =>
        assert.ok(Math.abs(values[from + i] - w) <= most, `${name} ${from + i}`)
      );
    }
  }
});

Deno.test("a folder is opened by its only GGUF model", async () => {
  await withFolder({}, async (folder) => {
    await copyFile(ggufPath("bitnet-silu-TQ2_0"), join(folder, "a.gguf"));
    {
      await using checkpoint = await openCheckpoint(folder);
      assert.deepEqual([checkpoint.format, checkpoint.name], ["gguf", "a"]);
    }
    await copyFile(ggufPath("bitnet-silu-TQ1_0"), join(folder, "model-tq1.gguf"));
    await assert.rejects(
      openCheckpoint(folder),
      /2 GGUF models: give one of a.gguf, model-tq1.gguf/,
    );
    await using named = await openCheckpoint(join(folder, "model-tq1.gguf"));
    assert.equal(named.name, "bitnet-silu-packed");
  });
});

Deno.test("inspect names a GGUF file, its types and where its tokenizer is", async () => {
  const path = ggufPath("llama3-158-TQ1_0");
  const report = await inspectModel(path);
  assert.deepEqual([report.path, report.tokenizer.type], [path, "tokenizer.ggml"]);
  const ternary = report.tensorTypes.find(({ type }) => type === "TQ1_0")!;
  assert.deepEqual([ternary.tensors, ternary.bytes * 8 / ternary.weights], [28, 1.6875]);
});
