/** Rows that one pass of a kernel works on, and the unit in which threads share out a matrix. */
export const BLOCK_ROWS = 32;

/** Blocks of 32 rows that hold n rows. */
export function blocksOf(n: number): number {
  return Math.ceil(n / BLOCK_ROWS);
}

/** Rows of a block, in order. */
export const ROWS_IN_ORDER: readonly number[] = Array.from({ length: BLOCK_ROWS }, (_, i) => i);

/** Outputs of a linear are written a block at a time, so their rows are padded to 32. */
export function paddedRows(n: number): number {
  return blocksOf(n) * BLOCK_ROWS;
}

/** Codes are 0, 1, 2 for weights -1, 0, +1. Padding rows and features hold this one. */
export const ZERO_CODE = 1;

/**
 * What the native packer must know of a layout. Words of 32 rows lie in the order
 *
 *     [slice][unit][word][block][lane: 32]
 *
 * slices and units being shorter at the end.
 */
export interface NativeLayout {
  /** The element of one row. */
  readonly wordBits: 8 | 16 | 32;
  /** Features that are encoded together, and the words that hold them. */
  readonly groupFeatures: number;
  /** Words of `groupFeatures`. */
  readonly groupWords: number;
  /** Groups of a slice; 0 if a matrix is not cut. */
  readonly sliceGroups: number;
  /** Blocks of a unit. */
  readonly unitBlocks: number;
  /** The row of its block that each lane holds. */
  readonly laneRows: readonly number[];
  /**
   * Zig: the body of `fn encode(codes: *const [groupFeatures]pack.Codes) [groupWords]@Vector(32, Word)`,
   * the words of a group of 32 rows.
   */
  readonly encode: string;
}

/** How a ternary matrix (n, k) lies in a packed file. */
export interface TernaryLayout {
  /** Packed files of different layouts are different files. */
  readonly name: string;
  /** Without the padding to whole blocks and words. */
  readonly bitsPerWeight: number;
  /** Bytes of an (n, k) matrix. */
  packedBytes(n: number, k: number): number;
  /** An (n, k) matrix whose weights are all zero. */
  zeros(n: number, k: number): Uint8Array<ArrayBuffer>;
  /**
   * Puts codes of (rows, k), one a byte, row-major, into rows first, first + 1, ... of a packed
   * (n, k) matrix. Those rows must hold zero weights.
   */
  packRows(packed: Uint8Array, n: number, k: number, first: number, codes: Uint8Array): void;
  /** The codes of one row of a packed (n, k) matrix: k bytes. */
  unpackRow(packed: Uint8Array, n: number, k: number, row: number): Uint8Array;
  /** What the Zig packer has to know of it. */
  readonly native: NativeLayout;
}

/**
 * Packs codes of (n, k), one a byte, row-major.
 *
 * @returns layout.packedBytes(n, k) bytes.
 * @throws {RangeError} If `codes` is not of n * k bytes.
 */
export function packMatrix(
  layout: TernaryLayout,
  codes: Uint8Array,
  n: number,
  k: number,
): Uint8Array<ArrayBuffer> {
  if (codes.length !== n * k) {
    throw new RangeError(
      `Cannot pack a ${n} x ${k} matrix as it needs ${
        n * k
      } codes: current value is ${codes.length}`,
    );
  }
  const packed = layout.zeros(n, k);
  layout.packRows(packed, n, k, 0, codes);
  return packed;
}
