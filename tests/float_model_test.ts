/** Float models as `convert --quantize absmean --perplexity` runs them before: their logits are transformers'. */
import assert from "node:assert/strict";
import { missingPart, openFloatModel } from "../runtime/convert/float_model.ts";
import { DOUBLES, nativeProducts } from "../runtime/convert/float_products.ts";
import { openSource } from "../runtime/convert/source.ts";
import { MADE, madeFolder, type MadeModel, publishedLogits, TOKENIZER } from "./made_models.ts";
import { withFolder } from "./safetensors_file.ts";

/** Of the largest logit of a row, for float32 in transformers and in native products. */
const TOLERANCE = 1e-5;

async function checkModel(made: MadeModel): Promise<void> {
  const files = { ...madeFolder(made), "tokenizer.json": JSON.stringify(TOKENIZER) };
  using native = await nativeProducts({});
  await withFolder(files, async (folder) => {
    await using source = await openSource(folder);
    assert.equal(missingPart(source.config.spec), null);
    const published = publishedLogits(made);
    for (const products of [DOUBLES, native]) {
      const model = openFloatModel(source, 512, products);
      for (const [s, ids] of MADE.sequences.entries()) {
        for await (const { position, logits } of model.logits(ids, { positions: "all" })) {
          const at = position * logits.length;
          const expected = published[s].subarray(at, at + logits.length);
          const most = TOLERANCE * Math.max(...expected.map(Math.abs));
          const off = Math.max(...logits.map((logit, i) => Math.abs(logit - expected[i])));
          assert.ok(off <= most, `sequence ${s}, position ${position}: ${off} is above ${most}`);
        }
      }
    }
  });
}

// Those whose inputs transformers leaves as they are.
for (const made of MADE.models.filter(({ name }) => /^(bonsai|trilm|bitcpm)$/.test(name))) {
  Deno.test(`float model: ${made.name} has transformers' logits`, () => checkModel(made));
}
