import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { STORED_KINDS, type StoredMatrix } from "../codegen/pack/stored.ts";
import { packSymbol } from "../codegen/pack/template.ts";
import { type NativeLibrary, openLibrary, type Pointer } from "./ffi.ts";

const PACK = {
  parameters: ["pointer", "i32", "buffer", "i32", "i32", "f32", "buffer"],
  result: "i32",
  async: true,
} as const;

const SYMBOLS = {
  trilith_team_create: { parameters: ["i32"], result: "pointer" },
  trilith_team_destroy: { parameters: ["pointer"], result: "void" },
  trilith_row_sums: {
    parameters: ["pointer", "i32", "buffer", "i32", "i32", "buffer"],
    result: "void",
    async: true,
  },
  trilith_magnitudes: {
    parameters: ["pointer", "i32", "buffer", "i32", "i32", "i32", "buffer"],
    result: "i32",
    async: true,
  },
  trilith_sketch: {
    parameters: [
      "pointer",
      "i32",
      "buffer",
      "i32",
      "i32",
      "i32",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "void",
    async: true,
  },
  pack: PACK,
} as const;

/** Packs on a team of its own, with a compiled library that has the layout. One call at a time. */
export class NativePacker {
  readonly #library: NativeLibrary<Omit<typeof SYMBOLS, "pack">>;
  readonly #pack: NativeLibrary<Record<string, typeof PACK>>;
  readonly #symbol: string;
  readonly #team: Pointer;

  /**
   * @param path The library.
   * @throws {Error} If the system gives no more threads.
   */
  constructor(path: string, layout: TernaryLayout, threads: number) {
    const { pack, ...symbols } = SYMBOLS;
    this.#symbol = packSymbol(layout);
    this.#library = openLibrary(path, symbols);
    this.#pack = openLibrary(path, { [this.#symbol]: pack });
    const team = this.#library.symbols.trilith_team_create(threads);
    if (team === null) {
      throw new Error(`Cannot start ${threads} threads: the system refused, use fewer --threads`);
    }
    this.#team = team;
  }

  /**
   * Packs a matrix into `out`, `layout.packedBytes(n, k)` bytes, all of which it fills.
   *
   * @param factor What floats are multiplied by before they are rounded to -1, 0, 1.
   * @returns False if a code is 3: `out` is then of no use.
   */
  async pack({ kind, bytes, n, k }: StoredMatrix, factor: number, out: Uint8Array) {
    const symbol = this.#pack.symbols[this.#symbol];
    return await symbol(this.#team, STORED_KINDS[kind], bytes, n, k, factor, out) === 0;
  }

  /** Sums of |w| of each row of a float matrix, (n,), as `rowSums` of `runtime/ternary.ts`. */
  async rowSums({ kind, bytes, n, k }: StoredMatrix): Promise<Float64Array> {
    const sums = new Float64Array(n);
    const { trilith_row_sums } = this.#library.symbols;
    await trilith_row_sums(this.#team, STORED_KINDS[kind], bytes, n, k, sums);
    return sums;
  }

  /**
   * Magnitudes of a float matrix that is ternary as it stands, (n, ceil(k / size)), as `exactFactors` of
   * `runtime/exact_ternary.ts`; null if it is not.
   */
  async magnitudes(
    { kind, bytes, n, k }: StoredMatrix,
    size: number,
  ): Promise<Float32Array | null> {
    const out = new Float32Array(n * Math.ceil(k / size));
    const { trilith_magnitudes } = this.#library.symbols;
    const fault = await trilith_magnitudes(
      this.#team,
      STORED_KINDS[kind],
      bytes,
      n,
      k,
      size,
      out,
    );
    return fault === 0 ? out : null;
  }

  /**
   * Sketches the rows of a float matrix, as `sketchRow` of `codegen/head/reference.ts` does.
   *
   * @param codes (2 * stride, k): row r of `matrix` gives rows r and stride + r.
   * @param floats (3, stride): scales, corrections, norms.
   */
  async sketch(
    { kind, bytes, n, k }: StoredMatrix,
    stride: number,
    dither: Float32Array,
    codes: Uint8Array,
    floats: Float32Array,
  ): Promise<void> {
    const { trilith_sketch } = this.#library.symbols;
    await trilith_sketch(
      this.#team,
      STORED_KINDS[kind],
      bytes,
      n,
      stride,
      k,
      dither,
      codes,
      floats,
    );
  }

  close(): void {
    this.#library.symbols.trilith_team_destroy(this.#team);
    this.#pack.close();
    this.#library.close();
  }
}
