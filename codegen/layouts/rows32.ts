import { zig } from "../writer.ts";
import {
  BLOCK_ROWS,
  blocksOf,
  packMatrix,
  ROWS_IN_ORDER,
  type TernaryLayout,
  ZERO_CODE,
} from "./layout.ts";

/**
 * Two bits a weight, rows in lanes: the layout that AVX-512, AVX2, NEON and portable kernels share,
 * so that one packed file serves them all.
 *
 * Rows are cut in blocks of 32, features in steps of 16. A block is one sequential stream, read
 * in exactly the order in which it lies:
 *
 *     [block][step][half: 16 rows][row][j: 4 bytes]
 *
 * and bits 2i, 2i+1 of byte (row, j) hold the code of feature 16 * step + 4 * i + j. So the shift
 * by 2i of a vector leaves, in each 32-bit lane, four neighbouring features of one row: what
 * vpdpbusd, sdot and vpmaddubsw multiply by four broadcast activations.
 */
export const STEP_FEATURES = 16;
export const STEP_BYTES = BLOCK_ROWS * STEP_FEATURES / 4;

/** A byte of four zero weights. */
const ZERO_BYTE = ZERO_CODE * 0b01010101;

/** Steps of 16 features that hold k features. */
export function stepsOf(k: number): number {
  return Math.ceil(k / STEP_FEATURES);
}

/** Two bits a weight, in blocks of 32 rows. */
export const ROWS32: TernaryLayout = {
  name: "rows32",
  bitsPerWeight: 2,
  packedBytes: (n, k) => blocksOf(n) * blockBytes(k),
  zeros: (n, k) => new Uint8Array(ROWS32.packedBytes(n, k)).fill(ZERO_BYTE),
  packRows(packed, _n, k, first, codes) {
    for (let i = 0; i * k < codes.length; i++) {
      packRow(codes.subarray(i * k, (i + 1) * k), packed, rowStart(k, first + i));
    }
  },
  unpackRow(packed, _n, k, row) {
    const codes = new Uint8Array(k);
    let at = rowStart(k, row);
    // What lies past the last feature is padding, and an assignment past the end of an array is none.
    for (let from = 0; from < k; from += STEP_FEATURES, at += STEP_BYTES) {
      for (let j = 0; j < 4; j++) {
        const byte = packed[at + j];
        codes[from + j] = byte & 3;
        codes[from + 4 + j] = byte >> 2 & 3;
        codes[from + 8 + j] = byte >> 4 & 3;
        codes[from + 12 + j] = byte >> 6;
      }
    }
    return codes;
  },
  native: {
    wordBits: 32,
    groupFeatures: STEP_FEATURES,
    groupWords: 1,
    sliceGroups: 0,
    unitBlocks: 1,
    laneRows: ROWS_IN_ORDER,
    encode: zig`
      var word: @Vector(${BLOCK_ROWS}, u32) = @splat(0);
      inline for (0..4) |j| {
          const byte = codes[j] | codes[4 + j] << @splat(2) | codes[8 + j] << @splat(4) | codes[12 + j] << @splat(6);
          word |= @as(@Vector(${BLOCK_ROWS}, u32), byte) << @splat(8 * j);
      }
      return .{word};
    `,
  },
};

function blockBytes(k: number): number {
  return stepsOf(k) * STEP_BYTES;
}

/** Where a row's first byte lies. */
function rowStart(k: number, row: number): number {
  return Math.floor(row / BLOCK_ROWS) * blockBytes(k) + row % BLOCK_ROWS * 4;
}

/** The lower of the two bits that hold a feature's code. */
function shiftOf(feature: number): number {
  return 2 * (feature % STEP_FEATURES >> 2);
}

function packRow(codes: Uint8Array, packed: Uint8Array, start: number): void {
  const whole = codes.length - codes.length % STEP_FEATURES;
  let at = start;
  for (let from = 0; from < whole; from += STEP_FEATURES, at += STEP_BYTES) {
    for (let j = 0; j < 4; j++) {
      packed[at + j] = codes[from + j] | codes[from + 4 + j] << 2 |
        codes[from + 8 + j] << 4 | codes[from + 12 + j] << 6;
    }
  }
  for (let feature = whole; feature < codes.length; feature++) {
    const shift = shiftOf(feature);
    const byte = at + feature % 4;
    packed[byte] = packed[byte] & ~(3 << shift) | codes[feature] << shift;
  }
}

/** Packs codes of (n, k) in this layout; see `packMatrix`. */
export function pack(codes: Uint8Array, n: number, k: number): Uint8Array<ArrayBuffer> {
  return packMatrix(ROWS32, codes, n, k);
}
