import { BLOCK_ROWS, blocksOf, type TernaryLayout, ZERO_CODE } from "./layout.ts";

/**
 * 16 bits for 9 weights (1.78 bits a weight), for kernels that look sums up in tables instead of
 * multiplying.
 *
 * A 16-bit word holds nine features of one row: three indices of five bits, of which each names
 * three trits (27 of 32 values), digit d of index i being the code of feature 9 * word + 3 * i + d.
 * A vector of 32 words is one word of a block of 32 rows.
 *
 * Words are cut in slices of 28, blocks in units of 4; both may be shorter at the end. Weights lie
 * in exactly the order in which a kernel reads them that does a slice for all rows before the next:
 *
 *     [slice][unit][word][block][row: 32][2 bytes, little-endian]
 *
 * A slice's tables (28 * 3 of 64 bytes = 5,376 bytes for one token) stay in the first-level cache.
 */
export const WORD_FEATURES = 9;
export const INDEX_FEATURES = 3;
export const INDICES_PER_WORD = WORD_FEATURES / INDEX_FEATURES;
export const UNIT_BLOCKS = 4;
export const VECTOR_BYTES = BLOCK_ROWS * 2;

/**
 * Words whose lookups are summed in 16 bits before they are widened. Activations are -128 .. 127, so
 * a lookup is at most 3 * 128 in size, and a slice's sum at most 28 * 3 * 3 * 128 = 32,256.
 */
export const SLICE_WORDS = 28;
const LARGEST_SUM = SLICE_WORDS * WORD_FEATURES * 128;
if (LARGEST_SUM > 32767) throw new RangeError(`Slices overflow int16: ${LARGEST_SUM}`);

/** Words that hold k features of a row. */
export function wordsOf(k: number): number {
  return Math.ceil(k / WORD_FEATURES);
}

/** Three zero weights, as digits 1, 1, 1 in base 3. */
const ZERO_INDEX = ZERO_CODE * (1 + 3 + 9);
const ZERO_WORD = ZERO_INDEX | ZERO_INDEX << 5 | ZERO_INDEX << 10;

export const LOOKUP9: TernaryLayout = {
  name: "lookup9",
  bitsPerWeight: 16 / WORD_FEATURES,
  packedBytes: (n, k) => blocksOf(n) * wordsOf(k) * VECTOR_BYTES,
  zeros(n, k) {
    const packed = new Uint8Array(LOOKUP9.packedBytes(n, k));
    packed[0] = ZERO_WORD & 255;
    packed[1] = ZERO_WORD >> 8;
    for (let done = 2; done < packed.length; done *= 2) packed.copyWithin(done, 0, done);
    return packed;
  },
  packRows(packed, n, k, first, codes) {
    for (let i = 0; i * k < codes.length; i++) {
      packRow(packed, { n, k, row: first + i }, codes.subarray(i * k, (i + 1) * k));
    }
  },
  unpackRow(packed, n, k, row) {
    const codes = new Uint8Array(k);
    forEachWord({ n, k, row }, (at, word) => {
      const bits = packed[at] | packed[at + 1] << 8;
      const from = word * WORD_FEATURES;
      for (let i = 0; i < Math.min(WORD_FEATURES, k - from); i++) {
        const index = bits >> 5 * Math.floor(i / INDEX_FEATURES) & 31;
        codes[from + i] = Math.floor(index / 3 ** (i % INDEX_FEATURES)) % 3;
      }
    });
    return codes;
  },
};

interface RowOf {
  n: number;
  k: number;
  row: number;
}

/** Calls `visit` with the byte at which each word of a row lies. */
function forEachWord({ n, k, row }: RowOf, visit: (at: number, word: number) => void): void {
  const blocks = blocksOf(n);
  const words = wordsOf(k);
  const block = Math.floor(row / BLOCK_ROWS);
  const unit = block - block % UNIT_BLOCKS;
  const width = Math.min(UNIT_BLOCKS, blocks - unit);
  for (let first = 0; first < words; first += SLICE_WORDS) {
    const count = Math.min(SLICE_WORDS, words - first);
    let at = (first * blocks + unit * count + block % UNIT_BLOCKS) * VECTOR_BYTES +
      row % BLOCK_ROWS * 2;
    for (let word = first; word < first + count; word++, at += width * VECTOR_BYTES) {
      visit(at, word);
    }
  }
}

function packRow(packed: Uint8Array, row: RowOf, codes: Uint8Array): void {
  const padded = new Uint8Array(wordsOf(row.k) * WORD_FEATURES).fill(ZERO_CODE);
  padded.set(codes);
  const index = (from: number) => padded[from] + 3 * padded[from + 1] + 9 * padded[from + 2];
  forEachWord(row, (at, word) => {
    const from = word * WORD_FEATURES;
    const bits = index(from) | index(from + 3) << 5 | index(from + 6) << 10;
    packed[at] = bits & 255;
    packed[at + 1] = bits >> 8;
  });
}
