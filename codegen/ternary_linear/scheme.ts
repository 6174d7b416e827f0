import type { TernaryLayout } from "../layouts/layout.ts";
import type { Groups, Shape } from "../model_spec.ts";

export type { Shape } from "../model_spec.ts";

/** One array of the quantised input of linears, `elements` a token. */
export interface InputBuffer {
  /** In the generated code. */
  name: string;
  /** Of an element. */
  type: "i8" | "i16" | "i32" | "f32" | "f64";
  /** One token's. */
  elements: number;
}

/**
 * One way to multiply by packed ternary matrices: a layout, and the code that reads it. Every
 * scheme gives the same integers; they differ in bits a weight and in the instructions they need.
 */
export interface Scheme {
  /** Such as `multiply` or `lookup48`. */
  readonly name: string;
  /** How weights lie. */
  readonly layout: TernaryLayout;
  /** What inputs are rounded by, and weights scaled by; absent: by token, and by matrix or row. */
  readonly groups?: Groups;
  /** The same for models with groups; absent where the scheme's words do not end where groups do. */
  withGroups?(groups: Groups): Scheme;
  /** Counts of tokens that between them run every tile: what a proof and a probe must try. */
  readonly provedTokens: readonly number[];
  /** Arrays that the scheme needs beside the int8 codes, for k features. */
  inputBuffers(k: number): readonly InputBuffer[];
  /** Types, intrinsics and small functions, once a file. */
  readonly prelude: string;
  /**
   * Body of `fn prepare_k{k}(x: Quantized, t: usize) void`: fills token t's `inputBuffers` from its
   * codes.
   */
  prepare(k: number): string;
  /**
   * Body of `fn linear_{n}x{k}(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride:
   * usize, blocks: [2]usize) void`.
   * With groups it computes what `groupedDot` of `reference.ts` says, in the place of exact sums.
   */
  linear(shape: Shape): string;
}

/** A symbol that spells its shape: `linear_6912x2560`. */
export function linearSymbol(shape: Shape): string {
  return `linear_${shape.n}x${shape.k}`;
}

export function prepareSymbol(k: number): string {
  return `prepare_k${k}`;
}
