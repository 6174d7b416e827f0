/** Every architecture through every format that has room for it: the logits stay what they are. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../kernels/test_helpers.ts";
import { convertModel, type ConvertOptions } from "../runtime/convert/convert.ts";
import { loadModel } from "../runtime/mod.ts";
import { openSafetensors } from "../runtime/safetensors.ts";
import { readGguf } from "./gguf_file.ts";
import { MADE, madeFolder, type MadeModel, madeModel, TOKENIZER } from "./made_models.ts";
import {
  gemma3,
  MAPLE,
  withBiases,
  withGroups,
  withOneFactor,
  withTernaryEnds,
} from "./made_variants.ts";
import { sizedModel } from "./sized_models.ts";

/** Sizes that whole blocks of 256 divide. */
const WHOLE = { hidden: 256, intermediate: 256, headDim: 64, vocab: 256 };

const TYPE_IDS: Record<string, number> = { tq1_0: 34, tq2_0: 35, i2_s: 36, q2_0: 42, pq2_0: 142 };

interface Case {
  made: MadeModel;
  arch: string;
  type: NonNullable<ConvertOptions["type"]>;
}

const bitcpm = madeModel("bitcpm");

/** As they are, some rows being no whole blocks; and in sizes that are. */
const CASES: readonly Case[] = [
  { made: madeModel("bonsai"), arch: "qwen3", type: "pq2_0" },
  { made: sizedModel(withTernaryEnds(false), WHOLE), arch: "qwen3", type: "pq2_0" },
  { made: sizedModel(withTernaryEnds(true), WHOLE), arch: "qwen3", type: "q2_0" },
  { made: sizedModel(madeModel("trilm"), WHOLE), arch: "llama", type: "tq1_0" },
  { made: sizedModel(withOneFactor(madeModel("trilm")), WHOLE), arch: "llama", type: "tq2_0" },
  { made: bitcpm, arch: "minicpm", type: "q2_0" },
  { made: sizedModel(bitcpm, WHOLE), arch: "minicpm", type: "tq2_0" },
  { made: sizedModel(madeModel("embedding-qwen3"), WHOLE), arch: "qwen3", type: "i2_s" },
  { made: sizedModel(madeModel("embedding-gemma3"), WHOLE), arch: "gemma3", type: "i2_s" },
  { made: sizedModel(gemma3(), WHOLE), arch: "gemma3", type: "tq2_0" },
  { made: sizedModel(MAPLE, { ...WHOLE, intermediate: 64 }), arch: "maple", type: "tq1_0" },
];

/** Making values takes longer than most of the rest. */
const MADE_FILES = new Map<MadeModel, ReturnType<typeof madeFolder>>();

function filesOf(made: MadeModel) {
  const files = MADE_FILES.get(made) ?? madeFolder(made);
  MADE_FILES.set(made, files);
  return { ...files, "tokenizer.json": JSON.stringify(TOKENIZER) };
}

function writeModel(folder: string, made: MadeModel): string {
  const source = path.join(folder, "source");
  fs.mkdirSync(source);
  const files = filesOf(made);
  for (const [name, content] of Object.entries(files)) {
    fs.writeFileSync(path.join(source, name), content);
  }
  return source;
}

async function logitsOf(model: string): Promise<Float32Array[]> {
  await using opened = await loadModel(model, { kernels: "reference" });
  const all = await Array.fromAsync(opened.logits(MADE.sequences[1], { positions: "all" }));
  return all.map(({ logits }) => logits);
}

for (const { made, arch, type } of CASES) {
  Deno.test(`convert: ${made.name}, ${made.config.hidden_size} wide, in ${type} has its logits`, () =>
    inFolder(async (folder) => {
      const source = writeModel(folder, made);
      const file = path.join(folder, "model.gguf");
      const { verified } = await convertModel(source, file, { type });
      assert.ok(verified!.matrices >= 14);
      const { values, tensors } = readGguf(fs.readFileSync(file));
      assert.equal(values.get("general.architecture"), arch);
      assert.ok(tensors.some(({ type: id }) => id === TYPE_IDS[type]));
      assert.deepEqual(await logitsOf(file), await logitsOf(source));
    }));
}

/** With one factor a matrix, for which transformers' form has room. */
const AS_FOLDERS: readonly (readonly [made: MadeModel, type: Case["type"]])[] = [
  [withOneFactor(madeModel("trilm")), "tq2_0"],
  [withOneFactor(madeModel("bitcpm")), "tq2_0"],
  [sizedModel(madeModel("embedding-qwen3"), WHOLE), "i2_s"],
  [sizedModel(madeModel("embedding-gemma3"), WHOLE), "i2_s"],
];

for (const [made, type] of AS_FOLDERS) {
  Deno.test(`convert: ${made.name} as a folder, of .trilith and GGUF files too, has its logits`, () =>
    inFolder(async (folder) => {
      const source = writeModel(folder, made);
      const [gguf, packed] = [path.join(folder, "m.gguf"), path.join(folder, "m.trilith")];
      await convertModel(source, gguf, { type });
      await convertModel(source, packed);
      const expected = await logitsOf(source);
      for (const from of [source, gguf, packed]) {
        const target = path.join(folder, "out");
        await convertModel(from, target, { force: true });
        assert.deepEqual(await logitsOf(target), expected, path.basename(from));
        const names = [...await tensorNames(target)];
        assert.ok(names.every((name) => !/_proj\.norm/.test(name)), "transformers' names");
        assert.equal(names.filter((name) => /rms_norm/.test(name)).length % 7, 0);
      }
    }));
}

Deno.test("convert: a model with biases keeps them in a folder, and factors to their last bit", () =>
  inFolder(async (folder) => {
    const source = writeModel(folder, withBiases(withOneFactor(madeModel("trilm"))));
    const [packed, target] = [path.join(folder, "m.trilith"), path.join(folder, "out")];
    await convertModel(source, packed);
    await convertModel(packed, target);
    const config = JSON.parse(fs.readFileSync(path.join(target, "config.json"), "utf8"));
    assert.equal(config.quantization_config.linear_class, "bitlinear");
    const expected = (await logitsOf(source)).flatMap((row) => [...row]);
    const most = Math.max(...expected.map(Math.abs));
    const actual = (await logitsOf(target)).flatMap((row) => [...row]);
    for (const [i, logit] of actual.entries()) {
      assert.ok(Math.abs(logit - expected[i]) < 1e-6 * most, `logit ${i}`);
    }
  }));

async function tensorNames(folder: string): Promise<Iterable<string>> {
  const file = await openSafetensors(path.join(folder, "model.safetensors"));
  await file.close();
  return file.tensors.keys();
}

for (const made of [withTernaryEnds(false), gemma3(), MAPLE]) {
  Deno.test(`convert: ${made.name} becomes the same GGUF file from a .trilith file`, () =>
    inFolder(async (folder) => {
      const source = writeModel(folder, made);
      const packed = path.join(folder, "m.trilith");
      await convertModel(source, packed);
      const files = [source, packed].map((from) => `${from}.gguf`);
      for (const [i, from] of [source, packed].entries()) {
        await convertModel(from, files[i], { type: "q2_0", verify: i === 1 });
      }
      const [direct, indirect] = files.map((file) => fs.readFileSync(file));
      assert.ok(direct.equals(indirect));
    }));
}

for (
  const [made, options, message] of [
    [
      madeModel("bonsai"),
      { type: "tq2_0" },
      /factor for each 128 .*, TQ2_0 .* 256: use --type q2_0/,
    ],
    [madeModel("bonsai"), { type: "i2_s" }, /for each 128 weights, I2_S one a matrix: use .* q2_0/],
    [withGroups(madeModel("bonsai"), 32), {}, /for each 32 weights, Q2_0 .* 64: use --to packed/],
    [
      madeModel("bitcpm"),
      { type: "i2_s" },
      /factor for a row, I2_S one a matrix: use --type tq2_0/,
    ],
    [withTernaryEnds(true), { embeddingType: "f16" }, /ternary and stays so: leave --embedding/],
    [madeModel("embedding-qwen3"), {}, /I2_S must be a multiple of 128 .* 192, use --to packed/],
    [madeModel("embedding-gemma3"), { type: "tq2_0" }, /no norms inside linears: use --type i2_s/],
  ] as const
) {
  Deno.test(`convert: ${made.name} with ${JSON.stringify(options)} is refused with a remedy`, () =>
    inFolder(async (folder) => {
      const file = path.join(folder, "model.gguf");
      await assert.rejects(convertModel(writeModel(folder, made), file, options), {
        name: "UnsupportedModelError",
        message,
      });
      assert.deepEqual(fs.readdirSync(folder), ["source"]);
    }));
}
