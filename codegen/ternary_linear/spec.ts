import type { Isa } from "../isa.ts";
import { dotFour, pairwise, type TileDialect, widening } from "./dialects.ts";

/**
 * The registry of ternary linear kernels: one row gives an instruction set its build, its
 * differential tests, its proof on the user's machine, its benchmark and its place in the choice.
 */
export interface TernaryKernel {
  isa: Isa;
  /** Tokens that one pass over a block of weights serves, largest first; the last is 1. */
  tokenTiles: readonly number[];
  dialect: TileDialect;
}

export const TERNARY_KERNELS: readonly TernaryKernel[] = [
  { isa: "avx512", tokenTiles: [8, 4, 2, 1], dialect: dotFour("avx512") },
  { isa: "avx2", tokenTiles: [6, 2, 1], dialect: pairwise() },
  { isa: "neon-dotprod", tokenTiles: [4, 2, 1], dialect: dotFour("neon-dotprod") },
  { isa: "neon", tokenTiles: [4, 1], dialect: widening() },
  { isa: "portable", tokenTiles: [4, 1], dialect: widening() },
];

export function ternaryKernel(isa: Isa): TernaryKernel {
  return TERNARY_KERNELS.find((kernel) => kernel.isa === isa)!;
}

/** A symbol that spells its shape: `linear_6912x2560`. */
export function linearSymbol(shape: { n: number; k: number }): string {
  return `linear_${shape.n}x${shape.k}`;
}
