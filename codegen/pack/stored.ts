/** How a ternary matrix can be given to a packer; numbers as in `kernels/zig/pack.zig`. */
export const STORED_KINDS = {
  /** One byte a code: 0, 1, 2 for weights -1, 0, +1. */
  codes: 0,
  /**
   * Transformers' packing: byte (r, c) of (ceil(n / 4), k) holds the codes of rows r, r + R, r + 2R,
   * r + 3R in bits 0-1, 2-3, 4-5, 6-7, with R = ceil(n / 4).
   */
  quarters: 1,
  /** Float masters, to be ternarised. */
  f32: 2,
  f16: 3,
  bf16: 4,
  /** Ternary types of GGUF files, see `runtime/gguf/ternary_blocks.ts`: I2_S as x86 has it, */
  i2s: 5,
  /** TQ1_0, */
  tq1: 6,
  /** TQ2_0, */
  tq2: 7,
  /** Q2_0, */
  q2: 8,
  /** PQ2_0 */
  pq2: 9,
  /** and PTQ1_0. Where a block's factor is 0, so are its weights. */
  ptq1: 10,
  /** Q2_0 with factors in bfloat16, as which MLX's matrices are given, see `runtime/mlx/matrix.ts`. */
  q2b: 11,
} as const;
export type StoredKind = keyof typeof STORED_KINDS;

/** A ternary matrix (n, k) as a checkpoint has it. */
export interface StoredMatrix {
  kind: StoredKind;
  /** Row-major, little-endian, aligned to an element. */
  bytes: Uint8Array<ArrayBuffer>;
  n: number;
  k: number;
  /**
   * True for floats that are ternary as they stand, see `runtime/exact_ternary.ts`: their signs are the
   * weights, and packing finds their factors and checks every value. Else floats are ternarised.
   */
  exact?: boolean;
}

/** Kinds that have factors between their codes, or behind them. */
export type BlockKind = "i2s" | "tq1" | "tq2" | "q2" | "pq2" | "ptq1" | "q2b";

/** Blocks of neighbouring weights of a row: features must divide into them. */
export const STORED_BLOCKS: Readonly<Record<BlockKind, { weights: number; bytes: number }>> = {
  i2s: { weights: 128, bytes: 32 },
  tq1: { weights: 256, bytes: 54 },
  tq2: { weights: 256, bytes: 66 },
  q2: { weights: 64, bytes: 18 },
  pq2: { weights: 128, bytes: 34 },
  ptq1: { weights: 128, bytes: 28 },
  q2b: { weights: 64, bytes: 18 },
};

export function isBlockKind(kind: StoredKind): kind is BlockKind {
  return Object.hasOwn(STORED_BLOCKS, kind);
}

export function isFloatKind(kind: StoredKind): kind is "f32" | "f16" | "bf16" {
  return kind === "f32" || kind === "f16" || kind === "bf16";
}

/** Bytes of such a matrix. */
export function storedBytes({ kind, n, k }: Omit<StoredMatrix, "bytes">): number {
  switch (kind) {
    case "codes":
      return n * k;
    case "quarters":
      return Math.ceil(n / 4) * k;
    case "f32":
      return n * k * 4;
    case "f16":
    case "bf16":
      return n * k * 2;
    default:
      return n * k / STORED_BLOCKS[kind].weights * STORED_BLOCKS[kind].bytes;
  }
}
