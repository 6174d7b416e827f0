import assert from "node:assert/strict";
import fc from "fast-check";
import { bf16Bytes } from "../tests/safetensors_file.ts";
import { toFloat32 } from "./float_formats.ts";
import type { FloatType } from "../codegen/model_spec.ts";
import { absmeanCodes, unpackCodes } from "./ternary.ts";

/** transformers' pack_weights, element by element. */
function packCodes(codes: Uint8Array, n: number, k: number): Uint8Array {
  const rows = Math.ceil(n / 4);
  const packed = new Uint8Array(rows * k);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      const shift = 2 * Math.floor(row / rows);
      packed[(row % rows) * k + column] |= codes[row * k + column] << shift;
    }
  }
  return packed;
}

Deno.test("unpackCodes undoes packing, for all row counts", () => {
  const shape = fc.tuple(fc.integer({ min: 1, max: 13 }), fc.integer({ min: 1, max: 9 }));
  fc.assert(
    fc.property(shape, fc.infiniteStream(fc.nat(2)), ([n, k], stream) => {
      const codes = Uint8Array.from(stream.take(n * k));
      assert.deepEqual(unpackCodes(packCodes(codes, n, k), n, k, "w"), codes);
    }),
    { numRuns: 200 },
  );
});

Deno.test("unpackCodes reads low bits first, rows strided by a quarter", () => {
  // Row 0 is in bits 0-1, row 2 (n / 4 = 2 rows on) in bits 2-3, and so on.
  const codes = unpackCodes(Uint8Array.of(0b00_01_10_00, 0b10_00_00_01), 8, 1, "w");
  assert.deepEqual([...codes], [0, 1, 2, 0, 1, 0, 0, 2]);
});

Deno.test("code 3 is refused with its position, padding rows aside", () => {
  for (const k of [3, 4, 8]) {
    const packed = packCodes(new Uint8Array(8 * k).fill(1), 8, k);
    packed[1 * k + 2] |= 0b11 << 4;
    assert.throws(() => unpackCodes(packed, 8, k, "w"), /row 5, column 2 is 3/);
  }
  // Six rows are packed as eight: the last two are never read.
  const padded = packCodes(new Uint8Array(6).fill(1), 6, 1);
  padded[0] |= 0b11 << 6;
  assert.equal(unpackCodes(padded, 6, 1, "w").length, 6);
});

/** WeightQuant, one operation a line. */
function weightQuant(weights: readonly number[]) {
  const mean = Math.fround(weights.reduce((sum, w) => sum + Math.abs(w), 0) / weights.length);
  const s = Math.fround(1 / Math.max(mean, Math.fround(1e-5)));
  const codes = weights.map((w) => {
    const scaled = Math.fround(w * s);
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0);
    return Math.max(-1, Math.min(1, up ? floor + 1 : floor)) + 1;
  });
  return { codes: Uint8Array.from(codes), scale: Math.fround(1 / s) };
}

/** A matrix of one row. */
function ternarised(bytes: Uint8Array<ArrayBuffer>, kind: FloatType) {
  const k = bytes.length / (kind === "f32" ? 4 : 2);
  return absmeanCodes({ kind, bytes, n: 1, k }, "w");
}

const bf16 = fc.integer({ min: -200, max: 200 }).map((i) => i / 128);

Deno.test("absmeanCodes is WeightQuant, and the same from all three types", () => {
  fc.assert(
    fc.property(fc.array(bf16, { minLength: 1, maxLength: 40 }), (weights) => {
      const expected = weightQuant(weights);
      assert.deepEqual(ternarised(bf16Bytes(weights), "bf16"), expected);
      const f32 = new Uint8Array(Float32Array.from(weights).buffer);
      assert.deepEqual(ternarised(f32, "f32"), expected);
      const f16 = new Uint8Array(Float16Array.from(weights).buffer);
      assert.deepEqual(ternarised(f16, "f16"), expected);
    }),
    { numRuns: 60 },
  );
});

Deno.test("a tie rounds to even, and zeros have the smallest scale", () => {
  // The mean is 1, so 0.5 lies exactly between 0 and 1.
  const tie = ternarised(bf16Bytes([0.5, -0.5, 1.5, -1.5]), "bf16");
  assert.deepEqual([...tie.codes], [1, 1, 2, 0]);
  const zeros = ternarised(bf16Bytes([0, -0]), "bf16");
  assert.deepEqual([...zeros.codes], [1, 1]);
  assert.ok(Math.abs(zeros.scale - 1e-5) < 1e-11);
});

for (const bad of [NaN, Infinity, -Infinity]) {
  Deno.test(`a weight of ${bad} is refused with its position`, () => {
    const f32 = new Uint8Array(Float32Array.of(1, 2, bad, 3).buffer);
    assert.throws(() => ternarised(f32, "f32"), /element 2 is/);
    const half = bf16Bytes([1, 2, bad, 3]);
    assert.throws(() => ternarised(half, "bf16"), /element 2 is/);
  });
}

Deno.test("bfloat16 is the upper half of a float32", () => {
  const values = [0, -0, 1, -1.5, 3.3895313892515355e38, 1e-40, Infinity];
  const rounded = Float32Array.from(values, (value) => {
    const word = new Uint32Array(Float32Array.of(value).buffer);
    return new Float32Array(Uint32Array.of(word[0] & 0xffff0000).buffer)[0];
  });
  assert.deepEqual(toFloat32(bf16Bytes(values), "bf16"), rounded);
});
