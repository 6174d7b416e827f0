import type { Isa } from "../isa.ts";
import { valuePart } from "./cache.ts";
import type { KvType, ModelSpec } from "../model_spec.ts";

/** How much of attention's work registers hold at once. It changes no result. */
export interface Tiling {
  /** Queries that read keys and values together, at most: several times `tokenRows`. */
  rows: number;
  /** Queries that do so when less are left; divides the queries of one token and KV head. */
  tokenRows: number;
  /** Sums of 16 lanes that are kept in registers. */
  sums: number;
  /** Queries and vectors of features that a pass over values sums for. */
  sumRows: number;
  sumVectors: number;
}

/** Rows and sums that fit without spilling: 32 registers of 512 bits, 16 of 256, 32 and 16 of 128. */
const LIMITS: Record<KvType, Record<"zmm" | "ymm" | "neon" | "xmm", [number, number]>> = {
  f32: { zmm: [8, 8], ymm: [2, 2], neon: [2, 2], xmm: [1, 1] },
  f16: { zmm: [8, 16], ymm: [4, 4], neon: [4, 4], xmm: [2, 2] },
  int8: { zmm: [4, 16], ymm: [4, 4], neon: [4, 4], xmm: [2, 2] },
};

export function tilingOf(spec: ModelSpec, kvType: KvType, isa: Isa): Tiling {
  const group = spec.numAttentionHeads / spec.numKeyValueHeads;
  const [most, sums] = LIMITS[kvType][registersOf(isa)];
  const tokenRows = divisorUpTo(group, most);
  const rows = tokenRows * Math.floor(most / tokenRows);
  // int8 weights have two planes, each of which has sums.
  const pass = passOf(rows, kvType === "int8" ? sums / 2 : sums, valuePart(spec, kvType) / 16);
  return { rows, tokenRows, sums, ...pass };
}

/** Where there are many registers, a pass takes all features that lie together. */
function passOf(
  rows: number,
  sums: number,
  partVectors: number,
): Pick<Tiling, "sumRows" | "sumVectors"> {
  if (sums < 8) return { sumRows: rows, sumVectors: Math.max(1, Math.floor(sums / rows)) };
  const sumVectors = Math.min(partVectors, 4);
  return { sumRows: Math.floor(sums / sumVectors), sumVectors };
}

function registersOf(isa: Isa): "zmm" | "ymm" | "neon" | "xmm" {
  if (isa.startsWith("avx512")) return "zmm";
  if (isa.startsWith("avx")) return "ymm";
  return isa.startsWith("neon") ? "neon" : "xmm";
}

function divisorUpTo(n: number, most: number): number {
  for (let d = most; d > 1; d--) if (n % d === 0) return d;
  return 1;
}
