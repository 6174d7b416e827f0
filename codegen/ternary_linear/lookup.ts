import { BLOCK_ROWS, blocksOf } from "../layouts/layout.ts";
import {
  INDEX_FEATURES,
  INDICES_PER_WORD,
  LOOKUP9,
  SLICE_WORDS,
  UNIT_BLOCKS,
  wordsOf,
} from "../layouts/lookup9.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import type { Scheme } from "./scheme.ts";

/** 16-bit lanes of a table, of which the 27 sums of three activations take the first. */
const TABLE_LANES = 32;

/**
 * Tokens whose slices are done before the next slice: their sums (64 tokens of 2,560 rows take
 * 655 kB) and a slice's weights (2,560 rows: 143 kB) stay in the second-level cache.
 */
const TOKEN_GROUP = 64;

/** Registers of AVX-512. A tile holds its sums, a vector of indices a block, a table, a temporary. */
const REGISTERS = 32;

/**
 * Looks sums of three activations up in tables by AVX-512's vpermw, 32 rows at once: 1.78 bits a
 * weight and no multiplication. Tables are made once for each quantised input: 64 bytes for three
 * features, in 1.4 ns each on Emerald Rapids (1.2 us for 2,560 features, 1 % of a decoded token).
 *
 * @param tokenTiles Tokens that share a vector of indices, largest first.
 * @param prefetch Whether decode fetches the next tile's weights ahead.
 */
export function lookup(tokenTiles: readonly number[], prefetch: boolean): Scheme {
  for (const m of tokenTiles) {
    const used = m * UNIT_BLOCKS + UNIT_BLOCKS + 2;
    if (used > REGISTERS) {
      throw new RangeError(
        `Cannot make lookup tiles of ${m} tokens as they need ${used} registers: there are ${REGISTERS}`,
      );
    }
  }
  return {
    name: prefetch ? "lookup-prefetch" : "lookup",
    layout: LOOKUP9,
    tokenTiles,
    inputBuffers: (k) => [
      { name: "tables", type: "i16", elements: tablesOf(k) * TABLE_LANES },
    ],
    prelude: [tableFunctions(), sliceFunctions(tokenTiles, prefetch)].join("\n"),
    prepare: (k) =>
      `buildTables(${tablesOf(k)}, x.codes + t * ${activationStride(k)}, x.tables + t * ${
        tablesOf(k) * TABLE_LANES
      });`,
    tiles: () => "",
    linear: ({ n, k }) =>
      zig`
        lookUpLinear(.{ .words = ${wordsOf(k)}, .blocks = ${
        blocksOf(n)
      } }, linear, x, tokens, y, y_stride, blocks);
      `,
  };
}

/** Tables of one token; those past the last feature are read with zero weights only. */
function tablesOf(k: number): number {
  return wordsOf(k) * INDICES_PER_WORD;
}

/**
 * Tables by vpdpbusd, which multiplies unsigned bytes by signed ones: x + 128 by the digits -1, 0, 1,
 * starting from -128 times the digits' sum. Two halves of 16 lanes are packed into 32 of 16 bits.
 */
function tableFunctions(): string {
  return zig`
    const Indices = @Vector(${TABLE_LANES}, u16);
    const Lanes = @Vector(${TABLE_LANES}, i16);
    const Bytes = @Vector(64, i8);
    extern fn @"llvm.x86.avx512.vpdpbusd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
    extern fn @"llvm.x86.avx512.packssdw.512"(math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) Lanes;
    extern fn @"llvm.x86.avx512.permvar.hi.512"(Indices, Indices) callconv(.{ .x86_64_sysv = .{} }) Indices;

    /// The weights that a table's lane names: digits in base 3, digit 0, 1, 2 for weight -1, 0, +1.
    fn weightOf(lane: usize, comptime digit: usize) i8 {
        const place = [3]usize{ 1, 3, 9 };
        return if (lane < 27) @as(i8, @intCast(lane / place[digit] % 3)) - 1 else 0;
    }

    /// vpackssdw takes four lanes of one half, then four of the other: lane l of a half is this one.
    fn tableLane(l: usize, half: usize) usize {
        return l / 4 * 8 + half * 4 + l % 4;
    }

    fn weightsOf(half: usize) Bytes {
        var weights: [64]i8 = @splat(0);
        for (0..16) |l| {
            inline for (0..${INDEX_FEATURES}) |digit| weights[4 * l + digit] = weightOf(tableLane(l, half), digit);
        }
        return weights;
    }

    fn startOf(half: usize) math.I {
        var start: [16]i32 = @splat(0);
        for (0..16) |l| {
            inline for (0..${INDEX_FEATURES}) |digit| start[l] -= 128 * @as(i32, weightOf(tableLane(l, half), digit));
        }
        return start;
    }

    /// Table i, lane v: the sum of x[3i .. 3i + 2] times the weights that v names.
    fn buildTables(comptime count: usize, codes: [*]const i8, tables: [*]i16) void {
        const weights = comptime [2]math.I{ @bitCast(weightsOf(0)), @bitCast(weightsOf(1)) };
        const starts = comptime [2]math.I{ startOf(0), startOf(1) };
        for (0..count) |i| {
            const four: i32 = @bitCast(codes[${INDEX_FEATURES} * i ..][0..4].*);
            const shifted = @as(math.I, @splat(four)) ^ @as(math.I, @bitCast(@as(Bytes, @splat(-128))));
            const low = @"llvm.x86.avx512.vpdpbusd.512"(starts[0], shifted, weights[0]);
            const high = @"llvm.x86.avx512.vpdpbusd.512"(starts[1], shifted, weights[1]);
            tables[i * ${TABLE_LANES} ..][0..${TABLE_LANES}].* = @"llvm.x86.avx512.packssdw.512"(low, high);
        }
    }
  `;
}

/** What decode fetches ahead: the weights of its next tile, which may lie in the next slice. */
const PREFETCH = {
  parameter: "ahead: Words, ",
  argument: "ahead, ",
  fetch: "if (m == 1) @prefetch(ahead + i * w_stride + b, .{ .locality = 2 });",
  next: zig`
    // Where this thread's part of the next slice begins.
    const left = grid.words - from - count;
    const next_count: usize = @min(left, ${SLICE_WORDS});
    const next_w = slice_w + grid.blocks * count + blocks[0] * next_count;
  `,
  choose: "const ahead = if (block + step < blocks[1]) unit_w + step * count else next_w;",
};
const NO_PREFETCH: typeof PREFETCH = {
  parameter: "",
  argument: "",
  fetch: "",
  next: "",
  choose: "",
};

function sliceFunctions(tokenTiles: readonly number[], prefetch: boolean): string {
  const tiles = tokenTiles.map((m) =>
    `while (t + ${m} <= t_1) : (t += ${m}) lookUpSlice(${m}, grid, slice, w, tables, t, sums, y_stride, blocks);`
  );
  const ahead = prefetch ? PREFETCH : NO_PREFETCH;
  return zig`
    /// A matrix in words of 9 features and blocks of 32 rows.
    const Grid = struct { words: usize, blocks: usize };

    /// Packed weights, wherever the caller has them: unaligned loads cost nothing when they are aligned.
    const Words = [*]align(1) const Indices;

    /// vpermw: lane r is the table's lane that index r names by its five lower bits.
    inline fn lookUp(table: Indices, indices: Indices) Lanes {
        return @bitCast(@"llvm.x86.avx512.permvar.hi.512"(table, indices));
    }

    /// Sums of m tokens for width blocks over the words of a slice. Words of a block are w_stride vectors
    /// apart. In int16, which ${SLICE_WORDS} words can't overflow; added to y, or stored if the slice is the first.
    inline fn lookUpTile(comptime m: usize, comptime width: usize, comptime table_stride: usize, w: Words, w_stride: usize, ${ahead.parameter}count: usize, tables: [*]const Indices, first: bool, y: [*]i32, y_stride: usize) void {
        var acc: [m][width]Lanes = @splat(@splat(@splat(0)));
        for (0..count) |i| {
            var indices: [width]Indices = undefined;
            inline for (0..width) |b| {
                ${ahead.fetch}
                indices[b] = w[i * w_stride + b];
            }
            inline for (0..${INDICES_PER_WORD}) |j| {
                inline for (0..m) |t| {
                    const table = tables[t * table_stride + i * ${INDICES_PER_WORD} + j];
                    inline for (0..width) |b| acc[t][b] +%= lookUp(table, indices[b]);
                }
                inline for (0..width) |b| indices[b] >>= @splat(5);
            }
        }
        inline for (0..m) |t| {
            inline for (0..width) |b| addLanes(acc[t][b], first, y + t * y_stride + b * ${BLOCK_ROWS});
        }
    }

    inline fn addLanes(lanes: Lanes, first: bool, y: [*]i32) void {
        const halves: [2]@Vector(16, i16) = @bitCast(lanes);
        inline for (halves, 0..) |half, h| {
            const sums: math.I = half;
            const y_h = y[h * 16 ..][0..16];
            y_h.* = if (first) sums else @as(math.I, y_h.*) + sums;
        }
    }

    /// One slice of m tokens from t on, for blocks first .. last: whole units at once, else single blocks.
    fn lookUpSlice(comptime m: usize, comptime grid: Grid, slice: usize, w: Words, tables: [*]const Indices, t: usize, y: [*]i32, y_stride: usize, blocks: [2]usize) void {
        const table_stride = grid.words * ${INDICES_PER_WORD};
        const from = slice * ${SLICE_WORDS};
        // A usize by name, as the type of @min with a constant is only as wide as the constant.
        const count: usize = @min(${SLICE_WORDS}, grid.words - from);
        const tables_t = tables + t * table_stride + from * ${INDICES_PER_WORD};
        const slice_w = w + from * grid.blocks;
        ${ahead.next}
        var block = blocks[0];
        while (block < blocks[1]) {
            const unit = block - block % ${UNIT_BLOCKS};
            const width: usize = @min(${UNIT_BLOCKS}, grid.blocks - unit);
            const whole = block == unit and unit + ${UNIT_BLOCKS} <= blocks[1];
            const unit_w = slice_w + unit * count + (block - unit);
            const step: usize = if (whole) ${UNIT_BLOCKS} else 1;
            ${ahead.choose}
            const y_t = y + t * y_stride + block * ${BLOCK_ROWS};
            if (whole) {
                lookUpTile(m, ${UNIT_BLOCKS}, table_stride, unit_w, ${UNIT_BLOCKS}, ${ahead.argument}count, tables_t, slice == 0, y_t, y_stride);
            } else {
                lookUpTile(m, 1, table_stride, unit_w, width, ${ahead.argument}count, tables_t, slice == 0, y_t, y_stride);
            }
            block += step;
        }
    }

    /// All slices, then the scale; y holds the integer sums until then.
    inline fn lookUpLinear(comptime grid: Grid, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        const w: Words = @ptrCast(@alignCast(linear.codes));
        const tables: [*]const Indices = @ptrCast(@alignCast(x.tables));
        const sums: [*]i32 = @ptrCast(y);
        var t_0: usize = 0;
        while (t_0 < tokens) : (t_0 += ${TOKEN_GROUP}) {
            const t_1 = @min(t_0 + ${TOKEN_GROUP}, tokens);
            for (0..(grid.words + ${SLICE_WORDS - 1}) / ${SLICE_WORDS}) |slice| {
                var t = t_0;
                ${tiles}
            }
            for (t_0..t_1) |t| {
                for (blocks[0] * 2..blocks[1] * 2) |half| {
                    const exact: math.I = sums[t * y_stride + half * 16 ..][0..16].*;
                    finish(exact, linear.scale * x.inverse[t], linear.bias, half * 16, y + t * y_stride);
                }
            }
        }
    }
  `;
}
