import { STORED_KINDS, type StoredMatrix } from "../codegen/pack/stored.ts";
import { paddedFloats } from "../codegen/norm_quantize/template.ts";
import { type NativeLibrary, openLibrary, type Pointer } from "./ffi.ts";

const SYMBOLS = {
  trilith_team_create: { parameters: ["i32"], result: "pointer" },
  trilith_team_destroy: { parameters: ["pointer"], result: "void" },
  trilith_float_product: {
    parameters: ["pointer", "i32", "buffer", "i32", "i32", "buffer", "i32", "buffer"],
    result: "void",
    async: true,
  },
} as const;

/** Multiplies float matrices on a team of its own, by a library of `compileFloats`. One call at a time. */
export class NativeFloats implements Disposable {
  readonly #library: NativeLibrary<typeof SYMBOLS>;
  readonly #team: Pointer;

  /** @throws {Error} If the system gives no more threads. */
  constructor(path: string, threads: number) {
    this.#library = openLibrary(path, SYMBOLS);
    const team = this.#library.symbols.trilith_team_create(threads);
    if (team === null) {
      this.#library.close();
      throw new Error(`Cannot start ${threads} threads: the system refused, use fewer --threads`);
    }
    this.#team = team;
  }

  /**
   * Rows of W x, in float32 sums whose order is this CPU's own.
   *
   * @param matrix W (n, k) of floats. @param x Rows of k. @returns As many rows of n.
   */
  async multiply(
    { kind, bytes, n, k }: StoredMatrix,
    x: readonly Float64Array[],
  ): Promise<Float64Array[]> {
    const stride = paddedFloats(k);
    const inputs = new Float32Array(x.length * stride);
    x.forEach((row, t) => inputs.set(row, t * stride));
    const out = new Float32Array(x.length * n);
    await this.#library.symbols.trilith_float_product(
      this.#team,
      STORED_KINDS[kind],
      bytes,
      n,
      k,
      inputs,
      x.length,
      out,
    );
    return x.map((_, t) => new Float64Array(out.subarray(t * n, (t + 1) * n)));
  }

  [Symbol.dispose](): void {
    this.#library.symbols.trilith_team_destroy(this.#team);
    this.#library.close();
  }
}
