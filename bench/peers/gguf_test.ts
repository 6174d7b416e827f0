import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { shapeOf } from "../../runtime/shapes.ts";
import { inFolder } from "../../kernels/test_helpers.ts";
import { readGguf } from "../../tests/gguf_file.ts";
import { GGUF_FORMATS, type GgufFormat, writeGguf } from "./gguf.ts";
import { Peer } from "./process.ts";

const SPEC = {
  ...shapeOf("bitnet-700m"),
  hiddenSize: 256,
  intermediateSize: 512,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 64,
  vocabSize: 300,
};

/** Codes of the first block of a format, by the format's own rule: -1, 0, 1. */
const DECODERS: Record<GgufFormat, (block: Uint8Array) => number[]> = {
  TQ2_0: (block) => [...block.subarray(0, 64)].flatMap((byte) => fields(byte, 2, 4)),
  TQ1_0: (block) =>
    [...block.subarray(0, 52)].flatMap((byte, i) =>
      Array.from({ length: i < 48 ? 5 : 4 }, (_, n) => ((byte * 3 ** n & 255) * 3 >> 8) - 1)
    ),
  Q4_0: (block) =>
    [...block.subarray(2, 18)].flatMap((byte) => [byte & 15, byte >> 4])
      .map((nibble) => nibble - 8),
};

function fields(byte: number, bits: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => (byte >> bits * i & (1 << bits) - 1) - 1);
}

const BYTES_OF_BLOCK = { TQ2_0: 66, TQ1_0: 54, Q4_0: 18 };
const WEIGHTS_OF_BLOCK = { TQ2_0: 256, TQ1_0: 256, Q4_0: 32 };

for (const format of GGUF_FORMATS) {
  Deno.test(`gguf: ${format} files are read back as a ternary model of the shape`, () =>
    inFolder((folder) => {
      const file = path.join(folder, "model.gguf");
      const { fileBytes, bytesPerToken } = writeGguf(file, SPEC, format);
      const bytes = fs.readFileSync(file);
      assert.equal(bytes.length, fileBytes);
      const { values, tensors, data } = readGguf(bytes);
      assert.equal(values.get("general.architecture"), "bitnet");
      assert.equal(values.get("bitnet.feed_forward_length"), 512);
      assert.equal((values.get("tokenizer.ggml.tokens") as string[]).length, SPEC.vocabSize);
      const gate = tensors.find(({ name }) => name === "blk.1.ffn_gate.weight")!;
      assert.deepEqual(gate.dims, [256, 512]);
      const start = data + gate.offset;
      const block = bytes.subarray(start, start + BYTES_OF_BLOCK[format]);
      const weights = DECODERS[format](block);
      assert.equal(weights.length, WEIGHTS_OF_BLOCK[format]);
      assert.deepEqual([...new Set(weights)].sort(), [-1, 0, 1]);
      assert.ok(tensors.every(({ offset }) => offset % 32 === 0));
      assert.equal(new Set(tensors.map(({ name }) => name)).size, 1 + 2 * 11 + 1);
      const ternary = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512);
      const perWeight = BYTES_OF_BLOCK[format] / WEIGHTS_OF_BLOCK[format];
      const norms = 4 * (256 + 2 * (256 + 256 + 256 + 512));
      assert.equal(bytesPerToken, ternary * perWeight + 300 * 210 + norms);
    }));
}

Deno.test("gguf: models without sub-norms and with a head of their own are llamas", () =>
  inFolder((folder) => {
    const file = path.join(folder, "model.gguf");
    const spec = { ...SPEC, subNorms: false, tieWordEmbeddings: false };
    writeGguf(file, spec, "TQ2_0");
    const { values, tensors } = readGguf(fs.readFileSync(file));
    assert.equal(values.get("general.architecture"), "llama");
    const names = tensors.map(({ name }) => name);
    assert.ok(names.includes("output.weight") && !names.includes("blk.0.attn_sub_norm.weight"));
  }));

Deno.test("gguf: shapes that blocks do not divide are refused", () =>
  inFolder((folder) => {
    const file = path.join(folder, "model.gguf");
    assert.throws(() => writeGguf(file, shapeOf("bitnet-3b"), "TQ2_0"), {
      name: "RangeError",
      message: /must divide into blocks of 256 weights: current value is 3200, use a shape/,
    });
  }));

Deno.test("peers: where the package is not installed, the answer says so", () =>
  inFolder(async (folder) => {
    const started = await Peer.start(folder, path.join(folder, "no.gguf"), 1, 16);
    assert.ok("problem" in started);
    assert.match(started.problem, /node-llama-cpp/);
  }));
