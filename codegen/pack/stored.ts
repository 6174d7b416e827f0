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
  }
}
