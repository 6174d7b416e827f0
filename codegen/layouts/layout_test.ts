import assert from "node:assert/strict";
import fc from "fast-check";
import { randomCodes, randomOf } from "../test_helpers.ts";
import { packMatrix, paddedRows, type TernaryLayout } from "./layout.ts";
import {
  BYTES_24,
  LOOKUP10,
  LOOKUP48,
  LOOKUP9,
  SHUFFLE24,
  sliceWords,
  type WordCode,
  WORDS_10,
  WORDS_48,
  WORDS_9,
  wordsOf,
} from "./lookup.ts";
import { ROWS32, STEP_FEATURES, stepsOf } from "./rows32.ts";

/** Sizes about the edges of words, steps, blocks, units and slices. */
const SIZES = [
  1,
  8,
  9,
  10,
  15,
  16,
  17,
  31,
  32,
  33,
  47,
  49,
  96,
  100,
  128,
  129,
  192,
  240,
  252,
  253,
  260,
];
const size = fc.constantFrom(...SIZES);

/** Features that a layout has room for: k and its padding. */
const PADDED_FEATURES: [TernaryLayout, (k: number) => number][] = [
  [ROWS32, (k) => stepsOf(k) * STEP_FEATURES],
  [LOOKUP9, featuresOf(WORDS_9)],
  [LOOKUP48, featuresOf(WORDS_48)],
  [LOOKUP10, featuresOf(WORDS_10)],
  [SHUFFLE24, featuresOf(BYTES_24)],
];

function featuresOf(code: WordCode): (k: number) => number {
  return (k) => wordsOf(code, k) / code.groupWords * code.groupFeatures;
}

function decoded(code: WordCode, words: readonly number[]): Uint8Array {
  const codes = new Uint8Array(code.groupFeatures);
  code.decode(words, codes, 0);
  return codes;
}

for (const [layout, paddedFeatures] of PADDED_FEATURES) {
  Deno.test(`${layout.name}: unpacking what was packed gives the codes back`, () => {
    fc.assert(
      fc.property(size, size, fc.nat(), (n, k, seed) => {
        const codes = randomCodes(randomOf(seed), n * k);
        const packed = packMatrix(layout, codes, n, k);
        assert.equal(packed.length, layout.packedBytes(n, k));
        for (let row = 0; row < n; row++) {
          assert.deepEqual(
            layout.unpackRow(packed, n, k, row),
            codes.subarray(row * k, (row + 1) * k),
          );
        }
      }),
      { numRuns: 60 },
    );
  });

  Deno.test(`${layout.name}: padding rows and features hold zero weights`, () => {
    for (const [n, k] of [[1, 1], [33, 17], [100, 100], [129, 260]]) {
      const packed = packMatrix(layout, new Uint8Array(n * k).fill(2), n, k);
      const [rows, features] = [paddedRows(n), paddedFeatures(k)];
      for (let row = 0; row < rows; row++) {
        const codes = layout.unpackRow(packed, rows, features, row);
        const expected = new Uint8Array(features).fill(1);
        if (row < n) expected.fill(2, 0, k);
        assert.deepEqual(codes, expected, `row ${row} of ${n} x ${k}`);
      }
    }
  });

  Deno.test(`${layout.name}: rows packed in parts give the same bytes`, () => {
    const [n, k] = [140, 53];
    const codes = randomCodes(randomOf(1), n * k);
    const parts = layout.zeros(n, k);
    for (const [first, last] of [[70, 140], [0, 1], [1, 70]]) {
      layout.packRows(parts, n, k, first, codes.subarray(first * k, last * k));
    }
    assert.deepEqual(parts, packMatrix(layout, codes, n, k));
  });

  Deno.test(`${layout.name}: every weight lies in a byte of its own row and no other`, () => {
    const [n, k] = [67, 21];
    const seen = new Map<number, number>();
    const zeros = layout.zeros(n, k);
    for (let row = 0; row < n; row++) {
      for (let feature = 0; feature < k; feature++) {
        const codes = new Uint8Array(n * k).fill(1);
        codes[row * k + feature] = 2;
        const packed = packMatrix(layout, codes, n, k);
        packed.forEach((byte, at) => {
          if (byte === zeros[at]) return;
          assert.equal(seen.get(at) ?? row, row, `byte ${at}`);
          seen.set(at, row);
        });
      }
    }
  });

  Deno.test(`${layout.name}: a matrix of the wrong size is refused`, () => {
    assert.throws(() => packMatrix(layout, new Uint8Array(5), 2, 3), {
      name: "RangeError",
      message: "Cannot pack a 2 x 3 matrix as it needs 6 codes: current value is 5",
    });
  });

  Deno.test(`${layout.name}: bits a weight are those of a matrix without padding`, () => {
    // Whole groups of every layout, and whole steps of 16.
    const [n, k] = [128, 720];
    assert.equal(layout.packedBytes(n, k) * 8, n * k * layout.bitsPerWeight);
  });
}

Deno.test("rows32: bits 2i, 2i+1 of byte (row, j) hold feature 16 * step + 4 * i + j", () => {
  const [n, k] = [40, 40];
  const codes = randomCodes(randomOf(2), n * k);
  const packed = packMatrix(ROWS32, codes, n, k);
  for (const [row, step, i, j] of [[0, 0, 0, 0], [17, 1, 3, 2], [39, 0, 2, 1], [33, 2, 1, 3]]) {
    const at = ((Math.floor(row / 32) * 3 + step) * 32 + row % 32) * 4 + j;
    assert.equal(packed[at] >> 2 * i & 3, codes[row * k + 16 * step + 4 * i + j]);
  }
});

Deno.test("lookup layouts: words lie by slice, unit of four blocks, word, block and row", () => {
  for (
    const [code, layout] of [[WORDS_9, LOOKUP9], [WORDS_48, LOOKUP48], [
      WORDS_10,
      LOOKUP10,
    ]] as const
  ) {
    // 6 blocks are a unit of four and one of two; two groups more than a slice.
    const groups = code.sliceGroups + 2;
    const [n, k, blocks] = [6 * 32, groups * code.groupFeatures, 6];
    const codes = randomCodes(randomOf(3), n * k);
    const packed = new DataView(packMatrix(layout, codes, n, k).buffer);
    const wordAt = (row: number, word: number) => {
      const most = sliceWords(code);
      const slice = Math.floor(word / most);
      const count = slice === 0 ? most : 2 * code.groupWords;
      const block = Math.floor(row / 32);
      const [unit, width] = block < 4 ? [0, 4] : [4, 2];
      const vector = slice * most * blocks + unit * count + word % most * width + block - unit;
      return packed.getUint16(vector * 64 + (row % 16 * 2 + (row % 32 >> 4)) * 2, true);
    };
    for (let row = 0; row < n; row += 7) {
      for (let group = 0; group < groups; group++) {
        const from = row * k + group * code.groupFeatures;
        const words = code.encode(codes.subarray(from, from + code.groupFeatures));
        words.forEach((word, j) => assert.equal(wordAt(row, group * code.groupWords + j), word));
      }
    }
  }
});

Deno.test("lookup9: three indices of five bits", () => {
  const codes = Uint8Array.of(2, 0, 1, 1, 1, 1, 0, 2, 2);
  assert.deepEqual(WORDS_9.encode(codes), [(2 + 9) | (1 + 3 + 9) << 5 | (6 + 18) << 10]);
});

Deno.test("lookup48: the sixteenth index lies in bits 15, its highest bit first", () => {
  const codes = new Uint8Array(48);
  codes.set([2, 2, 1], 45);
  assert.deepEqual(WORDS_48.encode(codes).map((word) => word >> 15), [1, 0, 0, 0, 1]);
});

Deno.test("lookup10: products with 27, 27, 27 and 3 give back every value of ten trits", () => {
  for (let value = 0; value < 3 ** 10; value++) {
    const [a, b, c] = [
      Math.floor(value / 2187),
      Math.floor(value / 81) % 27,
      Math.floor(value / 3) % 27,
    ];
    const digits = (index: number) => [index % 3, Math.floor(index / 3) % 3, Math.floor(index / 9)];
    const codes = Uint8Array.from([...digits(a), ...digits(b), ...digits(c), value % 3]);
    assert.deepEqual(decoded(WORDS_10, WORDS_10.encode(codes)), codes);
  }
});

Deno.test("shuffle24: nibbles hold three trits up to their sign, the last byte the signs", () => {
  const codes = new Uint8Array(24).fill(1);
  codes.set([2, 0, 1], 0); // 1 - 3: nibble 2, negative.
  codes.set([0, 2, 2], 9); // -1 + 3 + 9: nibble 11.
  codes.set([0, 0, 0], 21); // nibble 13, negative.
  assert.deepEqual(BYTES_24.encode(codes), [2, 11 << 4, 0, 13 << 4, 0b1000_0001]);
  const random = randomOf(5);
  for (let i = 0; i < 1000; i++) {
    const some = randomCodes(random, 24);
    assert.deepEqual(decoded(BYTES_24, BYTES_24.encode(some)), some);
  }
});

Deno.test("shuffle24: bytes lie by slice, block, group of 24 features, byte and row", () => {
  const [n, k, blocks] = [3 * 32, 11 * 24, 3];
  const codes = randomCodes(randomOf(6), n * k);
  const packed = packMatrix(SHUFFLE24, codes, n, k);
  for (let row = 0; row < n; row += 5) {
    for (let group = 0; group < 11; group++) {
      // 11 groups are a slice of 10 and one of 1.
      const [slice, count] = group < 10 ? [0, 10] : [1, 1];
      const at = ((slice * 10 * blocks + Math.floor(row / 32) * count + group % 10) * 5) * 32;
      const bytes = [0, 1, 2, 3, 4].map((j) => packed[at + j * 32 + row % 32]);
      const from = row * k + group * 24;
      assert.deepEqual(bytes, BYTES_24.encode(codes.subarray(from, from + 24)));
    }
  }
});
