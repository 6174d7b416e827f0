/**
 * The readers of GGUF and safetensors on damaged files: whatever is in one, it is read or refused with
 * an error of ours, no byte outside of the file is asked for, and none much more than once.
 *
 * Every field is set to every edge: values of 1, 4 and 8 bytes are written at each place of a header,
 * each value of a JSON header is replaced, and files end at each byte. FUZZ_EVERY=1 visits all places of
 * all GGUF headers; by default each header has every third of its own visited.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { parseModelConfig } from "../runtime/config.ts";
import { CheckpointError, UnsupportedModelError } from "../runtime/errors.ts";
import { type ByteSource, memoryBytes } from "../runtime/byte_source.ts";
import { architectureName, configOf } from "../runtime/gguf/config.ts";
import { readHeader } from "../runtime/gguf/header.ts";
import { hfNames } from "../runtime/gguf/names.ts";
import { ggufCompanions } from "../runtime/gguf/tokenizer.ts";
import type { Json, JsonObject } from "../runtime/json.ts";
import { openSafetensors } from "../runtime/safetensors.ts";
import { readTokenizer } from "../runtime/tokenizer.ts";
import { ggufFile, type TestValue } from "./gguf_builder.ts";
import { rawFile, withFolder } from "./safetensors_file.ts";

const EVERY = Number(process.env.FUZZ_EVERY ?? 3);

// ---------------------------------------------------------------- sound files

/** Keys of architectures that read more than those of all. */
const ARCHITECTURES: Record<string, Record<string, TestValue>> = {
  llama: { "llama.rope.scaling.type": ["string", "yarn"], "llama.rope.scaling.factor": ["f32", 4] },
  gemma3: {
    "gemma3.attention.sliding_window": ["u32", 4],
    "gemma3.attention.sliding_window_pattern": ["bool", [true, false]],
    "gemma3.pooling_type": ["u32", 1],
  },
  minicpm: { "minicpm.embedding_scale": ["f32", 12], "minicpm.residual_scale": ["f32", 0.25] },
  maple: {
    "maple.expert_count": ["u32", 4],
    "maple.expert_used_count": ["u32", 2],
    "maple.expert_feed_forward_length": ["u32", 256],
    "maple.attention.sliding_window": ["u32", 4],
    "maple.attention.sliding_window_pattern": ["u32", 4],
  },
};

interface Sound {
  bytes: Uint8Array<ArrayBuffer>;
  /** Where the header ends: nothing behind is parsed. */
  headerBytes: number;
}

/** A file with values of all types, and tensors of some. */
function soundGguf(architecture: string, version: number): Sound {
  const tensors = {
    "token_embd.weight": { dims: [256, 5], type: 1, bytes: new Uint8Array(2560) },
    "output_norm.weight": { dims: [256], type: 0, bytes: new Uint8Array(1024) },
    "blk.0.attn_q.weight": { dims: [256, 256], type: 35, bytes: new Uint8Array(256 * 66) },
    "blk.1.attn_k.weight": { dims: [128, 2], type: 42, bytes: new Uint8Array(72) },
  };
  const bytes = ggufFile({
    version,
    values: {
      "general.architecture": ["string", architecture],
      "general.alignment": ["u32", 32],
      [`${architecture}.block_count`]: ["u32", 2],
      [`${architecture}.embedding_length`]: ["u64", 256],
      [`${architecture}.attention.head_count`]: ["u32", 4],
      [`${architecture}.feed_forward_length`]: ["u32", [256, 256]],
      [`${architecture}.rope.freq_base`]: ["f32", 10000],
      [`${architecture}.context_length`]: ["i64", 512],
      [`${architecture}.attention.layer_norm_rms_epsilon`]: ["f64", 1e-5],
      ...ARCHITECTURES[architecture],
      "split.no": ["u16", 0],
      "split.count": ["u16", 1],
      "tokenizer.ggml.model": ["string", "gpt2"],
      "tokenizer.ggml.tokens": ["string", ["a", "b", "ab", "<x>", "c"]],
      "tokenizer.ggml.token_type": ["i32", [1, 1, 1, 3, 1]],
      "tokenizer.ggml.merges": ["string", ["a b"]],
      "tokenizer.ggml.add_bos_token": ["bool", true],
      "tokenizer.ggml.bos_token_id": ["u8", 2],
      "tokenizer.ggml.eos_token_id": ["i8", 3],
    },
    tensors,
  });
  const data = Object.values(tensors).reduce((sum, each) => sum + each.bytes.length + 24 & ~31, 0);
  return { bytes, headerBytes: bytes.length - data };
}

// ---------------------------------------------------------------- reading

/** Most bytes that are asked for: headers are read again at twice the length until they are whole. */
const READ_TIMES = 4;

/** Fails on any read that does not lie within the file, and on too many. */
function watched(bytes: Uint8Array): ByteSource {
  const source = memoryBytes(bytes, "fuzz.gguf");
  let left = READ_TIMES * bytes.length;
  return {
    ...source,
    read(position, length, allocate) {
      assert.ok(position >= 0 && length >= 0 && position + length <= bytes.length);
      assert.ok((left -= length) >= 0, "the file is read over and over");
      return source.read(position, length, allocate);
    },
  };
}

/** All that is made of a header before weights are read. */
async function readGguf(bytes: Uint8Array): Promise<void> {
  const { metadata, tensors } = await readHeader(watched(bytes));
  for (const { byteOffset, byteLength } of tensors.values()) {
    assert.ok(byteOffset >= 0 && byteOffset + byteLength <= bytes.length);
  }
  const names = hfNames(tensors.keys(), architectureName(metadata));
  const byName = new Map([...names].map(([name, hfName]) => [hfName, tensors.get(name)!]));
  const companions = ggufCompanions(metadata, "fuzz.gguf");
  await readTokenizer(companions);
  await companions.json("generation_config.json");
  const config = configOf({ metadata, tensors: byName, ropeFactors: {} });
  // Even the sound files lack most of their layers.
  await outcome(() => void parseModelConfig(config, byName, { quantize: "absmean" }), "config");
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

/** Reads many files and counts. */
class Tally {
  cases = 0;
  read = 0;

  async add(read: () => void | Promise<void>, what: string): Promise<void> {
    this.cases++;
    if (await outcome(read, what)) this.read++;
  }
}

// ---------------------------------------------------------------- GGUF

/** Numbers at which readers break: about zero, types, signs, and what no file can hold. */
const EDGES: readonly (readonly [width: 1 | 4 | 8, values: readonly bigint[]])[] = [
  [1, [0n, 1n, 0x2en, 0x7fn, 0x80n, 0xc3n, 0xffn]],
  [
    4,
    [0n, 1n, 2n, 4n, 5n, 6n, 7n, 8n, 9n, 12n, 35n, 36n, 42n, 65536n, 0x7f800000n, 0x7fc00000n]
      .concat([
        0x7fffffffn,
        0x80000000n,
        0xffffffffn,
      ]),
  ],
  [
    8,
    [0n, 1n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n].concat([
      2n ** 64n - 1n,
      2n ** 64n - 32n,
    ]),
  ],
];

function put(bytes: Uint8Array, at: number, width: 1 | 4 | 8, value: bigint): Uint8Array {
  const out = bytes.slice();
  for (let i = 0; i < width; i++) out[at + i] = Number(value >> BigInt(8 * i) & 255n);
  return out;
}

/** Each place that is visited, one more and one less than what is there, and each edge. */
async function fuzzPlaces(
  { bytes, headerBytes }: Sound,
  first: number,
  tally: Tally,
  name: string,
) {
  for (let at = first; at < headerBytes; at += EVERY) {
    for (const step of [1, 255]) {
      const near = put(bytes, at, 1, BigInt(bytes[at] + step & 255));
      await tally.add(() => readGguf(near), `${name}, byte ${at} + ${step}`);
    }
    for (const [width, values] of EDGES) {
      if (at + width > headerBytes) continue;
      for (const value of values) {
        const edited = put(bytes, at, width, value);
        await tally.add(() => readGguf(edited), `${name}, ${width} bytes at ${at}: ${value}`);
      }
    }
  }
}

/** Files that end too early or too late. */
async function fuzzLengths(
  { bytes, headerBytes }: Sound,
  first: number,
  tally: Tally,
  name: string,
) {
  for (let end = first; end < headerBytes + 64; end += EVERY) {
    await tally.add(() => readGguf(bytes.slice(0, end)), `${name}, the first ${end} bytes`);
  }
  const longer = Uint8Array.from([...bytes, ...Array(first + 1).fill(255)]);
  await tally.add(() => readGguf(longer), `${name}, ${first + 1} more bytes`);
}

for (const [i, architecture] of Object.keys(ARCHITECTURES).entries()) {
  for (const version of [2, 3]) {
    const name = `${architecture}, version ${version}`;
    Deno.test(`GGUF headers of ${name} are read or refused, whatever is in them`, async () => {
      const sound = soundGguf(architecture, version);
      await readGguf(sound.bytes);
      const tally = new Tally();
      const first = (2 * i + version) % EVERY;
      await fuzzPlaces(sound, first, tally, name);
      await fuzzLengths(sound, first, tally, name);
      const { cases, read } = tally;
      assert.ok(cases > 30 * sound.headerBytes / EVERY && read > 0 && read < cases);
    });
  }
}

// ---------------------------------------------------------------- safetensors

const HEADER: JsonObject = {
  __metadata__: { format: "pt" },
  a: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: "BF16", shape: [4], data_offsets: [24, 32] },
  c: { dtype: "U8", shape: [2, 0], data_offsets: [32, 32] },
};
const DATA = Uint8Array.from({ length: 32 }, (_, i) => i);

const JSON_EDGES: readonly Json[] = [
  null,
  true,
  "",
  "F32",
  "F64",
  "BOOL",
  "F8_E4M3",
  "x".repeat(9999),
]
  .concat([-1, 0, 1, 1.5, 24, 33, 2 ** 31, 2 ** 32, 2 ** 53, 1e308] as never[])
  .concat([[], {}, [[]], [0, 2 ** 53], [24, 0], Array(99).fill(1)] as never[]);

/** The header with each value in turn replaced by each edge, or left out. */
function* editedHeaders(value: Json, path: string): Generator<[Json, string]> {
  if (typeof value !== "object" || value === null) return;
  for (const key of Object.keys(value)) {
    const at = `${path}.${key}`;
    const copyWith = (part: Json): Json =>
      Array.isArray(value)
        ? value.with(Number(key), part)
        : { ...(value as JsonObject), [key]: part };
    for (const edge of JSON_EDGES) yield [copyWith(edge), `${at}: ${JSON.stringify(edge)}`];
    const { [key]: part, ...others } = value as JsonObject;
    yield [Array.isArray(value) ? value.toSpliced(Number(key), 1) : others, `${at} left out`];
    yield [{ ...others, [key.toUpperCase()]: part }, `${at} named otherwise`];
    for (const [inner, what] of editedHeaders(part, at)) yield [copyWith(inner), what];
  }
}

/** Headers that no object is written as. */
const TEXTS = [
  "",
  "[]",
  "{",
  `${"[".repeat(100_000)}`,
  '{"a":{"dtype":"U8","shape":[32],"data_offsets":[0,32]},"a":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}}',
  '{"__proto__":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}}',
  '{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,32]}}',
  '{"a":{"dtype":"U8","shape":[0x20],"data_offsets":[0,32]}}',
  "\ufffd\u0000",
];

/** From a real file: opens it and reads all that it says it has. */
async function readSafetensors(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(path, bytes);
  const file = await openSafetensors(path);
  try {
    for (const [name, { byteOffset, byteLength }] of file.tensors) {
      assert.ok(byteOffset >= 0 && byteOffset + byteLength <= bytes.length);
      const read = await file.read(name);
      assert.deepEqual(read, bytes.slice(byteOffset, byteOffset + byteLength));
    }
  } finally {
    await file.close();
  }
}

Deno.test("safetensors files are read or refused, whatever is in them", () =>
  withFolder({}, async (folder) => {
    const path = join(folder, "f.safetensors");
    const sound = rawFile(JSON.stringify(HEADER), DATA);
    await readSafetensors(path, sound);
    const tally = new Tally();
    const add = (bytes: Uint8Array, what: string) =>
      tally.add(() => readSafetensors(path, bytes), what);
    for (const [header, what] of editedHeaders(HEADER, "header")) {
      await add(rawFile(JSON.stringify(header), DATA), what);
    }
    for (const text of TEXTS) await add(rawFile(text, DATA), text.slice(0, 60));
    for (const value of EDGES.flatMap(([, values]) => values)) {
      await add(rawFile(JSON.stringify(HEADER), DATA, value), `a header of ${value} bytes`);
    }
    for (let at = 0; at < sound.length - DATA.length; at++) {
      for (const value of [0n, 0x22n, 0x2dn, 0x39n, 0x5dn, 0x7dn, 0x80n, 0xffn]) {
        await add(put(sound, at, 1, value), `byte ${at}: ${value}`);
      }
    }
    for (let end = 0; end < sound.length; end++) await add(sound.slice(0, end), `${end} bytes`);
    assert.ok(tally.cases > 2000 && tally.read > 0 && tally.read < tally.cases);
  }));
