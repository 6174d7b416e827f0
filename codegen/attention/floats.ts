import { KV_BLOCK_POSITIONS, KV_CHUNK_BLOCKS, KV_GROUP_BLOCKS, kvRow, valuePart } from "./cache.ts";
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
  const part = valuePart(spec, kvType);
  const group = KV_GROUP_BLOCKS[kvType];
  const short = kvType === "f16";
  const add = (acc: string, a: string, b: string) =>
    short ? `${acc} = math.addExactProduct(${acc}, ${a}, ${b})` : `${acc} += ${a} * ${b}`;
  return zig`
    const Score = ${score};
    const Query = extern struct { values: [${row}]Score align(64) };
    const KeyGroup = extern struct { values: [${spec.headDim}][${group}][${KV_BLOCK_POSITIONS}]${kvType} align(64) };
    const ValueChunk = extern struct { parts: [${
    row / part
  }][${KV_CHUNK_BLOCKS}][${KV_BLOCK_POSITIONS}][${part}]${kvType} align(64) };

    /// One feature of all positions.
    inline fn keyFeature(block: KeyBlock, d: usize) *[${KV_BLOCK_POSITIONS}]${kvType} {
        return &block.group.values[d][block.index];
    }

    /// Features of one position from d on, up to the end of their part.
    inline fn valueFeatures(block: ValueBlock, position: usize, d: usize) [*]${kvType} {
        return block.chunk.parts[d / ${part}][block.index][position][d % ${part} ..].ptr;
    }

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

    fn storeKey(block: KeyBlock, slot: usize, from: [*]const f32) void {
        for (0..${spec.headDim}) |d| keyFeature(block, d)[slot] = @floatCast(bounded(from[d]));
    }

    fn storeValue(block: ValueBlock, slot: usize, from: [*]const f32) void {
        for (0..${spec.headDim}) |d| valueFeatures(block, slot, d)[0] = @floatCast(bounded(from[d]));
    }

    /// scores[r][offset + position] = q k^T * ${scale} for all positions of the blocks, feature by feature.
    fn scoreKeys(comptime rows: usize, comptime blocks: usize, queries: [*]const Query, keys: [*]const KeyBlock, scores: [*][span]Score, offset: usize) void {
        var acc: [rows][blocks]${vector} = @splat(@splat(@splat(0)));
        for (0..${spec.headDim}) |d| {
            var k: [blocks]${vector} = undefined;
            inline for (0..blocks) |b| k[b] = ${load}(${kvType}, keyFeature(keys[b], d));
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
    fn weigh(scores: *[span]Score, values: [*]const ValueBlock, blocks: Blocks, seen: Seen, weights: *Weights, r: usize) Softmax {
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

    /// out[r].sums of \`rows\` rows and \`vectors\` vectors = sum over positions of weight * value, position by
    /// position.
    fn sumValues(comptime rows: usize, comptime vectors: usize, weights: *const Weights, values: [*]const ValueBlock, blocks: Blocks, row: usize, first: usize, out: [*]Row) void {
        var acc: [rows][vectors]math.F = @splat(@splat(@splat(0)));
        for (blocks.first..blocks.end) |b| {
            for (0..${KV_BLOCK_POSITIONS}) |p| {
                const from = valueFeatures(values[b], p, first * math.lanes);
                var value: [vectors]math.F = undefined;
                inline for (0..vectors) |v| value[v] = math.widen(${kvType}, from + v * math.lanes);
                inline for (0..rows) |r| {
                    const weight = math.splat(weights.values[row + r][b * ${KV_BLOCK_POSITIONS} + p]);
                    inline for (0..vectors) |v| ${add("acc[r][v]", "weight", "value[v]")};
                }
            }
        }
        inline for (0..rows) |r| {
            inline for (0..vectors) |v| math.store(out[row + r].sums[(first + v) * math.lanes ..].ptr, acc[r][v]);
        }
    }
  `;
}
