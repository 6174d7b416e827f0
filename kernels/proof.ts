import { randomOf } from "../codegen/random.ts";
import { packFactors } from "../codegen/ternary_linear/factors.ts";
import { factorBytes, groupCount } from "../codegen/ternary_linear/groups.ts";
import { codeBytes } from "../codegen/ternary_linear/timing.ts";
import { BLOCK_ROWS, blocksOf, paddedRows } from "../codegen/layouts/layout.ts";
import { type Groups, type ModelSpec, ternaryShapes } from "../codegen/model_spec.ts";
import { groupedDot, ternaryDot } from "../codegen/ternary_linear/reference.ts";
import { linearSymbol, type Shape } from "../codegen/ternary_linear/scheme.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { uniqueShapes } from "../codegen/ternary_linear/template.ts";
import { type NativeLibrary, openLibrary } from "./ffi.ts";

/** What one ternary linear looks like from outside. */
const LINEAR_SYMBOL = {
  parameters: ["buffer", "buffer", "i32", "buffer", "i32", "i32"],
  result: "i32",
} as const;

type LinearLibrary = NativeLibrary<Record<string, typeof LINEAR_SYMBOL>>;

/** A kernel gave a wrong sum on this machine. */
export class ProofError extends Error {
  override readonly name = "ProofError";
}

/**
 * Blocks of each matrix that are proved, as all blocks run the same code: schemes that do four at
 * once do four and then one.
 */
const PROVED_BLOCKS = 5;

/** Inputs that reach the limits of every accumulator, beside ordinary ones. */
const ACTIVATIONS: Record<string, (random: () => number) => number> = {
  random: (random) => Math.floor(random() * 256) - 128,
  "all +127": () => 127,
  "all -128": () => -128,
  "+127 and -128": (random) => random() < 0.5 ? 127 : -128,
};
const WEIGHTS: Record<string, (random: () => number) => number> = {
  random: (random) => Math.floor(random() * 3),
  "all -1": () => 0,
  "all 0": () => 1,
  "all +1": () => 2,
};

/** The pairs of WEIGHTS and ACTIVATIONS that are tried. */
const CASES = [
  ["random", "random"],
  ["all +1", "all +127"],
  ["all +1", "all -128"],
  ["all -1", "all -128"],
  ["all 0", "all +127"],
  ["random", "+127 and -128"],
] as const;

/**
 * Runs every ternary linear of a model, in every token tile, against the integer reference.
 *
 * @param path The compiled library. @returns The number of sums that were compared.
 * @throws {ProofError} Names the kernel, the case and both values.
 */
export function proveLinears(path: string, spec: ModelSpec, kernel: TernaryKernel): number {
  const shapes = uniqueShapes(ternaryShapes(spec));
  return proveShapes(path, shapes, kernel);
}

/** As `proveLinears`, for any shapes that the library has. */
export function proveShapes(
  path: string,
  shapes: readonly Shape[],
  kernel: TernaryKernel,
): number {
  const symbols = shapes.map((shape) => [`trilith_${linearSymbol(shape)}`, LINEAR_SYMBOL]);
  const library: LinearLibrary = openLibrary(path, Object.fromEntries(symbols));
  try {
    return shapes.reduce((sum, shape) => sum + proveShape(library, shape, kernel), 0);
  } finally {
    library.close();
  }
}

function proveShape(library: LinearLibrary, shape: Shape, kernel: TernaryKernel): number {
  const counts = kernel.scheme.provedTokens;
  return counts.reduce((sum, tokens) => sum + proveTokens(library, shape, kernel, tokens), 0);
}

function proveTokens(
  library: LinearLibrary,
  shape: Shape,
  kernel: TernaryKernel,
  tokens: number,
): number {
  const cases = casesOf(kernel, shape, tokens);
  for (const one of cases) compare(library, kernel, shape, one);
  return cases.reduce((sum, { rows }) => sum + rows * tokens, 0);
}

function casesOf(kernel: TernaryKernel, shape: Shape, tokens: number): Case[] {
  const rows = Math.min(shape.n, PROVED_BLOCKS * BLOCK_ROWS);
  const random = randomOf(shape.n * 31 + shape.k);
  return CASES.map(([weights, activations]) => {
    const codes = filled(new Uint8Array(rows * shape.k), () => WEIGHTS[weights](random));
    const x = filled(new Int8Array(tokens * shape.k), () => ACTIVATIONS[activations](random));
    const scales = scalesOf(kernel.scheme.groups, { rows, tokens, k: shape.k }, random);
    return { rows, tokens, codes, x, scales, name: `${weights} x ${activations}` };
  });
}

/** A case of a proof for those who run a bare linear otherwise than as a library. */
export interface BareCase {
  tokens: number;
  /** The matrix and the inputs as a bare linear takes them. */
  matrix: Uint8Array;
  input: Int8Array;
  /** What the reference says of a row for a token. */
  expected(row: number, t: number): number;
}

export function bareCases(kernel: TernaryKernel, shape: Shape): BareCase[] {
  const { provedTokens, groups } = kernel.scheme;
  return provedTokens.flatMap((tokens) =>
    casesOf(kernel, shape, tokens).map((one) => ({
      tokens,
      matrix: matrixOf(kernel, shape, one),
      input: inputOf(kernel, shape, one),
      expected: (row: number, t: number) => expectedOf(one, groups, shape.k, row, t),
    }))
  );
}

/** Factors of groups: of inputs, (tokens, groups), and of weights, (rows, groups), where they have any. */
interface Scales {
  inverses: Float32Array;
  factors: Float32Array | null;
}

/** Such as trained models have, huge and tiny ones, denormals, zeros and negative ones. */
const ODD_FACTORS = [0, -0.25, 2 ** -24, 65504, 2 ** -14, 1, -65504];

/** @returns Null where nothing is rounded by groups. */
function scalesOf(
  groups: Groups | undefined,
  { rows, tokens, k }: { rows: number; tokens: number; k: number },
  random: () => number,
): Scales | null {
  if (groups === undefined) return null;
  const count = groupCount(groups, k);
  const inverses = Float32Array.from({ length: tokens * count }, () => 2 ** (20 * random() - 17));
  // Of all types' values, which have 8 bits of precision at least.
  const factor = () =>
    random() < 0.9
      ? (128 + Math.floor(128 * random())) * 2 ** -13
      : ODD_FACTORS[Math.floor(ODD_FACTORS.length * random())];
  const held = (value: number) =>
    groups.scaleType === "bf16" && Math.abs(value) > 65000 ? 2 ** 90 : value;
  const factors = groups.weightScales
    ? Float32Array.from({ length: rows * count }, () => held(factor()))
    : null;
  return { inverses, factors };
}

/** As Uint8Array.from({ length }), but millions of elements in milliseconds. */
function filled<T extends Uint8Array | Int8Array>(array: T, next: () => number): T {
  for (let i = 0; i < array.length; i++) array[i] = next();
  return array;
}

interface Case {
  rows: number;
  tokens: number;
  codes: Uint8Array;
  x: Int8Array;
  scales: Scales | null;
  name: string;
}

/** What the reference says of a row for a token. */
function expectedOf(
  test: Case,
  groups: Groups | undefined,
  k: number,
  row: number,
  t: number,
): number {
  const codes = test.codes.subarray(row * k, (row + 1) * k);
  const x = test.x.subarray(t * k, (t + 1) * k);
  if (groups === undefined) return ternaryDot(codes, x);
  const count = groupCount(groups, k);
  const of = (all: Float32Array, i: number) => all.subarray(i * count, (i + 1) * count);
  const { inverses, factors } = test.scales!;
  return groupedDot(codes, x, groups.size, of(inverses, t), factors && of(factors, row));
}

/** The matrix as a bare linear takes it: packed codes, then factors. */
function matrixOf(
  { scheme }: TernaryKernel,
  shape: Shape,
  { codes, rows, scales }: Case,
): Uint8Array {
  const { layout, groups } = scheme;
  const packed = layout.zeros(shape.n, shape.k);
  layout.packRows(packed, shape.n, shape.k, 0, codes);
  if (!scales?.factors) return packed;
  const matrix = new Uint8Array(packed.length + factorBytes(groups, shape));
  matrix.set(packed);
  matrix.set(
    packFactors(groups!, { n: rows, k: shape.k }, scales.factors) as Uint8Array,
    packed.length,
  );
  return matrix;
}

/** The inputs as it takes them: codes, then inverses. */
function inputOf({ scheme }: TernaryKernel, { k }: Shape, { x, tokens, scales }: Case): Int8Array {
  if (scales === null) return x;
  const input = new Int8Array(codeBytes(scheme, k, tokens));
  input.set(x);
  input.set(new Int8Array(scales.inverses.buffer), input.length - scales.inverses.byteLength);
  return input;
}

function compare(
  library: LinearLibrary,
  kernel: TernaryKernel,
  shape: Shape,
  test: Case,
): void {
  const { groups } = kernel.scheme;
  const matrix = matrixOf(kernel, shape, test);
  const input = inputOf(kernel, shape, test);
  const stride = paddedRows(shape.n);
  const whole = runLinear(library, shape, matrix, input, test, 0);
  const split = runLinear(library, shape, matrix, input, test, 1);
  for (let t = 0; t < test.tokens; t++) {
    for (let row = 0; row < test.rows; row++) {
      const expected = expectedOf(test, groups, shape.k, row, t);
      const at = t * stride + row;
      if (whole[at] === expected && split[at] === expected) continue;
      throw new ProofError(
        `Kernel ${linearSymbol(shape)} of ${
          kernelName(kernel)
        } is wrong on this machine for ${test.name}` +
          `: row ${row} of token ${t} is ${whole[at]} or, where threads share, ${split[at]}` +
          `, must be ${expected}`,
      );
    }
  }
}

/** Runs blocks up to `split`, then the others, as two threads would. */
function runLinear(
  library: LinearLibrary,
  shape: Shape,
  matrix: Uint8Array,
  input: Int8Array,
  { rows, tokens }: Case,
  split: number,
): Float32Array {
  const y = new Float32Array(tokens * paddedRows(shape.n));
  const symbol = library.symbols[`trilith_${linearSymbol(shape)}`];
  for (const [first, last] of [[0, split], [split, blocksOf(rows)]]) {
    if (symbol(matrix, input, tokens, y, first, last) === 0) continue;
    throw new Error(`Cannot allocate the inputs of ${tokens} tokens: the system refused`);
  }
  return y;
}
