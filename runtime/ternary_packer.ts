/** From ternary matrices as checkpoints have them to a packed layout: native, and its reference. */
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import { NativePacker } from "../kernels/packer.ts";
import { absmeanOf, ternaryOf } from "./ternary.ts";

/** Packs ternary matrices in one layout. */
export interface TernaryPacker extends Disposable {
  readonly layout: TernaryLayout;
  /**
   * Packs a matrix into `out`, `layout.packedBytes(n, k)` bytes, all of which it fills.
   *
   * @param what Names the tensor in errors.
   * @returns The scale of a matrix of floats, else null.
   * @throws {CheckpointError} If a code is 3 or a weight is not finite.
   */
  pack(matrix: StoredMatrix, what: string, out: Uint8Array): Promise<number | null>;
}

/** Slow and obvious, and needs no compiler. */
export function referencePacker(layout: TernaryLayout): TernaryPacker {
  return {
    layout,
    pack(matrix, what, out) {
      const { codes, scale } = ternaryOf(matrix, what);
      out.set(packMatrix(layout, codes, matrix.n, matrix.k));
      return Promise.resolve(scale);
    },
    [Symbol.dispose]: () => {},
  };
}

/**
 * On all threads, with a compiled library that has the layout.
 *
 * @param path The library.
 */
export function openPacker(path: string, layout: TernaryLayout, threads: number): TernaryPacker {
  const native = new NativePacker(path, layout, threads);
  return {
    layout,
    async pack(matrix, what, out) {
      const isFloat = matrix.kind !== "codes" && matrix.kind !== "quarters";
      const absmean = isFloat
        ? absmeanOf(await native.rowSums(matrix), matrix.n * matrix.k)
        : { factor: 0, scale: null };
      if (absmean === null) throw faultOf(matrix, what);
      if (await native.pack(matrix, absmean.factor, out)) return absmean.scale;
      throw faultOf(matrix, what);
    },
    [Symbol.dispose]: () => native.close(),
  };
}

/** The native packer says only that something is wrong; the reference says what. */
function faultOf(matrix: StoredMatrix, what: string): unknown {
  try {
    ternaryOf(matrix, what);
  } catch (error) {
    return error;
  }
  return new Error(
    `Cannot pack ${what}: the native packer and its reference disagree, report this`,
  );
}
