/**
 * Small models of each architecture write greedily: alone, together, in chunks and on reused beginnings
 * the tokens that the reference finds likeliest, and those of transformers where it runs the model.
 */
import assert from "node:assert/strict";
import { loadModel, type LoadOptions, type Model } from "../runtime/mod.ts";
import { MADE, madeFolder, type MadeModel, TOKENIZER } from "./made_models.ts";
import { MAPLE, withTernaryEnds } from "./made_variants.ts";
import { withFolder } from "./safetensors_file.ts";

const MAX_TOKENS = 8;

/**
 * Likeliest tokens that are nearer to the next than this, of the largest logit, may change places: inputs
 * that are rounded to int8 by groups moved the gap by 0.030, 0.0074 and 0.0008 at most.
 */
const NEAR_TIE: Readonly<Record<string, number>> = { bonsai: 0.03, trilm: 0.008, bitcpm: 0.001 };

function argmax(values: Float32Array): number {
  return values.reduce((best, value, i) => value > values[best] ? i : best, 0);
}

/** Each token from logits of the whole text before it, computed anew. */
async function chain(model: Model, prompt: readonly number[]): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < MAX_TOKENS; i++) {
    for await (const { logits } of model.logits(ids)) ids.push(argmax(logits));
  }
  return ids.slice(prompt.length);
}

async function greedy(model: Model, prompt: readonly number[], maxTokens = MAX_TOKENS) {
  const { tokenIds } = await model.generate(prompt, { maxTokens, temperature: 0, ignoreEos: true });
  return tokenIds;
}

/** At every step of transformers' text its next token, but at near ties. */
async function assertPublished(model: Model, { name, greedy: published }: MadeModel) {
  let compared = 0;
  for (const [s, { ids, gaps }] of published!.entries()) {
    for (const [i, id] of ids.entries()) {
      if (gaps[i] < NEAR_TIE[name]) continue;
      const before = [...MADE.sequences[s], ...ids.slice(0, i)];
      assert.deepEqual(await greedy(model, before, 1), [id], `sequence ${s}, token ${i}`);
      compared++;
    }
  }
  assert.ok(compared >= 2 / 3 * MAX_TOKENS * MADE.sequences.length, `${compared} were compared`);
}

/** Embedding models write nothing. */
const WRITERS = MADE.models.filter(({ greedy }) => greedy !== undefined);

for (const made of [...WRITERS, MAPLE, withTernaryEnds(true)]) {
  Deno.test(`made models: ${made.name} writes what the reference finds likeliest`, async () => {
    const files = { ...madeFolder(made), "tokenizer.json": JSON.stringify(TOKENIZER) };
    await withFolder(files, async (folder) => {
      const open = (options: LoadOptions) => loadModel(folder, { threads: 1, ...options });
      const expected: number[][] = [];
      {
        await using reference = await open({ kernels: "reference" });
        for (const ids of MADE.sequences) expected.push(await chain(reference, ids));
      }
      const together = (model: Model) =>
        Promise.all(MADE.sequences.map((ids) => greedy(model, ids)));
      {
        await using model = await open({ cacheTokens: 256 });
        assert.deepEqual(await together(model), expected);
        // Again, one after the other, on beginnings whose keys and values are there.
        const { cachedTokens } = model.status().totals;
        for (const [s, ids] of MADE.sequences.entries()) {
          assert.deepEqual(await greedy(model, ids), expected[s]);
        }
        assert.ok(model.status().totals.cachedTokens > cachedTokens);
        if (made.greedy !== undefined) await assertPublished(model, made);
      }
      await using chunked = await open({ cacheTokens: 256, maxBatchTokens: 5 });
      assert.deepEqual(await together(chunked), expected);
    });
  });
}
