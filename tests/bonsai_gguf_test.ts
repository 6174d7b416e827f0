/**
 * Ternary-Bonsai as it is published: GGUF files of Qwen3 whose linears, embedding and head are blocks of
 * codes with a factor each. Each is compared with its safetensors twin, whose logits
 * `architectures_test.ts` proves: the same packed bytes, the same logits to the last bit.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspectModel } from "../runtime/inspect.ts";
import type { JsonObject } from "../runtime/json.ts";
import { loadModel, type LoadOptions } from "../runtime/mod.ts";
import { f32Bytes, ggufFile, type TestTensor, type TestValue } from "./gguf_builder.ts";
import { MADE, madeFolder, type MadeModel, madeValues } from "./made_models.ts";
import { bonsaiOfBlocks as bonsai } from "./made_variants.ts";
import { packed, regionsOf } from "./packed_model.ts";
import { withFolder } from "./safetensors_file.ts";

/** A type of blocks, as files say it. */
interface BlockType {
  name: string;
  id: number;
  /** Weights of a block. */
  weights: number;
  /** The block of these codes. */
  encode(codes: Uint8Array, factor: Uint8Array): Uint8Array;
}

/** The factor, then four codes a byte. */
function quarters(codes: Uint8Array, factor: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(
    { length: codes.length / 4 },
    (_, i) => codes.subarray(4 * i, 4 * i + 4).reduce((sum, code, j) => sum | code << 2 * j, 0),
  );
  return Uint8Array.of(...factor, ...bytes);
}

/** Trits of 16 bytes and of 8, five each, and of 2, four each; then the factor. */
function trits(codes: Uint8Array, factor: Uint8Array): Uint8Array {
  const parts = [[0, 16, 5], [80, 8, 5], [120, 2, 4]].flatMap(([from, width, count]) =>
    Array.from({ length: width }, (_, i) => {
      let value = 0;
      for (let t = 0; t < 5; t++) value = 3 * value + (t < count ? codes[from + t * width + i] : 0);
      return Math.ceil(value * 256 / 243);
    })
  );
  return Uint8Array.of(...parts, ...factor);
}

const TYPES: readonly BlockType[] = [
  { name: "PQ2_0", id: 142, weights: 128, encode: quarters },
  { name: "PQ2_0 under its old number", id: 42, weights: 128, encode: quarters },
  { name: "Q2_0", id: 42, weights: 64, encode: quarters },
  { name: "PTQ1_0", id: 143, weights: 128, encode: trits },
];

/** llama.cpp's names. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens/, "token_embd"],
  [/^model\.norm/, "output_norm"],
  [/^lm_head/, "output"],
  [/^model\.layers\.(\d+)\.self_attn\.([qk])_norm/, "blk.$1.attn_$2_norm"],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj/, "blk.$1.attn_output"],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj/, "blk.$1.attn_$2"],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj/, "blk.$1.ffn_$2"],
  [/^model\.layers\.(\d+)\.input_layernorm/, "blk.$1.attn_norm"],
  [/^model\.layers\.(\d+)\.post_attention_layernorm/, "blk.$1.ffn_norm"],
];

function ggufName(name: string): string {
  const [pattern, text] = NAMES.find(([each]) => each.test(name))!;
  return name.replace(pattern, text);
}

/** A matrix's blocks. */
function blocks(values: Float32Array, type: BlockType): Uint8Array<ArrayBuffer> {
  const parts: number[] = [];
  for (let at = 0; at < values.length; at += type.weights) {
    const own = values.subarray(at, at + type.weights);
    const factor = Math.max(...Array.from(own, Math.abs));
    const codes = Uint8Array.from(own, (value) => Math.sign(value) + 1);
    parts.push(...type.encode(codes, new Uint8Array(Float16Array.of(factor).buffer)));
  }
  return Uint8Array.from(parts);
}

function tensorsOf(made: MadeModel, type: BlockType): Record<string, TestTensor> {
  return Object.fromEntries(
    Object.entries(made.tensors).map(([name, tensor]) => {
      const values = madeValues(name, tensor);
      const dims = tensor.shape.toReversed();
      return [
        ggufName(name),
        dims.length === 1
          ? { dims, type: 0, bytes: f32Bytes([...values]) }
          : { dims, type: type.id, bytes: blocks(values, type) },
      ];
    }),
  );
}

function keysOf({ config }: MadeModel): Record<string, TestValue> {
  const number = (key: string) => Number(config[key]);
  const rope = config.rope_parameters as JsonObject;
  const counts = {
    block_count: "num_hidden_layers",
    context_length: "max_position_embeddings",
    embedding_length: "hidden_size",
    feed_forward_length: "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
  };
  const values: Record<string, TestValue> = { "general.architecture": ["string", "qwen3"] };
  for (const [key, name] of Object.entries(counts)) values[`qwen3.${key}`] = ["u32", number(name)];
  return {
    ...values,
    "qwen3.attention.layer_norm_rms_epsilon": ["f32", number("rms_norm_eps")],
    "qwen3.rope.freq_base": ["f32", Number(rope.rope_theta)],
    "qwen3.rope.scaling.type": ["string", "yarn"],
    "qwen3.rope.scaling.factor": ["f32", Number(rope.factor)],
    "qwen3.rope.scaling.original_context_length": [
      "u32",
      Number(rope.original_max_position_embeddings),
    ],
    "tokenizer.ggml.model": ["string", "gpt2"],
    "tokenizer.ggml.pre": ["string", "qwen2"],
    "tokenizer.ggml.tokens": ["string", TOKENS],
    "tokenizer.ggml.token_type": ["i32", TOKENS.map(() => 1)],
    "tokenizer.ggml.merges": ["string", ["t h"]],
    "tokenizer.ggml.bos_token_id": ["u32", 1],
    "tokenizer.ggml.eos_token_id": ["u32", 2],
  };
}

/** Letters, a merge, and what fills the vocabulary. */
const TOKENS = Array.from(
  { length: 256 },
  (_, i) => i < 26 ? String.fromCharCode(97 + i) : i === 26 ? "th" : `<${i}>`,
);

/** Runs `use` on the file and its twin. */
function withTwins<T>(
  made: MadeModel,
  type: BlockType,
  use: (gguf: string, folder: string) => Promise<T>,
): Promise<T> {
  const tokenizer = JSON.stringify({
    model: { type: "BPE", vocab: { a: 0 }, merges: [] },
    decoder: { type: "ByteLevel" },
  });
  return withFolder({ ...madeFolder(made), "tokenizer.json": tokenizer }, async (folder) => {
    const gguf = join(folder, "bonsai.gguf");
    await writeFile(gguf, ggufFile({ values: keysOf(made), tensors: tensorsOf(made, type) }));
    return await use(gguf, folder);
  });
}

async function logitsOf(path: string, options: LoadOptions): Promise<Float32Array[]> {
  await using model = await loadModel(path, options);
  const ids = MADE.sequences.at(-1)!;
  const results = await Array.fromAsync(model.logits(ids, { positions: "all" }));
  return results.map(({ logits }) => logits);
}

for (const type of TYPES) {
  for (const tied of [false, true]) {
    const made = bonsai(tied);
    Deno.test(`Bonsai of ${type.name}${tied ? ", tied," : ""} is packed as its twin`, () =>
      withTwins(made, type, async (gguf, folder) => {
        const [own, twin] = [await packed(gguf), await packed(folder)];
        assert.deepEqual(own.config.spec, twin.config.spec);
        const { groups, ternaryHead, ternaryEmbedding } = own.config.spec;
        assert.deepEqual(groups, { size: 128, weightScales: true, scaleType: "f16" });
        assert.deepEqual([ternaryHead, ternaryEmbedding], [true, true]);
        const regions = regionsOf(twin);
        for (const [name, bytes] of regionsOf(own)) {
          assert.deepEqual(bytes, regions.get(name), name);
        }
      }));
  }
}

Deno.test("Bonsai's GGUF files give their twins' logits with native kernels and the reference", () =>
  withTwins(bonsai(false), TYPES[0], async (gguf, folder) => {
    const expected = await logitsOf(folder, { threads: 1 });
    assert.deepEqual(await logitsOf(gguf, { threads: 2 }), expected);
    assert.deepEqual(await logitsOf(gguf, { kernels: "reference" }), expected);
  }));

Deno.test("a Bonsai GGUF file generates text, and says what it is", () =>
  withTwins(bonsai(true), TYPES[0], async (gguf) => {
    const report = await inspectModel(gguf);
    assert.equal(report.architecture, "qwen3, ternary (a factor a group)");
    assert.equal(report.bitsPerWeight, 2.125);
    assert.deepEqual(report.tensorTypes.map(({ type }) => type), ["PQ2_0", "F32"]);
    await using model = await loadModel(gguf);
    const { tokenIds } = await model.generate("the", {
      temperature: 0,
      maxTokens: 5,
      ignoreEos: true,
    });
    assert.equal(tokenIds.length, 5);
    const prompt = model.tokenizer.encode("the");
    const all = await Array.fromAsync(
      model.logits([...prompt, ...tokenIds], { positions: "all" }),
    );
    tokenIds.forEach((id, i) => {
      const { logits } = all[prompt.length - 1 + i];
      assert.equal(logits[id], Math.max(...logits), `token ${i}`);
    });
  }));

Deno.test("an embedding with one weight of twice its factor is one of floats", () =>
  withFolder({}, async (folder) => {
    const made = bonsai(false);
    const tensors = tensorsOf(made, TYPES[0]);
    const { bytes } = tensors["token_embd.weight"];
    // A row far from those that tell what linears are.
    const [row, rowBytes] = [120, 2 * 34];
    bytes[row * rowBytes + 2] |= 3;
    const gguf = join(folder, "bonsai.gguf");
    await writeFile(gguf, ggufFile({ values: keysOf(made), tensors }));
    const own = await packed(gguf);
    const { spec } = own.config;
    assert.deepEqual([spec.ternaryEmbedding, spec.ternaryHead], [undefined, true]);
    const embedding = regionsOf(own).get("embedding")!;
    const factor = new Float16Array(bytes.buffer, row * rowBytes, 1)[0];
    const at = 2 * row * spec.hiddenSize;
    assert.equal(new Float16Array(embedding.slice(at, at + 2).buffer)[0], 2 * factor);
    const expected = await logitsOf(gguf, { kernels: "reference" });
    assert.deepEqual(await logitsOf(gguf, { threads: 2 }), expected);
  }));
