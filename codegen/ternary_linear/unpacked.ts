import { BLOCK_ROWS, blocksOf } from "../layouts/layout.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { type Dialect, vectorsOf } from "./dialects.ts";
import type { InputBuffer, Shape } from "./scheme.ts";

/**
 * Many tokens: the weights of a block of 32 rows and a slice of features are unpacked once, to codes
 * 0, 1, 2 of one byte each, and then multiplied by all tokens of a group. A slice's codes stay in the
 * first-level cache, the group's activations in the second-level one.
 */

/** Activations of the tokens that share an unpacking, in bytes. */
const GROUP_BYTES = 384 << 10;

/** Tokens that share an unpacking of k features: whole tiles, and one at least. */
function tokenGroup({ unpackedTiles }: Dialect, k: number): number {
  const { m } = unpackedTiles[0];
  return Math.max(1, Math.floor(GROUP_BYTES / k / m)) * m;
}

/** Tokens that are unpacked for and run each tile, if there are such tiles. */
export function unpackedTokens({ unpackedTiles, unpackFrom }: Dialect): number[] {
  if (unpackedTiles.length === 0) return [];
  const each = unpackedTiles.reduce((sum, { m }) => sum + m, 0);
  const largest = unpackedTiles[0].m;
  return [each + Math.max(0, Math.ceil((unpackFrom - each) / largest)) * largest];
}

/** Leaves a linear's function by way of `unpackedLinear` where there are enough tokens. */
export function callUnpacked(dialect: Dialect, { n, k }: Shape): string {
  return zig`
    if (tokens >= ${dialect.unpackFrom}) {
        const matrix: Matrix = .{ .features = ${k}, .blocks = ${blocksOf(n)}, .x_stride = ${
    activationStride(k)
  }, .token_group = ${tokenGroup(dialect, k)} };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
  `;
}

/**
 * `unpackedLinear`, which asks the scheme's `unpackSlice(comptime matrix: Matrix, codes: [*]const u8,
 * block: usize, slice: usize, out: *Slice) usize` for a slice's codes and the number of its steps of
 * 16 features.
 *
 * @param sliceFeatures A multiple of 16, so few that no lane of sums overflows.
 */
export function unpackedFunctions(dialect: Dialect, sliceFeatures: number): string {
  if (sliceFeatures > 4 * dialect.partialGroups) {
    throw new RangeError(`Sums of ${sliceFeatures} features overflow their lanes`);
  }
  return zig`
    /// Shape of a matrix and how its input lies: bytes from one token's activations to the next, and
    /// tokens that share an unpacking.
    const Matrix = struct { features: usize, blocks: usize, x_stride: usize, token_group: usize };

    const slice_features = ${sliceFeatures};

    ${dialect.unpackedTile ?? broadcastTile(dialect)}

    /// All tokens: y holds the integer sums of codes * x until they are scaled.
    inline fn unpackedLinear(comptime matrix: Matrix, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        const sums: [*]i32 = @ptrCast(y);
        // Up to the end of the last step activations are zero, whatever the codes are.
        var codes: Slice align(64) = @splat(@splat(@splat(0)));
        var t_0: usize = 0;
        while (t_0 < tokens) : (t_0 += matrix.token_group) {
            const t_1 = @min(t_0 + matrix.token_group, tokens);
            for (blocks[0]..blocks[1]) |block| {
                const row = block * ${BLOCK_ROWS};
                for (0..(matrix.features + slice_features - 1) / slice_features) |slice| {
                    const steps = unpackSlice(matrix, linear.codes, block, slice, &codes);
                    // The first slice finds whatever was in y before. A branch in the tiles would cost more.
                    const keep: i32 = if (slice == 0) 0 else -1;
                    const x_slice = x.codes + slice * slice_features;
                    var t = t_0;
                    ${dialect.unpackedTiles.map(tileLoop)}
                }
                finishBlock(true, linear, x, .{ t_0, t_1 }, row, y, y_stride);
            }
        }
    }
  `;
}

function tileLoop({ m, vectors }: { m: number; vectors: number }): string {
  return `while (t + ${m} <= t_1) : (t += ${m}) unpackedTile(${m}, ${vectors}, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, keep, sums + t * y_stride + row, y_stride);`;
}

function broadcastTile(dialect: Dialect): string {
  return zig`
    /// Codes of a block, [group of four features][register].
    const Slice = [slice_features / 4][${vectorsOf(dialect)}]Codes;

    /// Puts registers v of groups g and g + 1.
    inline fn putCodes(out: *Slice, g: usize, comptime v: usize, even: Codes, odd: Codes) void {
        out[g][v] = even;
        out[g + 1][v] = odd;
    }

    /// Sums of codes * x for a block and m tokens, added to y & keep.
    fn unpackedTile(comptime m: usize, comptime vectors: usize, codes: *const Slice, steps: usize, x: [*]const i8, comptime x_stride: usize, keep: i32, y: [*]i32, y_stride: usize) void {
        inline for (0..block_vectors / vectors) |part| {
            var acc: [m][vectors]Partial = @splat(@splat(@splat(0)));
            inline for (0..m) |t| @prefetch(y + t * y_stride + part * vectors * vector_rows, .{ .rw = .write });
            for (0..steps) |step| {
                inline for (0..4) |i| {
                    inline for (0..m) |t| {
                        const x_t = broadcastFour(x + t * x_stride + step * 16, i);
                        inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[step * 4 + i][part * vectors + v], x_t);
                    }
                }
            }
            inline for (0..m) |t| {
                inline for (0..vectors) |v| {
                    const y_v = y[t * y_stride + (part * vectors + v) * vector_rows ..][0..vector_rows];
                    y_v.* = (@as(Sums, y_v.*) & @as(Sums, @splat(keep))) + widen(acc[t][v]);
                }
            }
        }
    }
  `;
}

/** Sum of a token's activations: what sums of codes 0, 1, 2 for weights -1, 0, +1 have too much. */
export const SUMS: InputBuffer = { name: "sums", type: "i32", elements: 1 };

/** Fills `SUMS`. Padding activations are zero. */
export function sumsOfInputs(k: number): string {
  const lanes = 16;
  return zig`
    const codes = x.codes + t * ${activationStride(k)};
    var sums: math.I = @splat(0);
    for (0..${Math.ceil(k / lanes)}) |i| {
        const some: @Vector(${lanes}, i8) = codes[i * ${lanes} ..][0..${lanes}].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
  `;
}

export function finishFunction(): string {
  return zig`
    /// Scales the sums that y holds for the rows of a block and tokens first .. last: of codes * x, from
    /// which the sum of x is subtracted, or of weights * x.
    inline fn finishBlock(comptime coded: bool, linear: Linear, x: Quantized, tokens: [2]usize, row: usize, y: [*]f32, y_stride: usize) void {
        const sums: [*]const i32 = @ptrCast(y);
        for (tokens[0]..tokens[1]) |t| {
            const offset: math.I = @splat(if (coded) x.sums[t] else 0);
            inline for (0..2) |half| {
                const exact: math.I = sums[t * y_stride + row + half * 16 ..][0..16].*;
                finish(exact - offset, linear, x.inverse[t], row + half * 16, y + t * y_stride);
            }
        }
    }
  `;
}
