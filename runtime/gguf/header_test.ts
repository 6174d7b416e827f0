import assert from "node:assert/strict";
import {
  f32Bytes,
  ggufFile,
  GgufWriter,
  type TestTensor,
  VALUE,
} from "../../tests/gguf_builder.ts";
import { CheckpointError, UnsupportedModelError } from "../errors.ts";
import { memoryBytes } from "../byte_source.ts";
import { readHeader } from "./header.ts";

const read = (bytes: Uint8Array<ArrayBuffer>) => readHeader(memoryBytes(bytes, "m.gguf"));

const F32 = 0;
const vector: TestTensor = { dims: [8], type: F32, bytes: f32Bytes([1, 2, 3, 4, 5, 6, 7, 8]) };

/** Magic, version 3, and how many tensors and keys there are said to be. */
function begun(tensors: number | bigint, keys: number | bigint): GgufWriter {
  return new GgufWriter().u32(0x46554747).u32(3).u64(tensors).u64(keys);
}

/** A tensor's entry; so much follows that counts are believed. */
function withTensor(write: (writer: GgufWriter) => GgufWriter): Uint8Array<ArrayBuffer> {
  return write(begun(1, 0)).zerosTo(32).bytes(new Uint8Array(256)).done();
}

function withKey(write: (writer: GgufWriter) => GgufWriter): Uint8Array<ArrayBuffer> {
  return write(begun(0, 1)).bytes(new Uint8Array(256)).done();
}

for (const version of [2, 3]) {
  Deno.test(`GGUF version ${version}: values of all types, and tensors where they are`, async () => {
    const { metadata, tensors } = await read(ggufFile({
      version,
      values: {
        "a.u8": ["u8", 200],
        "a.i64": ["i64", -5],
        "a.f64": ["f64", 0.1],
        "a.bool": ["bool", true],
        "a.text": ["string", "é"],
        "a.list": ["u32", [1, 2, 3]],
        "a.texts": ["string", ["x", ""]],
      },
      tensors: { a: vector, b: { dims: [4, 2], type: F32, bytes: vector.bytes } },
    }));
    assert.deepEqual(["a.u8", "a.i64", "a.f64", "a.bool", "a.text"].map((k) => metadata.get(k)), [
      200,
      -5,
      0.1,
      true,
      "é",
    ]);
    assert.equal((metadata.get("a.list") as { length: number }).length, 3);
    const [a, b] = [tensors.get("a")!, tensors.get("b")!];
    assert.deepEqual([a.shape, b.shape, b.dtype, b.byteLength], [[8], [2, 4], "F32", 32]);
    assert.equal(b.byteOffset - a.byteOffset, 32);
  });
}

const MAX = 2n ** 64n - 1n;

const DAMAGED: Record<string, [bytes: Uint8Array<ArrayBuffer>, message: RegExp]> = {
  "an empty file": [new Uint8Array(), /ends at byte 0, within its header: download it again/],
  "another magic": [new TextEncoder().encode("GGML".repeat(9)), /does not begin with "GGUF"/],
  "a header that is cut off": [ggufFile({ tensors: { a: vector } }).slice(0, 40), /within its/],
  "more tensors than fit": [begun(2 ** 40, 0).bytes(new Uint8Array(99)).done(), /claims 1099511/],
  "more keys than a number holds": [begun(0, MAX).done(), /claims 18446744073709551615 keys/],
  "a key twice": [
    begun(0, 2).string("k").u32(VALUE.u32).u32(1).string("k").u32(VALUE.u32).u32(1).done(),
    /has the key "k" twice/,
  ],
  "a key that is longer than the file": [withKey((w) => w.u64(9999)), /a key claims 9999 bytes/],
  "a value of no type": [withKey((w) => w.string("k").u32(13)), /value of unknown type 13/],
  "a bool of 2": [withKey((w) => w.string("k").u32(VALUE.bool).bytes(Uint8Array.of(2))), /0 or 1/],
  "lists in a list": [
    withKey((w) => w.string("k").u32(VALUE.array).u32(VALUE.array).u64(1)),
    /has lists within a list/,
  ],
  "a list that is longer than the file": [
    withKey((w) => w.string("k").u32(VALUE.array).u32(VALUE.f64).u64(2 ** 50)),
    /claims 1125899906842624 elements/,
  ],
  "a list's string that is longer than the file": [
    withKey((w) => w.string("k").u32(VALUE.array).u32(VALUE.string).u64(1).u64(MAX)),
    /a string of "k" claims 18446744073709551615 bytes/,
  ],
  "a name that is not UTF-8": [
    withTensor((w) => w.u64(1).bytes(Uint8Array.of(255)).u32(1).u64(8).u32(F32).u64(0)),
    /not UTF-8/,
  ],
  "no dimensions": [withTensor((w) => w.string("a").u32(0)), /must have 1 to 4 dimensions/],
  "five dimensions": [withTensor((w) => w.string("a").u32(5)), /it claims 5/],
  "a dimension of 0": [withTensor((w) => w.string("a").u32(1).u64(0)), /at least 1: it claims 0/],
  "a shape whose product wraps": [
    withTensor((w) => w.string("a").u32(2).u64(2 ** 40).u64(2 ** 40).u32(F32).u64(0)),
    /its shape is too large/,
  ],
  "a tensor behind the end": [
    withTensor((w) => w.string("a").u32(1).u64(8).u32(F32).u64(2 ** 30)),
    /8 weights of F32 take 32 bytes and the file has 0 before its end/,
  ],
  "a tensor that runs past the end": [
    withTensor((w) => w.string("a").u32(1).u64(2 ** 20).u32(F32).u64(0)),
    /take 4194304 bytes/,
  ],
  "an offset that is not aligned": [
    withTensor((w) => w.string("a").u32(1).u64(8).u32(F32).u64(4)),
    /offset must be a multiple of 32: current value is 4/,
  ],
  "a tensor over another": [
    ggufFile({ tensors: { a: vector, b: { ...vector, offset: 0 } } }),
    /take 32 bytes and the file has 0/,
  ],
  "rows that are no whole blocks": [
    withTensor((w) => w.string("a").u32(1).u64(100).u32(35).u64(0)),
    /rows of TQ2_0 must be of a multiple of 256 weights: current value is 100/,
  ],
  "an alignment of 0": [
    ggufFile({ values: { "general.alignment": ["u32", 0] }, tensors: { a: vector } }),
    /alignment/,
  ],
};

for (const [name, [bytes, message]] of Object.entries(DAMAGED)) {
  Deno.test(`GGUF header: ${name} is refused`, async () => {
    await assert.rejects(read(bytes), (error) => {
      assert.ok(error instanceof CheckpointError, String(error));
      assert.match(error.message, message);
      assert.match(error.message, /m\.gguf/);
      return true;
    });
  });
}

const UNREAD: Record<string, [bytes: Uint8Array<ArrayBuffer>, message: RegExp]> = {
  "version 1": [
    new GgufWriter().u32(0x46554747).u32(1).zerosTo(64).done(),
    /current value is 1, get/,
  ],
  "big-endian numbers": [
    new GgufWriter().u32(0x46554747).u32(0x03000000).zerosTo(64).done(),
    /big-endian: get the little-endian file/,
  ],
  "TL1": [withTensor((w) => w.string("a").u32(1).u64(256).u32(38).u64(0)), /I2_S or TQ2_0 file/],
  "TL2": [withTensor((w) => w.string("a").u32(1).u64(256).u32(39).u64(0)), /TL2 or MXFP4/],
  "IQ3_S": [
    withTensor((w) => w.string("a").u32(1).u64(256).u32(21).u64(0)),
    /IQ3_S: this version reads/,
  ],
  "a type that nobody knows": [
    withTensor((w) => w.string("a").u32(1).u64(256).u32(4e9).u64(0)),
    /number 4000000000, which is not known/,
  ],
};

for (const [name, [bytes, message]] of Object.entries(UNREAD)) {
  Deno.test(`GGUF header: ${name} is refused with what to do`, async () => {
    await assert.rejects(read(bytes), (error) => {
      assert.ok(error instanceof UnsupportedModelError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}
