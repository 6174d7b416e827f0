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
 *
 * Codes are 0, 1, 2 for weights -1, 0, +1. Padding rows and features hold code 1.
 */
export const BLOCK_ROWS = 32;
export const STEP_FEATURES = 16;
export const STEP_BYTES = BLOCK_ROWS * STEP_FEATURES / 4;

const ZERO_CODE = 1;
/** A byte of four zero weights. */
const ZERO_BYTE = ZERO_CODE * 0b01010101;

/** Blocks of 32 rows that hold n rows. */
export function blocksOf(n: number): number {
  return Math.ceil(n / BLOCK_ROWS);
}

/** Steps of 16 features that hold k features. */
export function stepsOf(k: number): number {
  return Math.ceil(k / STEP_FEATURES);
}

/** Bytes of an (n, k) matrix. */
export function packedBytes(n: number, k: number): number {
  return blocksOf(n) * stepsOf(k) * STEP_BYTES;
}

/**
 * Packs codes of (n, k), one a byte, row-major.
 *
 * @returns packedBytes(n, k) bytes.
 * @throws {RangeError} If `codes` is not of n * k bytes.
 */
export function pack(codes: Uint8Array, n: number, k: number): Uint8Array<ArrayBuffer> {
  if (codes.length !== n * k) {
    throw new RangeError(
      `Cannot pack a ${n} x ${k} matrix as it needs ${
        n * k
      } codes: current value is ${codes.length}`,
    );
  }
  const packed = new Uint8Array(packedBytes(n, k)).fill(ZERO_BYTE);
  const blockBytes = stepsOf(k) * STEP_BYTES;
  for (let row = 0; row < n; row++) {
    const rowStart = Math.floor(row / BLOCK_ROWS) * blockBytes + (row % BLOCK_ROWS) * 4;
    packRow(codes.subarray(row * k, (row + 1) * k), packed, rowStart);
  }
  return packed;
}

function packRow(codes: Uint8Array, packed: Uint8Array, rowStart: number): void {
  const whole = codes.length - codes.length % STEP_FEATURES;
  let at = rowStart;
  for (let from = 0; from < whole; from += STEP_FEATURES, at += STEP_BYTES) {
    for (let j = 0; j < 4; j++) {
      packed[at + j] = codes[from + j] | codes[from + 4 + j] << 2 |
        codes[from + 8 + j] << 4 | codes[from + 12 + j] << 6;
    }
  }
  for (let feature = whole; feature < codes.length; feature++) {
    const shift = 2 * (feature % STEP_FEATURES >> 2);
    const byte = at + feature % 4;
    packed[byte] = packed[byte] & ~(3 << shift) | codes[feature] << shift;
  }
}

/** The codes of one row of a packed (n, k) matrix: k bytes. */
export function unpackRow(packed: Uint8Array, k: number, row: number): Uint8Array {
  const codes = new Uint8Array(k);
  const start = Math.floor(row / BLOCK_ROWS) * stepsOf(k) * STEP_BYTES + (row % BLOCK_ROWS) * 4;
  for (let feature = 0; feature < k; feature++) {
    const step = Math.floor(feature / STEP_FEATURES);
    const shift = 2 * (feature % STEP_FEATURES >> 2);
    codes[feature] = packed[start + step * STEP_BYTES + feature % 4] >> shift & 3;
  }
  return codes;
}
