/** Forms in which Maple's experts may come: all give the logits of the stacked safetensors model. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../kernels/test_helpers.ts";
import { convertModel } from "../runtime/convert/convert.ts";
import { loadModel, type LoadOptions } from "../runtime/mod.ts";
import { readGguf } from "./gguf_file.ts";
import { MADE, madeFolder, type MadeModel, madeValues, TOKENIZER } from "./made_models.ts";
import { MAPLE } from "./made_variants.ts";
import { bf16Bytes, safetensorsFile, type TestTensor, withFolder } from "./safetensors_file.ts";
import { sizedModel } from "./sized_models.ts";

/** Rows of all matrices are whole blocks. */
const MODEL: MadeModel = sizedModel(MAPLE, {
  hidden: 256,
  intermediate: 256,
  headDim: 64,
  vocab: 256,
});
const numExperts = Number(MODEL.config.num_experts);

function write(folder: string, files: Readonly<Record<string, string | Uint8Array>>): string {
  fs.mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    fs.writeFileSync(path.join(folder, name), content);
  }
  fs.writeFileSync(path.join(folder, "tokenizer.json"), JSON.stringify(TOKENIZER));
  return folder;
}

async function logitsOf(model: string, options: LoadOptions): Promise<Float32Array[]> {
  await using opened = await loadModel(model, options);
  const all = await Array.fromAsync(opened.logits(MADE.sequences[1], { positions: "all" }));
  return all.map(({ logits }) => logits);
}

let twin: Promise<Float32Array[]> | undefined;

/** Of the stacked model in bfloat16, by the reference, whose packer is another one too. */
function expected(): Promise<Float32Array[]> {
  return twin ??= withFolder(
    { ...madeFolder(MODEL), "tokenizer.json": JSON.stringify(TOKENIZER) },
    (folder) => logitsOf(folder, { kernels: "reference" }),
  );
}

async function check(model: string): Promise<void> {
  assert.deepEqual(await logitsOf(model, { threads: 2 }), await expected());
}

const TQ2_0 = 35;

Deno.test("Maple: a GGUF file whose experts are TQ2_0 has the logits of its twin", () =>
  inFolder(async (folder) => {
    const source = write(path.join(folder, "m"), madeFolder(MODEL));
    const file = path.join(folder, "maple.gguf");
    await convertModel(source, file, { type: "tq2_0" });
    const experts = readGguf(fs.readFileSync(file)).tensors
      .filter(({ name }) => /_exps\.weight$/.test(name));
    assert.equal(experts.length, 3 * Number(MODEL.config.num_hidden_layers));
    assert.ok(experts.every((each) => each.type === TQ2_0 && each.dims[2] === numExperts));
    await check(file);
  }));

/** Tensors by the published names, each expert's matrices by themselves; zeros of both signs. */
function apart(): Record<string, TestTensor> {
  const stored: Record<string, TestTensor> = {};
  for (const [name, tensor] of Object.entries(MODEL.tensors)) {
    const values = madeValues(name, tensor).map((value, i) =>
      value === 0 && i % 3 > 0 ? -0 : value
    );
    const { shape } = tensor;
    if (!name.includes(".mlp.experts.")) {
      stored[name.replace("embed_tokens", "word_embeddings")] = {
        dtype: "BF16",
        shape,
        bytes: bf16Bytes([...values]),
      };
      continue;
    }
    const size = values.length / numExperts;
    for (let expert = 0; expert < numExperts; expert++) {
      const own = name.replace(".experts.", `.experts.${expert}.`);
      const bytes = bf16Bytes([...values.subarray(expert * size, (expert + 1) * size)]);
      stored[own] = { dtype: "BF16", shape: shape.slice(1), bytes };
    }
  }
  return stored;
}

Deno.test("Maple: experts that are tensors of their own", () =>
  inFolder(async (folder) => {
    await check(write(path.join(folder, "m"), {
      "config.json": JSON.stringify(MODEL.config),
      "model.safetensors": safetensorsFile(apart()),
    }));
  }));
