/** llama.cpp itself reads what `convert` writes: it cuts texts alike, and goes on with the same words. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { inFolder } from "../kernels/test_helpers.ts";
import { convertModel } from "../runtime/convert/convert.ts";
import type { ConvertOptions } from "../runtime/convert/convert.ts";
import { encodeGgufHeader, type GgufValue } from "../runtime/convert/gguf_file.ts";
import { ggufTokenizer } from "../runtime/convert/gguf_tokenizer.ts";
import { loadModel } from "../runtime/mod.ts";
import { createTokenizer, loadTokenizer } from "../runtime/tokenizer.ts";
import { wholeTokenizer } from "../runtime/tokenizer_json.ts";
import type { Model } from "../runtime/types.ts";
import { fixturePath } from "./fixtures.ts";
import { goldenModel } from "./golden_models.ts";
import type { LlamaCppAnswer, LlamaCppRequest } from "./llama_cpp.ts";
import { madeFolder, type MadeModel, madeModel } from "./made_models.ts";
import { gemma3, MAPLE, withGroups, withTernaryEnds } from "./made_variants.ts";
import { sizedModel } from "./sized_models.ts";
import { llamaCpp, testWith } from "./tools.ts";

function ask(command: readonly string[], requests: LlamaCppRequest[]): LlamaCppAnswer[] {
  const [program, ...args] = command;
  const input = JSON.stringify(requests);
  const { stdout, stderr, status } = spawnSync(program, args, { input, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

// ---------------------------------------------------------------- greedy text

interface Case {
  name: string;
  options: ConvertOptions;
  /** Greedy texts of the conformance data that llama.cpp's rounding leaves as they are, all 32 tokens. */
  whole: readonly number[];
}

const CASES: readonly Case[] = [
  { name: "llama3-158-packed", options: { type: "tq1_0" }, whole: [3] },
  { name: "llama3-158-packed", options: { type: "tq2_0", splitMaxBytes: 600_000 }, whole: [3] },
  { name: "llama-autobit-offline", options: { type: "tq2_0" }, whole: [1, 2, 3] },
  { name: "falcon3-158-packed", options: { type: "tq1_0" }, whole: [2, 3, 4, 5] },
  { name: "bitnet-silu-packed", options: { embeddingType: "f16" }, whole: [2] },
];

const NEW_TOKENS = 32;

/**
 * llama.cpp rounds activations by blocks of 256, factors and keys to half precision: logits move by
 * up to 0.7 (README of the conformance data). Only where the best two are nearer than that may it
 * take the other one, and a random model's next tokens then differ.
 */
const MOST_GAP = 0.7;

testWith(
  llamaCpp(),
  "llama.cpp loads our GGUF files and goes on greedily as transformers does",
  (command) =>
    inFolder(async (folder) => {
      const requests: LlamaCppRequest[] = [];
      for (const [i, { name, options }] of CASES.entries()) {
        const { folder: source, manifest } = goldenModel(name);
        const { files } = await convertModel(source, path.join(folder, `${i}.gguf`), options);
        const prompts = manifest.greedy.map(({ prompt_ids }) => prompt_ids);
        requests.push({ model: files[0].path, prompts, texts: TEXTS, newTokens: NEW_TOKENS });
      }
      const answers = ask(command, requests);
      for (const [i, { name, whole }] of CASES.entries()) {
        const { folder: source, manifest } = goldenModel(name);
        for (const [text, greedy] of manifest.greedy.entries()) {
          const { new_ids: expected, top1_minus_top2: gaps } = greedy;
          const actual = answers[i].greedy[text];
          const differs = actual.findIndex((id, at) => id !== expected[at]);
          if (whole.includes(text)) assert.equal(differs, -1, `${name}, text ${text}`);
          if (differs >= 0) {
            assert.ok(gaps[differs] < MOST_GAP, `${name}, text ${text}, ${differs}`);
          }
        }
        const tokenizer = await loadTokenizer(source);
        const ids = TEXTS.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
        assert.deepEqual(answers[i].ids, ids, name);
        const [prompt] = whole;
        assert.equal(
          answers[i].greedyTexts[prompt],
          tokenizer.decode(manifest.greedy[prompt].new_ids, { skipSpecialTokens: true }),
          name,
        );
      }
    }),
);

// ---------------------------------------------------------------- architectures

/** All experts are picked, as of two that are nearly even either one may be. */
const MAPLE_ALL = { ...MAPLE, config: { ...MAPLE.config, num_experts_per_tok: 8 } };

/** Made-up models, which get the tokenizer of a fixture. */
const MADE_CASES: readonly [made: MadeModel, type: ConvertOptions["type"]][] = [
  [withGroups(madeModel("bonsai"), 256), "tq2_0"],
  [withTernaryEnds(false), "q2_0"],
  [madeModel("bitcpm"), "tq2_0"],
  [gemma3(), "tq2_0"],
  [MAPLE_ALL, "tq1_0"],
];

const PROMPTS = [[1, 77, 300, 5, 900, 12, 43], [500, 3]];
const MADE_TOKENS = 12;

/**
 * Of a position's logits' standard deviation: how far rounding activations by other blocks moves two of
 * them. 0.08 was the most seen; where the graph is another one, gaps are of one deviation and more.
 */
const MOST_MADE_GAP = 0.2;

async function writeMade(folder: string, made: MadeModel): Promise<void> {
  const intermediate = "num_experts" in made.config ? 64 : 256;
  const sized = sizedModel(made, { hidden: 256, intermediate, headDim: 64, vocab: 1024 });
  await mkdir(folder);
  for (const [name, content] of Object.entries(madeFolder(sized))) {
    await writeFile(path.join(folder, name), content);
  }
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await copyFile(fixturePath(`models/llama3-158-packed/${name}`), path.join(folder, name));
  }
}

/** By how many standard deviations each of the tokens is behind the likeliest. */
async function gapsOf(model: Model, prompt: readonly number[], tokens: readonly number[]) {
  const ids = [...prompt, ...tokens.slice(0, -1)];
  const positions = { from: prompt.length - 1, to: ids.length };
  const gaps: number[] = [];
  for await (const { logits } of model.logits(ids, { positions })) {
    const mean = logits.reduce((sum, v) => sum + v, 0) / logits.length;
    const variance = logits.reduce((sum, v) => sum + (v - mean) ** 2, 0) / logits.length;
    gaps.push((Math.max(...logits) - logits[tokens[gaps.length]]) / Math.sqrt(variance));
  }
  return gaps;
}

testWith(
  llamaCpp(),
  "llama.cpp goes on greedily in GGUF files of all architectures as our reference does",
  (command) =>
    inFolder(async (folder) => {
      const at = (i: number, end = "") => path.join(folder, `${i}${end}`);
      const requests: LlamaCppRequest[] = [];
      for (const [i, [made, type]] of MADE_CASES.entries()) {
        await writeMade(at(i), made);
        await convertModel(at(i), at(i, ".gguf"), { type, verify: false });
        requests.push({ model: at(i, ".gguf"), prompts: PROMPTS, newTokens: MADE_TOKENS });
      }
      const answers = ask(command, requests);
      for (const [i, [{ name }, type]] of MADE_CASES.entries()) {
        await using model = await loadModel(at(i), { kernels: "reference" });
        const gaps: number[] = [];
        for (const [text, tokens] of answers[i].greedy.entries()) {
          assert.equal(tokens.length, MADE_TOKENS);
          gaps.push(...await gapsOf(model, PROMPTS[text], tokens));
        }
        assert.equal(gaps.length, PROMPTS.length * MADE_TOKENS);
        const what = `${name} in ${type}: ${gaps.map((gap) => gap.toFixed(3))}`;
        assert.ok(gaps.every((gap) => gap < MOST_MADE_GAP), what);
        assert.ok(gaps.filter((gap) => gap === 0).length >= gaps.length * 3 / 4, what);
        assert.ok(new Set(answers[i].greedy.flat()).size > MADE_TOKENS, `${name}: one word again`);
      }
    }),
);

const TEXTS = ["Once upon a time", "The cat's 12345 lives,\n\n and  more: \u00e9\u4e2d\u{1f600}!"];

// ---------------------------------------------------------------- tokenizers

const TOKENIZERS = ["llama3", "llama2", "falcon"] as const;

interface Vector {
  text: string;
  text_used?: string;
  ids: number[];
  ids_no_bos?: number[];
}

/** The least file that llama.cpp reads a vocabulary from. */
async function vocabularyFile(name: string): Promise<{ bytes: Uint8Array; vectors: Vector[] }> {
  const folder = fixturePath(`tokenizers/${name}`);
  const json = JSON.parse(
    new TextDecoder().decode(gunzipSync(fs.readFileSync(path.join(folder, "tokenizer.json.gz")))),
  );
  const tokenizer = createTokenizer(json);
  const keys = await ggufTokenizer({
    companions: {
      origin: folder,
      text: () => Promise.resolve(null),
      json: () => Promise.resolve(null),
      tokenizer: () => Promise.resolve(wholeTokenizer(json)),
    },
    tokenizer,
    defaults: { eosTokenIds: [0], bosTokenId: null, padTokenId: null, doSample: false },
    vocabSize: tokenizer.vocabSize,
  });
  const counts = {
    block_count: 1,
    context_length: 64,
    embedding_length: 32,
    feed_forward_length: 32,
  };
  const values: GgufValue[] = [
    ["general.architecture", "string", "llama"],
    ...Object.entries(counts).map(([key, count]): GgufValue => [`llama.${key}`, "uint32", count]),
    ["llama.attention.head_count", "uint32", 1],
    ["llama.attention.layer_norm_rms_epsilon", "float32", 1e-5],
    ...keys,
  ];
  const { vectors } = JSON.parse(fs.readFileSync(path.join(folder, "vectors.json"), "utf8"));
  return { bytes: encodeGgufHeader(values, []), vectors };
}

testWith(
  llamaCpp(),
  "llama.cpp cuts texts with our tokenizers' keys as Hugging Face does",
  (command) =>
    inFolder(async (folder) => {
      const requests: LlamaCppRequest[] = [];
      const expected: number[][][] = [];
      for (const name of TOKENIZERS) {
        const { bytes, vectors } = await vocabularyFile(name);
        const model = path.join(folder, `${name}.gguf`);
        fs.writeFileSync(model, bytes);
        requests.push({ model, texts: vectors.map(({ text, text_used }) => text_used ?? text) });
        expected.push(vectors.map(({ ids, ids_no_bos }) => ids_no_bos ?? ids));
      }
      for (const [i, { ids }] of ask(command, requests).entries()) {
        for (const [at, actual] of ids.entries()) {
          assert.deepEqual(actual, expected[i][at], `${TOKENIZERS[i]}: ${requests[i].texts![at]}`);
        }
      }
    }),
);
