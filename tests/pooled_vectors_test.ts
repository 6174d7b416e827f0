/**
 * Vectors of both bodies of embedding models and all poolings against transformers' hidden states, which
 * `fixtures_made/make.py` has pooled and scaled to length 1.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { convertModel } from "../runtime/convert/convert.ts";
import { type Pooling, POOLINGS } from "../runtime/pooling.ts";
import { loadModel, type LoadOptions, type Model } from "../runtime/mod.ts";
import {
  MADE,
  madeFolder,
  type MadeModel,
  madeModel,
  publishedVectors,
  TOKENIZER,
} from "./made_models.ts";
import { withFolder } from "./safetensors_file.ts";
import { sizedModel } from "./sized_models.ts";

/** Of a vector's largest number: float32 against float32, where no rounding to int8 is near a tie. 4e-7 were seen. */
const TOLERANCE = 1e-5;

/** Least cosine of the angle between vectors where a rounding to int8 was tipped. 0.999998 was seen. */
const TIPPED_COSINE = 0.9999;

/** Poolings of which there are published vectors, in their order. */
const PUBLISHED = POOLINGS.slice(0, 3);

const BODIES = ["embedding-qwen3", "embedding-gemma3"].map(madeModel);

type Files = Record<string, string>;

const MODULES = ["Transformer", "Pooling", "Normalize"].map((kind, idx) => ({
  idx,
  name: String(idx),
  path: kind === "Transformer" ? "" : `${idx}_${kind}`,
  type: `sentence_transformers.models.${kind}`,
}));

/** Files of sentence-transformers. */
function poolingFiles(pooling: Pooling, normalize: boolean): Files {
  const flags: Readonly<Record<Pooling, string>> = {
    mean: "mean_tokens",
    cls: "cls_token",
    last: "lasttoken",
    max: "max_tokens",
    weightedmean: "weightedmean_tokens",
    mean_sqrt_len_tokens: "mean_sqrt_len_tokens",
  };
  const config = Object.fromEntries(
    Object.entries(flags).map(([kind, flag]) => [`pooling_mode_${flag}`, kind === pooling]),
  );
  return {
    "modules.json": JSON.stringify(MODULES.slice(0, normalize ? 3 : 2)),
    "1_Pooling/config.json": JSON.stringify({ word_embedding_dimension: 128, ...config }),
  };
}

function withModel(
  made: MadeModel,
  options: LoadOptions,
  files: Files,
  use: (model: Model) => Promise<void>,
): Promise<void> {
  const all = { ...madeFolder(made), "tokenizer.json": JSON.stringify(TOKENIZER), ...files };
  return withFolder(all, async (folder) => {
    await using model = await loadModel(folder, { threads: 1, ...options });
    await use(model);
  });
}

async function vectorsOf(model: Model, ids: readonly number[]): Promise<Float32Array[]> {
  const asked = POOLINGS.map((pooling) => model.embed(ids, { pooling }));
  return (await Promise.all(asked)).map(({ values }) => values);
}

function assertNear(actual: Float32Array, expected: Float32Array, isExact: boolean): void {
  if (!isExact) {
    const cosine = actual.reduce((sum, value, i) => sum + value * expected[i], 0);
    return assert.ok(cosine >= TIPPED_COSINE, `cosine ${cosine}`);
  }
  const apart = Math.max(...actual.map((value, i) => Math.abs(value - expected[i])));
  const most = TOLERANCE * Math.max(...expected.map(Math.abs));
  assert.ok(apart <= most, `${apart} apart, at most ${most}`);
}

for (const made of BODIES) {
  Deno.test(`pooled vectors: ${made.name}: transformers' of ${PUBLISHED.join(", ")}`, async () => {
    const published = publishedVectors(made);
    await withModel(made, {}, {}, async (model) => {
      for (const [s, ids] of MADE.sequences.entries()) {
        const vectors = await vectorsOf(model, ids);
        for (const p of PUBLISHED.keys()) {
          assertNear(vectors[p], published[s][p], made.exactVectors![s][p]);
        }
      }
    });
  });

  Deno.test(`pooled vectors: ${made.name}: the same bits alone, together, in chunks, by the reference`, async () => {
    const all: Float32Array[][] = [];
    await withModel(made, {}, {}, async (model) => {
      for (const ids of MADE.sequences) {
        for (const pooling of POOLINGS) {
          all.push([(await model.embed(ids, { pooling })).values]);
        }
      }
    });
    const together = async (model: Model) =>
      assert.deepEqual(
        (await Promise.all(MADE.sequences.map((ids) => vectorsOf(model, ids)))).flat(),
        all.flat(),
      );
    await withModel(made, { maxBatchTokens: 5 }, {}, together);
    await withModel(made, { kernels: "reference" }, {}, together);
  });
}

Deno.test("pooled vectors: sentence-transformers' files say which, and their length", async () => {
  const [made] = BODIES;
  const [, ids] = MADE.sequences;
  for (const [p, pooling] of PUBLISHED.entries()) {
    for (const normalize of [true, false]) {
      await withModel(made, {}, poolingFiles(pooling, normalize), async (model) => {
        assert.deepEqual(model.embeddingDefaults, { pooling, normalize });
        const { values, promptTokens } = await model.embed(ids);
        assert.equal(promptTokens, ids.length);
        const length = Math.hypot(...values);
        assert.equal(Math.abs(length - 1) < 1e-6, normalize);
        assertNear(values.map((value) => value / length), publishedVectors(made)[1][p], true);
        const unit = await model.embed(ids, { normalize: true });
        assert.ok(Math.abs(Math.hypot(...unit.values) - 1) < 1e-6);
      });
    }
  }
});

/** What each pooling makes of a feature's values in all states, as sentence-transformers' Pooling.py has it. */
const DEFINITIONS: Readonly<Record<Pooling, (values: readonly number[]) => number>> = {
  mean: (values) => sum(values) / values.length,
  cls: (values) => values[0],
  last: (values) => values.at(-1)!,
  max: (values) => Math.max(...values),
  weightedmean: (values) =>
    sum(values.map((value, i) => (i + 1) * value)) / sum(values.map((_, i) => i + 1)),
  mean_sqrt_len_tokens: (values) => sum(values) / Math.sqrt(values.length),
};

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

Deno.test("pooled vectors: every pooling of the states that beginnings of the text end with", async () => {
  const [, ids] = MADE.sequences;
  await withModel(BODIES[0], {}, {}, async (model) => {
    const bare = { normalize: false };
    const ends = await Promise.all(
      ids.map((_, i) => model.embed(ids.slice(0, i + 1), { ...bare, pooling: "last" })),
    );
    for (const pooling of POOLINGS) {
      const { values } = await model.embed(ids, { ...bare, pooling });
      const expected = values.map((_, i) => DEFINITIONS[pooling](ends.map((end) => end.values[i])));
      assert.deepEqual(values, expected, pooling);
    }
  });
});

Deno.test("pooled vectors: files may ask for any pooling; GGUF has numbers for three", async () => {
  for (const pooling of POOLINGS.slice(3)) {
    await withModel(BODIES[0], { kernels: "reference" }, poolingFiles(pooling, true), (model) => {
      assert.deepEqual(model.embeddingDefaults, { pooling, normalize: true });
      return Promise.resolve();
    });
  }
  const files = { "tokenizer.json": JSON.stringify(TOKENIZER), ...poolingFiles("max", true) };
  const size = { hidden: 128, intermediate: 128, headDim: 32, vocab: 256 };
  await withFolder({ ...madeFolder(sizedModel(BODIES[0], size)), ...files }, async (folder) => {
    await assert.rejects(
      convertModel(folder, join(folder, "model.gguf"), { type: "i2_s" }),
      /Cannot write this model as GGUF, which has no pooling "max": write safetensors, or/,
    );
  });
});

Deno.test("pooled vectors: the same after converting, as folder and as one file", async () => {
  const [made] = BODIES;
  const [, ids] = MADE.sequences;
  const files = {
    ...madeFolder(made),
    "tokenizer.json": JSON.stringify(TOKENIZER),
    ...poolingFiles("mean", false),
  };
  await withFolder(files, async (folder) => {
    const vectorOf = async (path: string) => {
      await using model = await loadModel(path, { kernels: "reference" });
      assert.deepEqual({ ...model.embeddingDefaults }, { pooling: "mean", normalize: false });
      return (await model.embed(ids)).values;
    };
    const expected = await vectorOf(folder);
    for (const name of ["folder", "file.trilith"]) {
      const path = join(folder, name);
      await convertModel(folder, path);
      assert.deepEqual(await vectorOf(path), expected);
    }
  });
});

Deno.test("pooled vectors: a GGUF file says whose states, and gives the same vectors", async () => {
  const size = { hidden: 128, intermediate: 128, headDim: 32, vocab: 256 };
  const [, ids] = MADE.sequences;
  for (const [made, pooling] of [[BODIES[0], "mean"], [BODIES[1], "cls"]] as const) {
    const sized = madeFolder(sizedModel(made, size));
    const files = { ...sized, "tokenizer.json": JSON.stringify(TOKENIZER) };
    await withFolder({ ...files, ...poolingFiles(pooling, true) }, async (folder) => {
      const path = join(folder, "model.gguf");
      await convertModel(folder, path, { type: "i2_s" });
      await using source = await loadModel(folder, { kernels: "reference" });
      await using model = await loadModel(path, { kernels: "reference" });
      assert.deepEqual({ ...model.embeddingDefaults }, { pooling, normalize: true });
      assert.deepEqual((await model.embed(ids)).values, (await source.embed(ids)).values);
    });
  }
});
