import { KV_BLOCK_POSITIONS, kvRow } from "./cache.ts";
import type { ModelSpec } from "../model_spec.ts";
import { zig } from "../writer.ts";
import { scoreScale } from "./reference.ts";
import type { Tiling } from "./tiling.ts";

/**
 * Attention over keys and values that are floats. Scores of f32 keys are doubles, as their absolute
 * error becomes a relative one of the weights and tips int8 roundings; what f16 keys lost already is
 * a thousand times more, so theirs are floats. Beside f16, queries and weights have 13 bits: products
 * are exact then, and a fused multiply-add gives what two instructions give.
 */
export function floats(spec: ModelSpec, kvType: "f32" | "f16", tiling: Tiling): string {
  const row = kvRow(spec);
  const [score, vector] = kvType === "f32" ? ["f64", "math.D"] : ["f32", "math.F"];
  const load = kvType === "f32" ? "math.wide" : "math.widen";
  const scale = kvType === "f32" ? scoreScale(spec.headDim) : Math.fround(scoreScale(spec.headDim));
  const vectors = row / 16;
  const short = kvType === "f16";
  const add = (acc: string, a: string, b: string) =>
    short ? `${acc} = math.addExactProduct(${acc}, ${a}, ${b})` : `${acc} += ${a} * ${b}`;
  return zig`
    const Score = ${score};
    const Query = extern struct { values: [${row}]Score align(64) };
    const KeyBlock = extern struct { values: [${spec.headDim}][${KV_BLOCK_POSITIONS}]${kvType} align(64) };
    const ValueBlock = extern struct { values: [${KV_BLOCK_POSITIONS}][${row}]${kvType} align(64) };
    /// exp(score - largest) of the rows of a tile; zero where a row does not see.
    const Weights = struct { values: [${tiling.rows}][span]f32 align(64) };

    fn makeQuery(query: *Query, from: [*]const f32) void {
        var padded: [${row}]f32 align(64) = @splat(0);
        for (0..${spec.headDim}) |d| padded[d] = from[d];
        inline for (0..${vectors}) |v| {
            const x = math.load(padded[v * math.lanes ..].ptr);
            query.values[v * math.lanes ..][0..math.lanes].* = ${
    short ? "math.shortened(x)" : "@as(math.D, @floatCast(x))"
  };
        }
    }

    fn storeKey(block: *KeyBlock, slot: usize, from: [*]const f32) void {
        for (0..${spec.headDim}) |d| block.values[d][slot] = @floatCast(bounded(from[d]));
    }

    fn storeValue(block: *ValueBlock, slot: usize, from: [*]const f32) void {
        for (0..${spec.headDim}) |d| block.values[slot][d] = @floatCast(bounded(from[d]));
    }

    /// scores[r][offset + position] = q k^T * ${scale} for all positions of the blocks, feature by feature.
    fn scoreKeys(comptime rows: usize, comptime blocks: usize, queries: [*]const Query, keys: [*]const *const KeyBlock, ahead: Ahead, scores: [*][span]Score, offset: usize) void {
        var acc: [rows][blocks]${vector} = @splat(@splat(@splat(0)));
        for (0..${spec.headDim}) |d| {
            var k: [blocks]${vector} = undefined;
            inline for (0..blocks) |b| ahead.fetchLine(b, d);
            inline for (0..blocks) |b| k[b] = ${load}(${kvType}, &keys[b].values[d]);
            inline for (0..rows) |r| {
                const q: ${vector} = @splat(queries[r].values[d]);
                inline for (0..blocks) |b| ${add("acc[r][b]", "q", "k[b]")};
            }
        }
        inline for (0..rows) |r| {
            inline for (0..blocks) |b| scores[r][offset + b * math.lanes ..][0..math.lanes].* = acc[r][b] * @as(${vector}, @splat(${scale}));
        }
    }

    /// Weights of row r: of what it sees, and zeros around it in the blocks.
    fn weigh(scores: *[span]Score, values: [*]const *const ValueBlock, blocks: Blocks, seen: Seen, weights: *Weights, r: usize) Softmax {
        _ = values;
        const largest = largestOf(scores, blocks, seen);
        var sums: math.F = @splat(0);
        for (blocks.first..blocks.end) |b| {
            const weight = ${short ? "math.shortened(" : "("}expWeights(scores, b, seen, largest));
            sums += weight;
            math.store(weights.values[r][b * math.lanes ..].ptr, weight);
        }
        return .{ .largest = largest, .total = math.sum(sums) };
    }

    /// out[r].sums = sum over positions of weight * value, position by position.
    fn sumValues(comptime rows: usize, weights: *const Weights, values: [*]const *const ValueBlock, blocks: Blocks, ahead: Ahead, out: [*]Row) void {
        const step: usize = @max(1, ${tiling.sums} / rows);
        var v: usize = 0;
        while (v + step <= ${vectors}) : (v += step) sumValueVectors(rows, step, weights, values, blocks, ahead, v, out);
        if (${vectors} % step != 0) sumValueVectors(rows, ${vectors} % step, weights, values, blocks, ahead, v, out);
    }

    /// As sumValues, for the features of \`vectors\` vectors from \`first\` on.
    fn sumValueVectors(comptime rows: usize, comptime vectors: usize, weights: *const Weights, values: [*]const *const ValueBlock, blocks: Blocks, ahead: Ahead, first: usize, out: [*]Row) void {
        var acc: [rows][vectors]math.F = @splat(@splat(@splat(0)));
        for (blocks.first..blocks.end) |b| {
            ahead.fetchPart(b, first, vectors);
            for (0..${KV_BLOCK_POSITIONS}) |p| {
                const from = values[b].values[p][first * math.lanes ..].ptr;
                var value: [vectors]math.F = undefined;
                inline for (0..vectors) |v| value[v] = math.widen(${kvType}, from + v * math.lanes);
                inline for (0..rows) |r| {
                    const weight = math.splat(weights.values[r][b * ${KV_BLOCK_POSITIONS} + p]);
                    inline for (0..vectors) |v| ${add("acc[r][v]", "weight", "value[v]")};
                }
            }
        }
        inline for (0..rows) |r| {
            inline for (0..vectors) |v| math.store(out[r].sums[(first + v) * math.lanes ..].ptr, acc[r][v]);
        }
    }
  `;
}
