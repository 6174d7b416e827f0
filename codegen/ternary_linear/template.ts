import { BLOCK_ROWS, STEP_BYTES, stepsOf } from "../layouts/rows32.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { type Tile, tileSymbol } from "./dialects.ts";
import { linearSymbol, type TernaryKernel } from "./spec.ts";

export interface Shape {
  n: number;
  k: number;
}

/** Types and functions that all ternary linears of a file share. */
export function linearPrelude(kernel: TernaryKernel): string {
  return zig`
    ${kernel.dialect.prelude}

    /// One ternary matrix: packed codes, the factor of a weight, and a bias of one f32 a row.
    const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };

    /// int8 activations of all tokens, the sum of each token's, and 1 / their scale.
    const Quantized = struct { codes: [*]i8, sums: [*]i32, inverse: [*]f32 };

    /// y[t] = (sums - sum of x) * (scale / scale of x) + bias, for the 32 rows of a block.
    inline fn finish(comptime m: usize, sums: *const [m][32]i32, linear: Linear, x: Quantized, t_0: usize, row: usize, y: [*]f32, y_stride: usize) void {
        inline for (0..m) |t| {
            const factor = math.splat(linear.scale * x.inverse[t_0 + t]);
            const offset: math.I = @splat(x.sums[t_0 + t]);
            inline for (0..2) |half| {
                const exact: math.I = sums[t][half * 16 ..][0..16].*;
                var out: math.F = @floatFromInt(exact - offset);
                out *= factor;
                if (linear.bias) |bias| out += math.load(bias + row + half * 16);
                math.store(y + (t_0 + t) * y_stride + row + half * 16, out);
            }
        }
    }
  `;
}

/** The tiles of all k, then one linear a shape. */
export function linears(kernel: TernaryKernel, shapes: readonly Shape[]): string {
  const ks = [...new Set(shapes.map((shape) => shape.k))];
  const tiles = ks.flatMap((k) => kernel.tokenTiles.map((m) => tileOf(m, k)));
  return [
    ...tiles.map((tile) => kernel.dialect.tile(tile)),
    ...uniqueShapes(shapes).map((shape) => linear(kernel, shape)),
  ].join("\n");
}

export function uniqueShapes(shapes: readonly Shape[]): Shape[] {
  return [...new Map(shapes.map((shape) => [linearSymbol(shape), shape])).values()];
}

function tileOf(m: number, k: number): Tile {
  return { m, k, steps: stepsOf(k), xStride: activationStride(k) };
}

function linear(kernel: TernaryKernel, shape: Shape): string {
  const blockBytes = stepsOf(shape.k) * STEP_BYTES;
  const loops = kernel.tokenTiles.map((m) => tokenLoop(tileOf(m, shape.k)));
  return zig`
    /// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
    /// W: (${shape.n}, ${shape.k}) ternary. x: (tokens, ${shape.k}) int8. y: (tokens, y_stride).
    fn ${
    linearSymbol(shape)
  }(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        for (blocks[0]..blocks[1]) |block| {
            const w = linear.codes + block * ${blockBytes};
            const row = block * ${BLOCK_ROWS};
            var t: usize = 0;
            ${loops}
        }
    }

    pub export fn trilith_${
    linearSymbol(shape)
  }(codes: [*]const u8, x: [*]i8, sums: [*]i32, inverse: [*]f32, tokens: i32, y: [*]f32, first: i32, last: i32) void {
        const one: Linear = .{ .codes = codes, .scale = 1, .bias = null };
        const quantized: Quantized = .{ .codes = x, .sums = sums, .inverse = inverse };
        ${linearSymbol(shape)}(one, quantized, @intCast(tokens), y, ${
    paddedRows(shape.n)
  }, .{ @intCast(first), @intCast(last) });
    }
  `;
}

/** Outputs of a linear are written a block at a time, so their rows are padded to 32. */
export function paddedRows(n: number): number {
  return Math.ceil(n / BLOCK_ROWS) * BLOCK_ROWS;
}

function tokenLoop(tile: Tile): string {
  return zig`
    while (t + ${tile.m} <= tokens) : (t += ${tile.m}) {
        var sums: [${tile.m}][32]i32 = undefined;
        ${tileSymbol(tile)}(w, x.codes + t * ${tile.xStride}, &sums);
        finish(${tile.m}, &sums, linear, x, t, row, y, y_stride);
    }
  `;
}
