/**
 * The readers of GGUF and safetensors headers on damaged files: whatever is in one, it is read or
 * refused with an error of ours, and no byte outside of the file is asked for. FUZZ_CASES=100000 runs
 * more of them.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { randomOf } from "../codegen/random.ts";
import { CheckpointError, UnsupportedModelError } from "../runtime/errors.ts";
import { type ByteSource, memoryBytes } from "../runtime/gguf/byte_source.ts";
import { configOf } from "../runtime/gguf/config.ts";
import { readHeader } from "../runtime/gguf/header.ts";
import { hfNames } from "../runtime/gguf/names.ts";
import { ggufCompanions } from "../runtime/gguf/tokenizer.ts";
import { parseJson, utf8Text } from "../runtime/json.ts";
import { parseHeader } from "../runtime/safetensors.ts";
import { ggufFile } from "./gguf_builder.ts";

const CASES = Number(process.env.FUZZ_CASES ?? 8000);

const GGUF = ggufFile({
  values: {
    "general.architecture": ["string", "llama"],
    "general.alignment": ["u32", 32],
    "llama.block_count": ["u32", 1],
    "llama.embedding_length": ["u64", 256],
    "llama.attention.head_count": ["u32", 4],
    "llama.feed_forward_length": ["u32", [256]],
    "llama.rope.freq_base": ["f32", 10000],
    "llama.context_length": ["i64", 512],
    "llama.attention.layer_norm_rms_epsilon": ["f64", 1e-5],
    "tokenizer.ggml.model": ["string", "gpt2"],
    "tokenizer.ggml.tokens": ["string", ["a", "b", "ab"]],
    "tokenizer.ggml.token_type": ["i32", [1, 1, 3]],
    "tokenizer.ggml.merges": ["string", ["a b"]],
    "tokenizer.ggml.add_bos_token": ["bool", true],
    "tokenizer.ggml.bos_token_id": ["u8", 2],
  },
  tensors: {
    "token_embd.weight": { dims: [256, 3], type: 1, bytes: new Uint8Array(1536) },
    "blk.0.attn_q.weight": { dims: [256, 256], type: 35, bytes: new Uint8Array(256 * 66) },
    "blk.0.attn_k.weight": { dims: [128, 2], type: 42, bytes: new Uint8Array(72) },
  },
});
/** Where the header of GGUF ends: nothing behind is parsed. */
const HEADER_BYTES = GGUF.length - 1536 - 256 * 66 - 96;

const SAFETENSORS = new TextEncoder().encode(JSON.stringify({
  __metadata__: { format: "pt" },
  a: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: "BF16", shape: [4], data_offsets: [24, 32] },
}));

/** Numbers at which readers break: about zero, signs, and what no file can hold. */
const EDGES = [0n, 1n, 2n, 3n, 0x7fn, 0x80n, 0xffn, 0xffffn, 0x7fffffffn, 0x80000000n, 0xffffffffn]
  .concat([2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]);

function mutated(bytes: Uint8Array, headerBytes: number, random: () => number): Uint8Array {
  const out = bytes.slice();
  const view = new DataView(out.buffer);
  const below = (most: number) => Math.floor(random() * most);
  for (let times = below(3); times >= 0; times--) {
    const at = below(headerBytes - 8);
    const edge = EDGES[below(EDGES.length)];
    switch (below(4)) {
      case 0:
        out[at] ^= 1 << below(8);
        break;
      case 1:
        out[at] = below(256);
        break;
      case 2:
        view.setUint32(at, Number(edge & 0xffffffffn), true);
        break;
      case 3:
        view.setBigUint64(at, edge, true);
    }
  }
  if (random() < 0.1) return out.subarray(0, below(out.length));
  if (random() < 0.1) return Uint8Array.from([...out, ...Array(below(100)).fill(0)]);
  return out;
}

/** Fails on any read that does not lie within the file. */
function watched(bytes: Uint8Array): ByteSource {
  const source = memoryBytes(bytes, "fuzz.gguf");
  return {
    ...source,
    read(position, length, allocate) {
      assert.ok(position >= 0 && length >= 0 && position + length <= bytes.length);
      return source.read(position, length, allocate);
    },
  };
}

async function readGguf(bytes: Uint8Array): Promise<void> {
  const { metadata, tensors } = await readHeader(watched(bytes));
  for (const { byteOffset, byteLength } of tensors.values()) {
    assert.ok(byteOffset >= 0 && byteOffset + byteLength <= bytes.length);
  }
  const names = hfNames(tensors.keys(), "llama");
  const byName = new Map([...names].map(([name, hfName]) => [hfName, tensors.get(name)!]));
  const companions = ggufCompanions(metadata, "fuzz.gguf");
  await companions.json("generation_config.json");
  await companions.json("tokenizer.json");
  await companions.json("tokenizer_config.json");
  configOf({ metadata, tensors: byName, ropeFactors: {} });
}

function readSafetensors(bytes: Uint8Array): void {
  const header = parseJson(utf8Text(bytes, "the header"), "the header");
  const fileBytes = bytes.length + 32;
  for (
    const { byteOffset, byteLength } of parseHeader(header, bytes.length, fileBytes, "f").values()
  ) {
    assert.ok(byteOffset >= 0 && byteOffset + byteLength <= fileBytes);
  }
}

async function outcome(read: () => void | Promise<void>, what: string): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
    if (!isOurs) throw new Error(what, { cause: error });
    return false;
  }
}

Deno.test("damaged GGUF headers are read or refused", async () => {
  await readGguf(GGUF);
  let read = 0;
  for (let seed = 0; seed < CASES; seed++) {
    const bytes = mutated(GGUF, HEADER_BYTES, randomOf(seed));
    if (await outcome(() => readGguf(bytes), `GGUF, seed ${seed}`)) read++;
  }
  assert.ok(read > 0 && read < CASES);
});

Deno.test("damaged safetensors headers are read or refused", async () => {
  readSafetensors(SAFETENSORS);
  let read = 0;
  for (let seed = 0; seed < CASES; seed++) {
    const bytes = mutated(SAFETENSORS, SAFETENSORS.length, randomOf(seed));
    if (await outcome(() => readSafetensors(bytes), `safetensors, seed ${seed}`)) read++;
  }
  assert.ok(read > 0 && read < CASES);
});
