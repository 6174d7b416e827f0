import type { Isa } from "../isa.ts";
import type { ModelSpec } from "../model_spec.ts";
import { zig } from "../writer.ts";
import {
  keyFours,
  KV_BLOCK_POSITIONS,
  KV_CHUNK_BLOCKS,
  KV_GROUP_BLOCKS,
  kvRow,
  valuePart,
} from "./cache.ts";
import { dots } from "./dots.ts";
import { LEAST_LARGEST, scoreScale, WEIGHT_LEVELS } from "./reference.ts";
import type { Tiling } from "./tiling.ts";

/**
 * Attention over int8 keys and values, one scale for each position and head. All sums of products
 * are integers, hence exact and the same on every CPU in whatever order: queries are int8 too, and
 * weights times the values' scales have 14 bits, as two planes of 7, since a single plane would lose
 * all that a dominant position leaves over.
 */
export function int8(spec: ModelSpec, isa: Isa, tiling: Tiling): string {
  const row = kvRow(spec);
  const fours = keyFours(spec);
  const part = valuePart(spec, "int8");
  const group = KV_GROUP_BLOCKS.int8;
  const vectors = row / 16;
  return zig`
    ${dots(isa)}

    const Score = f32;
    /// bias: what sums are to begin with, as keys are kept with 128 added.
    const Query = extern struct { codes: [${fours}][4]i8 align(64), scale: f32, bias: i32 };
    const KeyGroup = extern struct {
        codes: [${fours}][${group}][${KV_BLOCK_POSITIONS}][4]u8 align(64),
        scales: [${group}][${KV_BLOCK_POSITIONS}]f32 align(64),
    };
    const ValueChunk = extern struct {
        parts: [${row / part}][${KV_CHUNK_BLOCKS}][${
    KV_BLOCK_POSITIONS / 4
  }][${part}][4]u8 align(64),
        scales: [${KV_CHUNK_BLOCKS}][${KV_BLOCK_POSITIONS}]f32 align(64),
    };

    /// Four features of all positions.
    inline fn keyFour(block: KeyBlock, i: usize) *[${KV_BLOCK_POSITIONS}][4]u8 {
        return &block.group.codes[i][block.index];
    }

    inline fn keyScales(block: KeyBlock) *[${KV_BLOCK_POSITIONS}]f32 {
        return &block.group.scales[block.index];
    }

    /// Features of four positions from d on, up to the end of their part.
    inline fn valueFeatures(block: ValueBlock, four: usize, d: usize) [*][4]u8 {
        return block.chunk.parts[d / ${part}][block.index][four][d % ${part} ..].ptr;
    }

    inline fn valueScales(block: ValueBlock) *[${KV_BLOCK_POSITIONS}]f32 {
        return &block.chunk.scales[block.index];
    }

    /// A weight is (128 * high + low) * unit; zero where a row does not see.
    const Weights = struct {
        high: [${tiling.rows}][span]u8 align(64),
        low: [${tiling.rows}][span]u8 align(64),
        unit: [${tiling.rows}]f32,
    };

    /// to = round(from * 127 / max |from|); returns max |from| / 127.
    fn narrow(from: [*]const f32, to: *[${row}]i8) f32 {
        var padded: [${row}]f32 align(64) = @splat(0);
        for (0..${spec.headDim}) |d| padded[d] = bounded(from[d]);
        var largest: math.F = @splat(0);
        inline for (0..${vectors}) |v| largest = @max(largest, @abs(math.load(padded[v * math.lanes ..].ptr)));
        const limit: f32 = @max(@reduce(.Max, largest), ${LEAST_LARGEST});
        const factor = math.splat(127.0 / limit);
        inline for (0..${vectors}) |v| {
            const codes = math.roundToInt(math.load(padded[v * math.lanes ..].ptr) * factor);
            to[v * math.lanes ..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @truncate(codes));
        }
        return limit / 127.0;
    }

    fn makeQuery(query: *Query, from: [*]const f32) void {
        var codes: [${row}]i8 = undefined;
        query.scale = narrow(from, &codes) * ${Math.fround(scoreScale(spec.headDim))};
        var sum: i32 = 0;
        for (codes) |code| sum += code;
        query.bias = -key_excess * sum;
        for (&query.codes, 0..) |*four, i| four.* = codes[4 * i ..][0..4].*;
    }

    fn storeKey(block: KeyBlock, slot: usize, from: [*]const f32) void {
        var codes: [${row}]i8 = undefined;
        keyScales(block)[slot] = narrow(from, &codes);
        for (0..${fours}) |i| {
            const signed: @Vector(4, u8) = @bitCast(codes[4 * i ..][0..4].*);
            keyFour(block, i)[slot] = signed ^ @as(@Vector(4, u8), @splat(0x80));
        }
    }

    fn storeValue(block: ValueBlock, slot: usize, from: [*]const f32) void {
        var codes: [${row}]i8 = undefined;
        valueScales(block)[slot] = narrow(from, &codes);
        for (codes, 0..) |code, d| valueFeatures(block, slot / 4, d)[0][slot % 4] = @bitCast(code);
    }

    /// scores[r][offset + position] = q k^T / sqrt(${spec.headDim}) for all positions of the blocks. A sum is at
    /// most ${spec.headDim} * 127 * 127 in size, which a float holds exactly.
    fn scoreKeys(comptime rows: usize, comptime blocks: usize, queries: [*]const Query, keys: [*]const KeyBlock, scores: [*][span]Score, offset: usize) void {
        var acc: [rows][blocks]math.I = undefined;
        inline for (0..rows) |r| acc[r] = @splat(@splat(queries[r].bias));
        for (0..${fours}) |i| {
            var k: [blocks]DotBytes = undefined;
            inline for (0..blocks) |b| k[b] = @as(*const DotBytes, @ptrCast(@alignCast(keyFour(keys[b], i)))).*;
            inline for (0..rows) |r| {
                inline for (0..blocks) |b| acc[r][b] = dotKeys(acc[r][b], k[b], @bitCast(queries[r].codes[i]));
            }
        }
        inline for (0..rows) |r| {
            inline for (0..blocks) |b| {
                const exact: math.F = @floatFromInt(acc[r][b]);
                math.store(scores[r][offset + b * math.lanes ..].ptr, exact * math.splat(queries[r].scale) * math.load(keyScales(keys[b])));
            }
        }
    }

    /// Weights of row r times the scales of the values: of what it sees, and zeros
    /// around it in the blocks. The largest of them is ${WEIGHT_LEVELS} units.
    fn weigh(scores: *[span]Score, values: [*]const ValueBlock, blocks: Blocks, seen: Seen, weights: *Weights, r: usize) Softmax {
        const largest = largestOf(scores, blocks, seen);
        var sums: math.F = @splat(0);
        var peak: math.F = @splat(0);
        for (blocks.first..blocks.end) |b| {
            const weight = expWeights(scores, b, seen, largest);
            sums += weight;
            const scaled = weight * math.load(valueScales(values[b]));
            peak = math.larger(peak, scaled);
            math.store(scores[b * math.lanes ..].ptr, scaled);
        }
        const limit: f32 = @max(@reduce(.Max, peak), ${LEAST_LARGEST});
        const factor = math.splat(${WEIGHT_LEVELS}.0 / limit);
        weights.unit[r] = limit / ${WEIGHT_LEVELS}.0;
        for (blocks.first..blocks.end) |b| {
            const level = math.roundToInt(math.load(scores[b * math.lanes ..].ptr) * factor);
            const high: @Vector(math.lanes, u8) = @truncate(@as(@Vector(math.lanes, u32), @bitCast(level)) >> @splat(7));
            const low: @Vector(math.lanes, u8) = @truncate(@as(@Vector(math.lanes, u32), @bitCast(level)) & @as(@Vector(math.lanes, u32), @splat(127)));
            weights.high[r][b * math.lanes ..][0..math.lanes].* = high;
            weights.low[r][b * math.lanes ..][0..math.lanes].* = low;
        }
        return .{ .largest = largest, .total = math.sum(sums) };
    }

    /// out[r].sums of \`rows\` rows and \`vectors\` vectors = sum over positions of weight * value. A sum is at
    /// most span * ${WEIGHT_LEVELS} * 127 in size.
    fn sumValues(comptime rows: usize, comptime vectors: usize, weights: *const Weights, values: [*]const ValueBlock, blocks: Blocks, row: usize, first: usize, out: [*]Row) void {
        var high: [rows][vectors]math.I = @splat(@splat(@splat(0)));
        var low: [rows][vectors]math.I = @splat(@splat(@splat(0)));
        for (blocks.first..blocks.end) |b| {
            inline for (0..${KV_BLOCK_POSITIONS / 4}) |four| {
                const from: [*]const u8 = @ptrCast(valueFeatures(values[b], four, first * math.lanes));
                const offset = b * ${KV_BLOCK_POSITIONS} + four * 4;
                var value: [vectors]DotBytes = undefined;
                inline for (0..vectors) |v| value[v] = from[v * 64 ..][0..64].*;
                inline for (0..rows) |r| {
                    inline for (0..vectors) |v| {
                        high[r][v] = dotValues(high[r][v], weights.high[row + r][offset..][0..4].*, value[v]);
                        low[r][v] = dotValues(low[r][v], weights.low[row + r][offset..][0..4].*, value[v]);
                    }
                }
            }
        }
        inline for (0..rows) |r| {
            const unit = math.splat(weights.unit[row + r]);
            inline for (0..vectors) |v| {
                const exact: math.F = @floatFromInt((high[r][v] << @splat(7)) + low[r][v]);
                math.store(out[row + r].sums[(first + v) * math.lanes ..].ptr, exact * unit);
            }
        }
    }
  `;
}
