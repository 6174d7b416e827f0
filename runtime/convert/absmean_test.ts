import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../../kernels/test_helpers.ts";
import { fixturePath } from "../../tests/fixtures.ts";
import { differenceOf, goldenModel, PLAIN_MODEL } from "../../tests/golden_models.ts";
import { convertModel } from "./convert.ts";
import type { TextSource } from "../text_source.ts";
import type { Progress } from "../types.ts";
import { openFloatModel } from "./float_model.ts";
import { DOUBLES, nativeProducts } from "./float_products.ts";
import { perplexityBefore } from "./perplexities.ts";
import { quantizationError } from "./quantization_error.ts";
import { openSource } from "./source.ts";

const { folder: PLAIN, manifest, read } = goldenModel(PLAIN_MODEL);
const TEXT = fs.readFileSync(fixturePath("corpus/tinystories_train.txt"), "utf8").slice(0, 1500);
const LINEARS = 3 * 7;

Deno.test("convert: the float model before rounding gives transformers' logits", async () => {
  await using source = await openSource(PLAIN, { quantize: "absmean" });
  using native = await nativeProducts({});
  for (const products of [DOUBLES, native]) {
    await checkLogits(openFloatModel(source, 512, products));
  }
});

async function checkLogits(model: ReturnType<typeof openFloatModel>): Promise<void> {
  for (const { name, input_ids, logits_file, logits_positions } of manifest.sequences) {
    if (input_ids.length > 64) continue;
    const expected = read(logits_file);
    for await (const { position, logits } of model.logits(input_ids, { positions: "all" })) {
      const row = logits_positions.indexOf(position);
      if (row < 0) continue;
      // float32's rounding in transformers, and in native products.
      const { max } = differenceOf(logits, expected.row(row));
      assert.ok(max < 1e-4, `${name}, position ${position}: ${max}`);
    }
  }
}

Deno.test("convert: what ternarising loses is the distance of the weights, by hand", () => {
  const weights = Float32Array.of(1, -1, 0.2, 0, 2, -0.1, 0.4, 0.9);
  const [k, n] = [4, 2];
  const stored = { kind: "f32", bytes: new Uint8Array(weights.buffer), n, k } as const;
  const rest = { n, k, groupSize: k, bias: null, inputNorm: null, stored };
  const codes = Uint8Array.of(2, 0, 1, 1, 2, 1, 1, 2);
  const { relativeError, ...found } = quantizationError({
    ...rest,
    what: '"gate"',
    codes,
    factors: Float32Array.of(1),
  });
  assert.deepEqual(found, { tensor: "gate", zeros: 0.5, scale: 1 });
  // Lost: 0.2, 1, 0.1, 0.4, 0.1; there were 1, 1, 0.2, 2, 0.1, 0.4, 0.9.
  const expected = Math.sqrt((0.04 + 1 + 0.01 + 0.16 + 0.01) / (2 + 0.04 + 4 + 0.01 + 0.16 + 0.81));
  assert.ok(Math.abs(relativeError - expected) < 1e-6, String(relativeError));
});

Deno.test("convert: --quantize absmean tells each matrix's loss, and perplexities before and after", () =>
  inFolder(async (folder) => {
    for (const name of ["out", "out.gguf", "out.trilith"]) {
      const { quantization, perplexity } = await convertModel(PLAIN, path.join(folder, name), {
        quantize: "absmean",
        perplexity: name === "out" ? { text: TEXT, chunkTokens: 64 } : undefined,
      });
      assert.equal(quantization!.length, LINEARS);
      assert.equal(new Set(quantization!.map(({ tensor }) => tensor)).size, LINEARS);
      for (const { tensor, relativeError, zeros, scale } of quantization!) {
        assert.match(tensor, /^model\.layers\.[0-2]\..*_proj\.weight$/);
        // Of normal weights absmean rounds 31 % to zero and loses half.
        assert.ok(relativeError > 0.4 && relativeError < 0.6, String(relativeError));
        assert.ok(zeros > 0.25 && zeros < 0.37 && scale > 0, String(zeros));
      }
      if (perplexity === null) continue;
      const { before, after } = perplexity;
      assert.ok("perplexity" in before);
      assert.equal(before.tokens, after.tokens);
      assert.notEqual(before.perplexity, after.perplexity);
    }
  }));

Deno.test("convert: stopped while perplexity is measured, it goes on with that, and knows all losses", () =>
  inFolder(async (folder) => {
    for (const name of ["out", "out.gguf", "out.trilith"]) {
      const target = path.join(folder, name);
      const controller = new AbortController();
      const options = {
        quantize: "absmean",
        perplexity: { text: TEXT, chunkTokens: 32, chunks: 2 },
      } as const;
      const onProgress = ({ message }: Progress) => {
        if (message === "Perplexity after") controller.abort();
      };
      const { signal } = controller;
      await assert.rejects(convertModel(PLAIN, target, { ...options, onProgress, signal }), {
        name: "AbortError",
      });
      assert.ok(!fs.existsSync(target));
      const { quantization, resumedBytes, verified, perplexity } = await convertModel(
        PLAIN,
        target,
        options,
      );
      assert.equal(quantization!.length, LINEARS);
      assert.ok(resumedBytes > 0 && verified!.matrices === LINEARS && perplexity !== null);
      assert.ok(!fs.existsSync(`${target}.partial`));
    }
  }));

async function* partsOf(text: string): AsyncGenerator<string> {
  yield* text.match(/.{1,40}/gs)!;
}

/** A text that comes a few words at a time. */
const PARTS: TextSource = {
  parts: { [Symbol.asyncIterator]: () => partsOf(TEXT) },
  bytes: TEXT.length,
};

Deno.test("convert: a text in parts is read as far as --chunks goes, and gives the same perplexities", () =>
  inFolder(async (folder) => {
    await using source = await openSource(PLAIN, { quantize: "absmean" });
    const options = { chunkTokens: 64, chunks: 2 };
    const [whole, parts] = [
      await perplexityBefore(source, { text: TEXT, ...options }),
      await perplexityBefore(source, { text: PARTS, ...options }),
    ];
    assert.deepEqual(parts, whole);
    assert.ok("perplexity" in whole && whole.chunks === 2);
    const short = { text: "Once upon a time", chunkTokens: 64 };
    for (const model of [PLAIN, fixturePath("models/llama-autobit-offline")]) {
      const target = path.join(folder, "out");
      const quantize = model === PLAIN ? "absmean" : undefined;
      await assert.rejects(convertModel(model, target, { quantize, perplexity: short }), {
        name: "RangeError",
        message: /must fill a chunk of 64 tokens/,
      });
      assert.deepEqual(fs.readdirSync(folder), []);
    }
  }));

Deno.test("convert: where the float model is not run, the reason is given", () =>
  inFolder(async (folder) => {
    const ternary = fixturePath("models/llama-autobit-offline");
    const { quantization, perplexity } = await convertModel(ternary, path.join(folder, "out"), {
      perplexity: { text: TEXT, chunkTokens: 64 },
    });
    assert.equal(quantization, null);
    assert.ok("skipped" in perplexity!.before);
    assert.match(perplexity!.before.skipped, /it was trained to be ternary/);
  }));
