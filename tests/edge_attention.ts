/** Attention over inconvenient heads and counts, without a model around it. */
import { cachedRow } from "../codegen/attention/reference.ts";
import { attention as reference } from "../codegen/attention/reference.ts";
import { attention, attentionSymbol } from "../codegen/attention/template.ts";
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import { carver } from "../codegen/carver.ts";
import type { Isa } from "../codegen/isa.ts";
import { KV_TYPES, type KvType, type ModelSpec } from "../codegen/model_spec.ts";
import { randomOf } from "../codegen/random.ts";
import { VOCABULARY } from "../kernels/vocabulary.ts";

/** Heads that share keys and values in groups of 1, 4, 5 and 3; features that fill vectors or not. */
const HEADS: readonly [heads: number, kvHeads: number, headDim: number][] = [
  [2, 2, 64],
  [4, 1, 100],
  [10, 2, 128],
  [3, 1, 18],
  [16, 1, 2],
];

export interface AttentionShape {
  spec: ModelSpec;
  kvType: KvType;
  symbol: string;
}

export const ATTENTION_SHAPES: readonly AttentionShape[] = HEADS.flatMap(
  ([numAttentionHeads, numKeyValueHeads, headDim]) =>
    KV_TYPES.map((kvType) => {
      // Attention looks at heads and layers alone.
      const spec = {
        numHiddenLayers: 2,
        numAttentionHeads,
        numKeyValueHeads,
        headDim,
      } as ModelSpec;
      return { spec, kvType, symbol: attentionSymbol(spec, kvType) };
    }),
);

/** A library that has nothing but attention, each shape in a file of its own. */
export function attentionSources(isa: Isa): Map<string, string> {
  const files = ATTENTION_SHAPES.map(({ spec, kvType, symbol }): [string, string] => [
    `${symbol}.zig`,
    [IMPORTS, carver(), attention(spec, kvType, isa)].join("\n"),
  ]);
  const root = files.map(([name]) => `    _ = @import("${name}");`);
  return new Map([...VOCABULARY, ...files, [
    "kernels.zig",
    ["comptime {", `    _ = @import("host.zig");`, ...root, "}", ""].join("\n"),
  ]]);
}

const IMPORTS = `
const std = @import("std");
const math = @import("math.zig");
const host = @import("host.zig");
`;

/** The last `tokens` of \`positions\` positions, shared out as for so many threads. */
export interface AttentionCase {
  positions: number;
  tokens: number;
  /** Positions that a query sees, its own included. */
  window: number;
  threads: number;
  fill: "random" | "extreme";
}

const EVERYTHING = 2 ** 31 - 1;

/** Around the borders of blocks, tiles and spans; each decoded alone, and in chunks. */
export const ATTENTION_CASES: readonly AttentionCase[] = [
  ...[1, 15, 16, 17, 255, 256, 257, 511, 512, 513].map((positions): AttentionCase => ({
    positions,
    tokens: 1,
    window: EVERYTHING,
    threads: 2,
    fill: "random",
  })),
  { positions: 3, tokens: 3, threads: 1, window: EVERYTHING, fill: "random" },
  { positions: 513, tokens: 5, threads: 1, window: EVERYTHING, fill: "random" },
  { positions: 530, tokens: 37, threads: 1, window: EVERYTHING, fill: "random" },
  { positions: 530, tokens: 37, threads: 3, window: EVERYTHING, fill: "random" },
  { positions: 530, tokens: 37, threads: 64, window: EVERYTHING, fill: "random" },
  { positions: 290, tokens: 70, threads: 2, window: EVERYTHING, fill: "extreme" },
  { positions: 40, tokens: 20, threads: 2, window: 9, fill: "random" },
  { positions: 600, tokens: 30, threads: 1, window: 300, fill: "random" },
  { positions: 600, tokens: 3, threads: 64, window: 260, fill: "random" },
  { positions: 600, tokens: 1, threads: 2, window: 1, fill: "random" },
];

export interface AttentionInput {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  table: Int32Array;
}

/** Numbers of a case, the same for every kernel. Blocks lie in the cache in another order than in time. */
export function attentionInput({ spec }: AttentionShape, one: AttentionCase): AttentionInput {
  const { numAttentionHeads, numKeyValueHeads, headDim } = spec;
  const { positions, tokens, fill } = one;
  const random = randomOf(positions * 1000 + tokens);
  const made = FILLS[fill];
  const values = (count: number) => Float32Array.from({ length: count }, () => made(random));
  const blocks = Math.ceil(positions / KV_BLOCK_POSITIONS);
  return {
    q: values(tokens * numAttentionHeads * headDim),
    k: values(positions * numKeyValueHeads * headDim),
    v: values(positions * numKeyValueHeads * headDim),
    table: Int32Array.from({ length: blocks }, (_, i) => (i ^ 5) + 2),
  };
}

/** Ordinary numbers; and ones that saturate, vanish, or make one position outweigh all others. */
const FILLS: Record<AttentionCase["fill"], (random: () => number) => number> = {
  random: (random) => (random() - 0.5) * 4,
  extreme: (random) => EXTREMES[Math.floor(random() * EXTREMES.length)],
};
const EXTREMES = [0, -0, 1, -1, 3e-39, -1e-45, 60, -60, 1e5, -1e5, 1e9];

const known = new Map<string, Float32Array>();

/** (tokens, heads, headDim), by the reference: computed once for all kernels. */
export function expectedAttention(shape: AttentionShape, one: AttentionCase): Float32Array {
  const { positions, tokens, window, fill } = one;
  const key = [shape.symbol, positions, tokens, window, fill].join();
  const expected = known.get(key) ?? referenceOf(shape, one, attentionInput(shape, one));
  known.set(key, expected);
  return expected;
}

function referenceOf(
  { spec, kvType }: AttentionShape,
  { positions, tokens, window }: AttentionCase,
  { q, k, v }: AttentionInput,
): Float32Array {
  const { numAttentionHeads, numKeyValueHeads, headDim } = spec;
  const group = numAttentionHeads / numKeyValueHeads;
  const kept = [k, v].map((rows) =>
    Array.from(
      { length: positions * numKeyValueHeads },
      (_, i) => cachedRow(kvType, rows.subarray(i * headDim, (i + 1) * headDim)),
    )
  );
  const out = new Float32Array(q.length);
  for (let row = 0; row < tokens * numAttentionHeads; row++) {
    const head = Math.floor(row % numAttentionHeads / group);
    const count = positions - tokens + Math.floor(row / numAttentionHeads) + 1;
    const [key, value] = kept.map((rows) => (i: number) => rows[i * numKeyValueHeads + head]);
    const query = q.subarray(row * headDim, (row + 1) * headDim);
    out.set(
      reference(kvType, query, { first: Math.max(0, count - window), count }, key, value),
      row * headDim,
    );
  }
  return out;
}
