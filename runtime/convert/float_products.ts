/** Products of a float matrix with many inputs: native, and in doubles as the reference. */
import type { FloatType } from "../../codegen/model_spec.ts";
import type { StoredMatrix } from "../../codegen/pack/stored.ts";
import { type ChooseOptions, compileFloats } from "../../kernels/choose.ts";
import { defaultThreads, detectCpuWithZig, supportedIsas } from "../../kernels/cpu.ts";
import { NativeFloats } from "../../kernels/floats.ts";
import { ensureZig } from "../../kernels/toolchain.ts";
import { toFloat32 } from "../float_formats.ts";

/** Features of so many tokens. */
export type Rows = readonly Float64Array[];

/** Rows of W x for rows of x. */
export interface Products extends Disposable {
  multiply(matrix: StoredMatrix, x: Rows): Promise<Float64Array[]>;
}

/** On all threads of this machine; compiled at first use. */
export async function nativeProducts(options: ChooseOptions): Promise<Products> {
  const zig = await ensureZig(options);
  const cpu = await detectCpuWithZig(zig.path, options.signal);
  return new NativeFloats(await compileFloats(supportedIsas(cpu)[0], options), defaultThreads(cpu));
}

/** In doubles, slow and obvious, without a compiler. */
export const DOUBLES: Products = {
  multiply: (matrix, x) => Promise.resolve(multiplyInDoubles(matrix, x)),
  [Symbol.dispose]: () => {},
};

export function multiplyInDoubles({ kind, bytes, n, k }: StoredMatrix, x: Rows): Float64Array[] {
  const weights = toFloat32(bytes, kind as FloatType);
  const y = x.map(() => new Float64Array(n));
  for (let row = 0; row < n; row++) {
    // One row of weights for all tokens, while it is in the cache.
    const w = weights.subarray(row * k, (row + 1) * k);
    x.forEach((inputs, t) => {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += w[i] * inputs[i];
      y[t][row] = sum;
    });
  }
  return y;
}
