import { BLOCK_ROWS, blocksOf } from "../layouts/layout.ts";
import { activationStride } from "../norm_quantize/template.ts";
import type { Groups } from "../model_spec.ts";
import { zig } from "../writer.ts";
import { type Dialect, vectorsOf } from "./dialects.ts";
import { groupCount } from "./groups.ts";
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
 * @param groups Where inputs are rounded by groups, which are then the slices.
 */
export function unpackedFunctions(
  dialect: Dialect,
  sliceFeatures: number,
  groups?: Groups,
): string {
  if (sliceFeatures > 4 * dialect.partialGroups) {
    throw new RangeError(`Sums of ${sliceFeatures} features overflow their lanes`);
  }
  const body = groups === undefined ? exactSlices(dialect) : groupSlices(dialect);
  return zig`
    /// Shape of a matrix and how its input lies: bytes from one token's activations to the next, and
    /// tokens that share an unpacking.
    const Matrix = struct { features: usize, blocks: usize, x_stride: usize, token_group: usize };

    const slice_features = ${sliceFeatures};

    ${[body.out, dialect.unpackedTile ?? broadcastTile(dialect)].join("\n").trim()}

    /// All tokens${body.note}.
    inline fn unpackedLinear(comptime matrix: Matrix, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        const slices = (matrix.features + slice_features - 1) / slice_features;
        // Up to the end of the last step activations are zero, whatever the codes are.
        var codes: Slice align(64) = @splat(@splat(@splat(0)));
        var t_0: usize = 0;
        while (t_0 < tokens) : (t_0 += matrix.token_group) {
            const t_1 = @min(t_0 + matrix.token_group, tokens);
            for (blocks[0]..blocks[1]) |block| {
                const row = block * ${BLOCK_ROWS};
                for (0..slices) |slice| {
                    const steps = unpackSlice(matrix, linear.codes, block, slice, &codes);
                    const x_slice = x.codes + slice * slice_features;
                    var t = t_0;
                    ${body.tiles}
                }
                ${body.finish}
            }
        }
    }
  `;
}

/** What differs where slices are only parts of exact sums, and where they are groups. */
interface SliceBody {
  out: string;
  note: string;
  tiles: readonly string[];
  finish: string;
}

function exactSlices({ unpackedTiles }: Dialect): SliceBody {
  return {
    out: MORE_SUMS,
    note: ": y holds the integer sums of codes * x until they are scaled",
    tiles: unpackedTiles.map((tile) =>
      tileLoop(
        tile,
        "MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 }",
      )
    ),
    finish: "finishBlock(true, linear, x, .{ t_0, t_1 }, row, y, y_stride);",
  };
}

function groupSlices({ unpackedTiles }: Dialect): SliceBody {
  return {
    out: "",
    note: ", a group of features after the other",
    tiles: unpackedTiles.map((tile) =>
      tileLoop(tile, "groupOut(slices, linear, x, t, block, y, y_stride)")
    ),
    finish: "finishRows(linear, .{ t_0, t_1 }, row, y, y_stride);",
  };
}

function tileLoop({ m, vectors }: { m: number; vectors: number }, out: string): string {
  return `while (t + ${m} <= t_1) : (t += ${m}) unpackedTile(${m}, ${vectors}, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, ${out});`;
}

const MORE_SUMS = zig`
  /// Takes exact sums of slices, which add up in y. The first slice finds whatever was in y before: a
  /// branch in the tiles would cost more than \`keep\`, 0 for that and -1 for the others.
  const MoreSums = struct {
      y: [*]i32,
      y_stride: usize,
      keep: i32,

      inline fn start(out: MoreSums, t: usize, _: usize, row: usize) Sums {
          const before: Sums = out.y[t * out.y_stride + row ..][0..vector_rows].*;
          return before & @as(Sums, @splat(out.keep));
      }

      inline fn factorsOf(_: MoreSums, _: usize, _: usize) void {}

      inline fn put(out: MoreSums, t: usize, _: usize, row: usize, sums: Sums, _: void) void {
          out.y[t * out.y_stride + row ..][0..vector_rows].* = sums;
      }
  };
`;

function broadcastTile(dialect: Dialect): string {
  return zig`
    /// Codes of a block, [group of four features][register].
    const Slice = [slice_features / 4][${vectorsOf(dialect)}]Codes;

    /// Puts registers v of groups g and g + 1.
    inline fn putCodes(out: *Slice, g: usize, comptime v: usize, even: Codes, odd: Codes) void {
        out[g][v] = even;
        out[g + 1][v] = odd;
    }

    /// Sums of codes * x of slice g for a block and m tokens.
    fn unpackedTile(comptime m: usize, comptime vectors: usize, codes: *const Slice, steps: usize, x: [*]const i8, comptime x_stride: usize, g: usize, out: anytype) void {
        inline for (0..block_vectors / vectors) |part| {
            var acc: [m][vectors]Partial = @splat(@splat(@splat(0)));
            inline for (0..m) |t| @prefetch(out.y + t * out.y_stride + part * vectors * vector_rows, .{ .rw = .write });
            for (0..steps) |step| {
                inline for (0..4) |i| {
                    inline for (0..m) |t| {
                        const x_t = broadcastFour(x + t * x_stride + step * 16, i);
                        inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[step * 4 + i][part * vectors + v], x_t);
                    }
                }
            }
            inline for (0..vectors) |v| {
                const row = (part * vectors + v) * vector_rows;
                const factors = out.factorsOf(g, row);
                inline for (0..m) |t| out.put(t, g, row, out.start(t, g, row) + widen(acc[t][v]), factors);
            }
        }
    }
  `;
}

/** Sum of a token's activations: what sums of codes 0, 1, 2 for weights -1, 0, +1 have too much. */
export const SUMS: InputBuffer = { name: "sums", type: "i32", elements: 1 };

/** Fills `groupStarts`. Padding activations are zero. */
export function startsOfGroups(groups: Groups, k: number): string {
  const lanes = 16;
  const count = groupCount(groups, k);
  return zig`
    const codes = x.codes + t * ${activationStride(k)};
    for (0..${count}) |g| {
        var sums: math.I = @splat(0);
        const last: usize = @min((g + 1) * ${groups.size / lanes}, ${Math.ceil(k / lanes)});
        for (g * ${groups.size / lanes}..last) |i| {
            const some: @Vector(${lanes}, i8) = codes[i * ${lanes} ..][0..${lanes}].*;
            sums += @as(math.I, some);
        }
        x.starts[t * ${count} + g] = -@reduce(.Add, sums);
    }
  `;
}

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
