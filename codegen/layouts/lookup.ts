import { zig } from "../writer.ts";
import { BLOCK_ROWS, blocksOf, ROWS_IN_ORDER, type TernaryLayout, ZERO_CODE } from "./layout.ts";

/**
 * Layouts of words of 16 or 8 bits for kernels that look sums up in tables instead of multiplying.
 *
 * A word holds indices, most of which name three trits: 27 of 32 values, digit d of an index (base
 * 3) being the code of its feature d. How indices lie in words is what the layouts differ in, see
 * `WordCode`. A vector of 32 words is one word of a block of 32 rows.
 *
 * Groups of words are cut in slices, blocks in units of 4 or 1; both may be shorter at the end. Weights
 * lie in exactly the order in which a kernel reads them that does a slice for all rows before the
 * next:
 *
 *     [slice][unit][word][block][lane: 32][1 or 2 bytes, little-endian]
 *
 * Of 16-bit words, rows 0 to 15 of a block have the even lanes, rows 16 to 31 the odd ones: so a
 * multiplication by 1 and 0 in pairs widens the sums of 16 neighbouring rows. Bytes lie by row.
 *
 * A slice's tables (5 to 6 KB for one token) stay in the first-level cache, and its sums fit in 16
 * bits. On Zen 4 this order reads memory at 92 % of its peak; row blocks as four streams at 55 %.
 */
export const UNIT_BLOCKS = 4;

/** The lane of a block's row. */
function laneIn({ wordBytes }: WordCode, row: number): number {
  const inBlock = row % BLOCK_ROWS;
  if (wordBytes === 1) return inBlock;
  return inBlock < BLOCK_ROWS / 2 ? 2 * inBlock : 2 * inBlock - BLOCK_ROWS + 1;
}

/** Trits of an index. */
export const INDEX_FEATURES = 3;

/** How the features of one row lie in words. */
export interface WordCode {
  readonly name: string;
  readonly wordBytes: 1 | 2;
  /** Blocks of a unit. */
  readonly unitBlocks: number;
  /** Words of a group, the unit of encoding. */
  readonly groupWords: number;
  readonly groupFeatures: number;
  /** Groups whose lookups are summed in 16 bits. */
  readonly sliceGroups: number;
  /** First feature in its group of each lookup, in the order in which a kernel does them. */
  readonly lookups: readonly number[];
  /** The words of a group. codes: groupFeatures of 0, 1, 2. */
  encode(codes: Uint8Array): number[];
  /** Writes the codes of a group's words from `at` on: groupFeatures of them. */
  decode(words: ArrayLike<number>, codes: Uint8Array, at: number): void;
  /** `encode` in Zig, see `NativeLayout`. */
  readonly nativeEncode: string;
}

/** Three codes as digits in base 3, the first lowest. */
function indexOf(codes: Uint8Array, from: number): number {
  return codes[from] + 3 * codes[from + 1] + 9 * codes[from + 2];
}

/** The digits of all indices, three each; a word that no packer makes may name the last five. */
const DIGITS = Uint8Array.from(
  { length: 3 * 32 },
  (_, i) => Math.floor(Math.floor(i / 3) / 3 ** (i % 3)) % 3,
);

function putDigits(index: number, codes: Uint8Array, at: number): void {
  codes[at] = DIGITS[3 * index];
  codes[at + 1] = DIGITS[3 * index + 1];
  codes[at + 2] = DIGITS[3 * index + 2];
}

/** The three lower indices of a word: bits 0-4, 5-9, 10-14. */
function lowIndices(codes: Uint8Array, from: number): number {
  return indexOf(codes, from) | indexOf(codes, from + 3) << 5 | indexOf(codes, from + 6) << 10;
}

function putLowCodes(word: number, codes: Uint8Array, at: number): void {
  putDigits(word & 31, codes, at);
  putDigits(word >> 5 & 31, codes, at + 3);
  putDigits(word >> 10 & 31, codes, at + 6);
}

/** 9 trits in a word: three indices, bit 15 is not used. 1.78 bits a weight. */
export const WORDS_9: WordCode = {
  name: "lookup9",
  wordBytes: 2,
  unitBlocks: UNIT_BLOCKS,
  groupWords: 1,
  groupFeatures: 9,
  sliceGroups: 28,
  lookups: [0, 3, 6],
  encode: (codes) => [lowIndices(codes, 0)],
  decode: (words, codes, at) => putLowCodes(words[0], codes, at),
  nativeEncode: "return .{pack.threeIndices(codes)};",
};

/**
 * 48 trits in five words: three indices a word as in `WORDS_9`, and a sixteenth index in their bits
 * 15, its highest bit in the first word. 1.67 bits a weight.
 */
export const WORDS_48: WordCode = {
  name: "lookup48",
  wordBytes: 2,
  unitBlocks: UNIT_BLOCKS,
  groupWords: 5,
  groupFeatures: 48,
  sliceGroups: 5,
  lookups: Array.from({ length: 16 }, (_, i) => INDEX_FEATURES * i),
  encode(codes) {
    const last = indexOf(codes, 45);
    return [0, 1, 2, 3, 4].map((j) => lowIndices(codes, 9 * j) | (last >> 4 - j & 1) << 15);
  },
  decode(words, codes, at) {
    let last = 0;
    for (let j = 0; j < 5; j++) {
      putLowCodes(words[j], codes, at + 9 * j);
      last = 2 * last + (words[j] >> 15);
    }
    putDigits(last, codes, at + 45);
  },
  nativeEncode: zig`
    const last: pack.Words = pack.index(codes[45..]);
    var words: [5]pack.Words = undefined;
    inline for (0..5) |j| {
        const bit = last >> @splat(4 - j) & @as(pack.Words, @splat(1));
        words[j] = pack.threeIndices(codes[9 * j ..]) | bit << @splat(15);
    }
    return words;
  `,
};

/**
 * 10 trits in a word, as a fraction of 2^16: multiplied by 27, 27, 27 and 3 it gives three indices
 * and a last trit above the point. 1.60 bits a weight.
 *
 * The word is the value v of 10 digits, times 2^16 / 3^10, rounded up. As 2^16 > 3^10 it lies below
 * that of v + 1, so that the digits come back; and the products drop what passes the point without
 * any rounding.
 */
export const WORDS_10: WordCode = {
  name: "lookup10",
  wordBytes: 2,
  unitBlocks: UNIT_BLOCKS,
  groupWords: 1,
  groupFeatures: 10,
  sliceGroups: 25,
  lookups: [0, 3, 6, 9],
  encode(codes) {
    const [a, b, c] = [0, 3, 6].map((from) => indexOf(codes, from));
    const value = ((a * 27 + b) * 27 + c) * 3 + codes[9];
    return [Math.ceil(value * 2 ** 16 / 3 ** 10)];
  },
  decode(words, codes, at) {
    let word = words[0];
    for (let j = 0; j < 3; j++) {
      putDigits(word * 27 >> 16, codes, at + 3 * j);
      word = word * 27 & 0xffff;
    }
    codes[at + 9] = word * 3 >> 16;
  },
  nativeEncode: zig`
    const Wide = @Vector(${BLOCK_ROWS}, u32);
    var value: Wide = @splat(0);
    inline for (.{ 0, 3, 6 }) |from| value = value * @as(Wide, @splat(27)) + @as(Wide, pack.index(codes[from..]));
    value = value * @as(Wide, @splat(3)) + @as(Wide, codes[9]);
    // Rounded up; at most 59,048 * 65,536 + 59,048, which fits.
    const scaled = (value * @as(Wide, @splat(1 << 16)) + @as(Wide, @splat(59048))) / @as(Wide, @splat(59049));
    return .{@as(pack.Words, @intCast(scaled))};
  `,
};

/** The index of three zeros. Less this one, an index is -13 .. 13, and its sign turns all three trits. */
const MIDDLE_INDEX = ZERO_CODE * (1 + 3 + 9);

/** Indices of the words of `BYTES_24`: eight, each with a sign. */
const SIGNED_INDICES = 8;

/**
 * 24 trits in five bytes, for instructions that look up in tables of 16 bytes: eight indices of four
 * bits that name three trits up to their sign (14 of 16 values), two a byte, the first one lower;
 * and a byte of their signs, the first one highest. 1.67 bits a weight.
 */
export const BYTES_24: WordCode = {
  name: "shuffle24",
  wordBytes: 1,
  unitBlocks: 1,
  groupWords: 5,
  groupFeatures: 24,
  sliceGroups: 10,
  lookups: Array.from({ length: SIGNED_INDICES }, (_, i) => INDEX_FEATURES * i),
  encode(codes) {
    const values = BYTES_24.lookups.map((from) => indexOf(codes, from) - MIDDLE_INDEX);
    const nibble = (i: number) => Math.abs(values[i]);
    const signs = values.reduce((bits, value) => 2 * bits + (value < 0 ? 1 : 0), 0);
    return [...[0, 2, 4, 6].map((i) => nibble(i) | nibble(i + 1) << 4), signs];
  },
  decode(words, codes, at) {
    for (let i = 0; i < SIGNED_INDICES; i++) {
      const magnitude = words[i >> 1] >> 4 * (i & 1) & 15;
      const sign = words[4] >> SIGNED_INDICES - 1 - i & 1;
      putDigits(MIDDLE_INDEX + (sign === 1 ? -magnitude : magnitude), codes, at + 3 * i);
    }
  },
  nativeEncode: zig`
    var words: [5]pack.Codes = @splat(@splat(0));
    const middle: pack.Codes = @splat(${MIDDLE_INDEX});
    inline for (0..8) |i| {
        const three = pack.index(codes[3 * i ..]);
        const magnitude = @max(three, middle) - @min(three, middle);
        words[i / 2] |= magnitude << @splat(4 * (i % 2));
        words[4] |= @as(pack.Codes, @intFromBool(three < middle)) << @splat(7 - i);
    }
    return words;
  `,
};

/** Words that hold k features of a row. */
export function wordsOf({ groupWords, groupFeatures }: WordCode, k: number): number {
  return Math.ceil(k / groupFeatures) * groupWords;
}

/** Bytes of one word of a block. */
function vectorBytes({ wordBytes }: WordCode): number {
  return BLOCK_ROWS * wordBytes;
}

/** Words of all slices but the last. */
export function sliceWords({ groupWords, sliceGroups }: WordCode): number {
  return groupWords * sliceGroups;
}

/**
 * The layout of a word code.
 *
 * @throws {RangeError} If a slice's sum could overflow 16 bits: activations are -128 .. 127.
 */
function lookupLayout(code: WordCode): TernaryLayout {
  const largestSum = code.sliceGroups * code.groupFeatures * 128;
  if (largestSum > 32767) throw new RangeError(`Slices of ${code.name} overflow: ${largestSum}`);
  const packedBytes = (n: number, k: number) => blocksOf(n) * wordsOf(code, k) * vectorBytes(code);
  return {
    name: code.name,
    bitsPerWeight: 8 * code.wordBytes * code.groupWords / code.groupFeatures,
    packedBytes,
    zeros: (n, k) => zeroMatrix(code, { n, k }),
    packRows(packed, n, k, first, codes) {
      for (let i = 0; i * k < codes.length; i++) {
        packRow(code, packed, { n, k, row: first + i }, codes.subarray(i * k, (i + 1) * k));
      }
    },
    unpackRow: (packed, n, k, row) => unpackRow(code, packed, { n, k, row }),
    native: {
      wordBits: code.wordBytes === 1 ? 8 : 16,
      groupFeatures: code.groupFeatures,
      groupWords: code.groupWords,
      sliceGroups: code.sliceGroups,
      unitBlocks: code.unitBlocks,
      laneRows: ROWS_IN_ORDER.toSorted((a, b) => laneIn(code, a) - laneIn(code, b)),
      encode: code.nativeEncode,
    },
  };
}

/** Sums of three activations, 9 trits in 16 bits: 1.78 bits a weight. */
export const LOOKUP9: TernaryLayout = lookupLayout(WORDS_9);
/** The same, 48 trits in 80 bits: 1.67 bits a weight. */
export const LOOKUP48: TernaryLayout = lookupLayout(WORDS_48);
/** The same, 10 trits in 16 bits: 1.6 bits a weight. */
export const LOOKUP10: TernaryLayout = lookupLayout(WORDS_10);
export const SHUFFLE24: TernaryLayout = lookupLayout(BYTES_24);

interface Matrix {
  n: number;
  k: number;
}

/** Words of zero weights, which in a group of several words differ from each other. */
function zeroMatrix(code: WordCode, { n, k }: Matrix): Uint8Array<ArrayBuffer> {
  const group = code.encode(new Uint8Array(code.groupFeatures).fill(ZERO_CODE));
  const Words = code.wordBytes === 1 ? Uint8Array : Uint16Array;
  const words = new Words(blocksOf(n) * wordsOf(code, k) * BLOCK_ROWS);
  let at = 0;
  forEachTile(code, { n, k }, ({ width, count }) => {
    for (let word = 0; word < count; word++) {
      words.fill(group[word % code.groupWords], at, at += width * BLOCK_ROWS);
    }
  });
  return new Uint8Array(words.buffer);
}

/** A unit's part of a slice: `count` words of `width` blocks. */
interface Tile {
  width: number;
  count: number;
}

/** Calls `visit` with the tiles of a matrix, in the order in which they lie. */
function forEachTile(code: WordCode, { n, k }: Matrix, visit: (tile: Tile) => void): void {
  const [blocks, words, most] = [blocksOf(n), wordsOf(code, k), sliceWords(code)];
  for (let first = 0; first < words; first += most) {
    for (let unit = 0; unit < blocks; unit += code.unitBlocks) {
      const width = Math.min(code.unitBlocks, blocks - unit);
      visit({ width, count: Math.min(most, words - first) });
    }
  }
}

interface RowOf extends Matrix {
  row: number;
}

/**
 * Calls `visit` for each group of words of a row: its number, the byte at which its first word lies,
 * and the bytes from one word to the next.
 */
function forEachGroup(
  code: WordCode,
  { n, k, row }: RowOf,
  visit: (group: number, at: number, stride: number) => void,
): void {
  const [blocks, words, most] = [blocksOf(n), wordsOf(code, k), sliceWords(code)];
  const block = Math.floor(row / BLOCK_ROWS);
  const unit = block - block % code.unitBlocks;
  const stride = Math.min(code.unitBlocks, blocks - unit) * vectorBytes(code);
  for (let first = 0; first < words; first += most) {
    const count = Math.min(most, words - first);
    const start = (first * blocks + unit * count + block - unit) * vectorBytes(code);
    for (let word = 0; word < count; word += code.groupWords) {
      const group = (first + word) / code.groupWords;
      visit(group, start + word * stride + laneIn(code, row) * code.wordBytes, stride);
    }
  }
}

function packRow(code: WordCode, packed: Uint8Array, row: RowOf, codes: Uint8Array): void {
  const { groupFeatures, wordBytes } = code;
  const own = new Uint8Array(groupFeatures);
  forEachGroup(code, row, (group, start, stride) => {
    const from = group * groupFeatures;
    for (let i = 0; i < groupFeatures; i++) own[i] = codes[from + i] ?? ZERO_CODE;
    const words = code.encode(own);
    for (let j = 0, at = start; j < words.length; j++, at += stride) {
      packed[at] = words[j] & 255;
      if (wordBytes === 2) packed[at + 1] = words[j] >> 8;
    }
  });
}

function unpackRow(code: WordCode, packed: Uint8Array, row: RowOf): Uint8Array {
  const { groupWords, groupFeatures, wordBytes } = code;
  const codes = new Uint8Array(Math.ceil(row.k / groupFeatures) * groupFeatures);
  const words = new Uint16Array(groupWords);
  forEachGroup(code, row, (group, start, stride) => {
    for (let j = 0, at = start; j < groupWords; j++, at += stride) {
      words[j] = packed[at] | (wordBytes === 2 ? packed[at + 1] << 8 : 0);
    }
    code.decode(words, codes, group * groupFeatures);
  });
  return codes.subarray(0, row.k);
}
