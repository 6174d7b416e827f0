import type { Isa } from "../isa.ts";
import type { KvType, ModelSpec } from "../model_spec.ts";

/** How much of attention's work registers hold at once. It changes no result. */
export interface Tiling {
  /** Queries that read keys and values together, at most: several times `tokenRows`. */
  rows: number;
  /** Queries that do so when less are left; divides the queries of one token and KV head. */
  tokenRows: number;
  /** Sums of 16 lanes that are kept in registers. */
  sums: number;
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
  return { rows: tokenRows * Math.floor(most / tokenRows), tokenRows, sums };
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
