/** From ternary matrices as checkpoints have them to a packed layout: native, and its reference. */
import { widenRow } from "../codegen/dense/reference.ts";
import { sketchRow } from "../codegen/head/reference.ts";
import { PARAMETERS } from "../codegen/head/sketch.ts";
import { packMatrix, type TernaryLayout, ZERO_CODE } from "../codegen/layouts/layout.ts";
import { type FloatType, SKETCH_ROWS } from "../codegen/model_spec.ts";
import { isFloatKind, type StoredMatrix } from "../codegen/pack/stored.ts";
import { NativePacker } from "../kernels/packer.ts";
import { exactFactors, type Grain } from "./exact_ternary.ts";
import { absmeanOf, ternaryOf } from "./ternary.ts";

/** Packs ternary matrices in one layout. */
export interface TernaryPacker extends Disposable {
  readonly layout: TernaryLayout;
  /**
   * Packs a matrix into `out`, `layout.packedBytes(n, k)` bytes, all of which it fills.
   *
   * @param what Names the tensor in errors.
   * @returns The scale of a matrix of floats that are ternarised, else null.
   * @throws {CheckpointError} If a code is 3 or a weight is not finite.
   */
  pack(matrix: StoredMatrix, what: string, out: Uint8Array): Promise<number | null>;
  /**
   * Factors of a matrix of floats that is ternary as it stands, see `exactFactors`.
   *
   * @throws {CheckpointError} If it is not.
   */
  factors(matrix: StoredMatrix, grain: Grain, what: string): Promise<Float32Array>;
  /**
   * A piece of a head's sketch: its levels packed as a ternary matrix of 2 * SKETCH_ROWS rows, and
   * its floats, (PARAMETERS, SKETCH_ROWS). See `codegen/head/sketch.ts`.
   *
   * @param rows Float rows of the head, SKETCH_ROWS at most; what is missing is zeros.
   */
  sketch(rows: StoredMatrix, dither: Float32Array, packed: Uint8Array): Promise<Float32Array>;
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
    factors: (matrix, grain, what) => Promise.resolve(exactFactors(matrix, grain, what)),
    async sketch(rows, dither, packed) {
      const { codes, floats } = emptyPiece(rows.k);
      for (let r = 0; r < rows.n; r++) {
        const w = widenRow(rows.bytes, rows.kind as FloatType, rows.k, r * rowBytes(rows));
        const { upper, lower, scale, correction, norm } = sketchRow(w, dither);
        codes.set(upper, r * rows.k);
        codes.set(lower, (SKETCH_ROWS + r) * rows.k);
        [scale, correction, norm].forEach((value, i) => floats[i * SKETCH_ROWS + r] = value);
      }
      await this.pack(piece(codes, rows.k), "the head's sketch", packed);
      return floats;
    },
    [Symbol.dispose]: () => {},
  };
}

/** Floats times infinity are -infinity, not a number, or infinity: codes by sign. */
const SIGNS = { factor: Infinity, scale: null };

/** The one magnitude that all rows have, but for rows of zeros; null if they have several. */
function onlyFactor(rows: Float32Array): Float32Array | null {
  const largest = rows.reduce((a, b) => Math.max(a, b), 0);
  return rows.every((row) => row === 0 || row === largest) ? Float32Array.of(largest) : null;
}

/** Zero levels, and no floats yet. @param used Levels of an earlier piece, whose place is taken if it fits. */
function emptyPiece(k: number, used = new Uint8Array(0)) {
  const length = 2 * SKETCH_ROWS * k;
  const codes = used.length === length ? used : new Uint8Array(length);
  codes.fill(ZERO_CODE);
  return { codes, floats: new Float32Array(PARAMETERS * SKETCH_ROWS) };
}

function piece(codes: Uint8Array<ArrayBuffer>, k: number): StoredMatrix {
  return { kind: "codes", bytes: codes, n: 2 * SKETCH_ROWS, k };
}

function rowBytes({ bytes, n }: StoredMatrix): number {
  return bytes.length / n;
}

/**
 * On all threads, with a compiled library that has the layout.
 *
 * @param path The library.
 */
export function openPacker(path: string, layout: TernaryLayout, threads: number): TernaryPacker {
  const native = new NativePacker(path, layout, threads);
  // One for all pieces: they would come faster than they are collected.
  let levels = new Uint8Array(0);
  return {
    layout,
    async pack(matrix, what, out) {
      checkRoom(layout, matrix, what, out);
      const absmean = matrix.exact
        ? SIGNS
        : isFloatKind(matrix.kind)
        ? absmeanOf(await native.rowSums(matrix), matrix.n * matrix.k)
        : { factor: 0, scale: null };
      if (absmean === null) throw faultOf(matrix, what);
      if (await native.pack(matrix, absmean.factor, out)) return absmean.scale;
      throw faultOf(matrix, what);
    },
    async factors(matrix, grain, what) {
      const found = await native.magnitudes(matrix, typeof grain === "number" ? grain : matrix.k);
      const factors = found !== null && grain === "matrix" ? onlyFactor(found) : found;
      // The native packer says only that something is wrong; the reference says what.
      return factors ?? exactFactors(matrix, grain, what);
    },
    async sketch(rows, dither, packed) {
      const { codes, floats } = emptyPiece(rows.k, levels);
      levels = codes;
      await native.sketch(rows, SKETCH_ROWS, dither, codes, floats);
      await this.pack(piece(codes, rows.k), "the head's sketch", packed);
      return floats;
    },
    [Symbol.dispose]: () => native.close(),
  };
}

/** Native code writes as far as the matrix goes. */
function checkRoom(
  layout: TernaryLayout,
  { n, k }: StoredMatrix,
  what: string,
  out: Uint8Array,
): void {
  const needed = layout.packedBytes(n, k);
  if (out.length < needed) {
    throw new RangeError(
      `Cannot pack ${what} as its ${n} x ${k} weights take ${needed} bytes: there is room for ${out.length}`,
    );
  }
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
