import { BLOCK_ROWS } from "../layouts/layout.ts";
import { BYTES_24, INDEX_FEATURES, SHUFFLE24, wordsOf } from "../layouts/lookup.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { AVX2, type Dialect, dialectPrelude, NEON } from "./dialects.ts";
import type { Scheme } from "./scheme.ts";
import {
  callUnpacked,
  finishFunction,
  SUMS,
  sumsOfInputs,
  unpackedFunctions,
  unpackedTokens,
} from "./unpacked.ts";

/** What an instruction set brings to looking up in tables of 16 bytes. */
export interface ShuffleDialect {
  /** Rows of a register of indices. */
  lanes: 16 | 32;
  /** Tokens of tiles that look up, largest first, down to 1. */
  tokenTiles: readonly number[];
  /** Multiplies unpacked codes, for as many tokens as its `unpackFrom`. */
  multiply: Dialect;
  /**
   * Zig: `loadTable([*]const i8) Table`, 16 bytes; `lookUp(Table, Bytes) Signed`;
   * `signs(Bytes, comptime i) Signed` and `addSigned(Signed, Signed, Signed) Signed`, which adds
   * a value with the i-th sign; `addWords([2]Lanes, low: Signed, high: Signed) [2]Lanes`, which adds
   * low + 30 * high; `piece_rows`, the first of the 8 rows that each half of `Lanes` holds. Where
   * codes are unpacked, `byRows` too: registers of four features to those of `multiply`.
   */
  functions: string;
}

/** Groups of 24 features that hold k. */
function groupsOf(k: number): number {
  return wordsOf(BYTES_24, k) / BYTES_24.groupWords;
}

const INDICES = BYTES_24.lookups.length;
/** Bytes of one index's tables: 16 low parts, 16 high parts. */
const TABLE_BYTES = 32;
const GROUP_TABLE_BYTES = INDICES * TABLE_BYTES;

/**
 * Looks sums of three activations up in tables by instructions that pick from 16 bytes (vpshufb,
 * tbl): 1.67 bits a weight, for CPUs without AVX-512.
 *
 * A sum of three is at most 384 in size, too large for a byte. So it is split: sum = 30 * high + low,
 * |low| <= 15, |high| <= 13, each in a table of its own. The eight lookups of a group add up within a
 * byte (120 and 104), and only then are low and high put together: 30 * 104 + 120 = 3,240, of which a
 * slice's ten groups fit in 16 bits. Two lookups, two signs and two additions for 96 weights and 32
 * rows are fewer instructions than multiplying needs, 10.3 in place of 11.3, and read a sixth less.
 */
export function shuffle(dialect: ShuffleDialect): Scheme {
  const { tokenTiles, multiply } = dialect;
  const few = tokenTiles.reduce((sum, m) => sum + m, 0);
  const unpacks = multiply.unpackedTiles.length > 0;
  return {
    name: "shuffle",
    layout: SHUFFLE24,
    provedTokens: [few, ...unpackedTokens(multiply)],
    inputBuffers: (k) => [
      { name: "tables", type: "i8", elements: groupsOf(k) * GROUP_TABLE_BYTES },
      ...(unpacks ? [SUMS] : []),
    ],
    prelude: [
      dialectPrelude(multiply),
      finishFunction(),
      unpacks ? unpackedFunctions(multiply, BYTES_24.sliceGroups * BYTES_24.groupFeatures) : "",
      registerFunctions(dialect),
      tableFunction(),
      lookUpFunctions(dialect),
      unpacks ? unpackFunctions() : "",
    ].filter((text) => text !== "").join("\n"),
    prepare: (k) =>
      zig`
        ${unpacks ? sumsOfInputs(k) : []}
        buildTables(${groupsOf(k)}, x.codes + t * ${activationStride(k)}, x.tables + t * ${
        groupsOf(k) * GROUP_TABLE_BYTES
      });
      `,
    linear: (shape) =>
      zig`
        ${unpacks ? callUnpacked(multiply, shape) : []}
        lookUpLinear(${groupsOf(shape.k)}, ${
        Math.ceil(shape.n / BLOCK_ROWS)
      }, linear, x, tokens, y, y_stride, blocks);
      `,
  };
}

function registerFunctions({ lanes, functions }: ShuffleDialect): string {
  return zig`
    /// Indices of ${lanes} rows, and values looked up by them.
    const Bytes = @Vector(${lanes}, u8);
    const Signed = @Vector(${lanes}, i8);
    const Lanes = @Vector(${lanes / 2}, i16);

    ${functions}

    /// The i-th index of a group: four bits of each byte.
    inline fn indicesOf(words: [*]const u8, comptime i: usize) Bytes {
        const two: Bytes = words[i / 2 * ${BLOCK_ROWS} ..][0..${lanes}].*;
        return if (i % 2 == 0) two & @as(Bytes, @splat(15)) else two >> @splat(4);
    }
  `;
}

function tableFunction(): string {
  return zig`
    /// Lane v: digit d, -1 .. 1, of v in balanced base 3, d = 0 the lowest; v is at most 13.
    fn digitOf(comptime digit: usize) @Vector(16, i16) {
        var digits: [16]i16 = @splat(0);
        for (0..14) |v| digits[v] = @as(i16, @intCast((v + 13) / ([3]usize{ 1, 3, 9 })[digit] % 3)) - 1;
        return digits;
    }

    /// Tables of groups of 24 features: for each index 16 low parts of the sums of its three activations,
    /// then 16 high ones.
    fn buildTables(comptime groups: usize, codes: [*]const i8, tables: [*]i8) void {
        const Sixteen = @Vector(16, i16);
        const digits = comptime [_]Sixteen{ digitOf(0), digitOf(1), digitOf(2) };
        for (0..groups * ${INDICES}) |index| {
            // 30 * 13 + 15 is added, so that rounding down is rounding to the nearest.
            var sums: Sixteen = @splat(405);
            inline for (0..${INDEX_FEATURES}) |d| {
                const x: i16 = codes[index * ${INDEX_FEATURES} + d];
                sums += digits[d] * @as(Sixteen, @splat(x));
            }
            const positive: @Vector(16, u16) = @bitCast(sums);
            const high = positive / @as(@Vector(16, u16), @splat(30));
            const low: Sixteen = @bitCast(positive - high * @as(@Vector(16, u16), @splat(30)));
            const high_signed: Sixteen = @bitCast(high);
            tables[index * ${TABLE_BYTES} ..][0..16].* = @as(@Vector(16, i8), @intCast(low - @as(Sixteen, @splat(15))));
            tables[index * ${TABLE_BYTES} + 16 ..][0..16].* = @as(@Vector(16, i8), @intCast(high_signed - @as(Sixteen, @splat(13))));
        }
    }
  `;
}

/** Blocks between what is read and what is fetched into the second-level cache: 8 KB. */
const AHEAD_BLOCKS = 5;

/** The weights that decode will read then, in this slice or the next. */
const AHEAD = zig`
  const later = block + ${AHEAD_BLOCKS};
  const ahead = if (later < blocks[1]) slice_w + later * count * group_bytes else next_w + (later - blocks[1]) * next_count * group_bytes;
`;

function lookUpFunctions({ lanes, tokenTiles }: ShuffleDialect): string {
  const { sliceGroups, groupWords } = BYTES_24;
  const tiles = tokenTiles.map((m) =>
    zig`
    while (t + ${m} <= tokens) : (t += ${m}) {
        for (blocks[0]..blocks[1]) |block| {
            ${m === 1 ? AHEAD : []}
            lookUpTile(${m}, groups * ${GROUP_TABLE_BYTES}, slice_w + block * count * group_bytes, ${
      m === 1 ? "ahead" : "slice_w"
    }, count, slice_tables + t * groups * ${GROUP_TABLE_BYTES}, keep, sums + t * y_stride + block * ${BLOCK_ROWS}, y_stride);
        }
    }
  `
  );
  return zig`
    const slice_groups = ${sliceGroups};
    const group_bytes = ${groupWords * BLOCK_ROWS};
    const parts = ${BLOCK_ROWS / lanes};

    /// Sums of m tokens for a block over the groups of a slice, added to y & keep.
    fn lookUpTile(comptime m: usize, comptime table_stride: usize, w: [*]const u8, ahead: [*]const u8, count: usize, tables: [*]const i8, keep: i32, y: [*]i32, y_stride: usize) void {
        @setEvalBranchQuota(10_000);
        var acc: [m][parts][2]Lanes = @splat(@splat(@splat(@splat(0))));
        for (0..count) |group| {
            const words = w + group * group_bytes;
            if (m == 1) {
                inline for (0..(group_bytes + 63) / 64) |line| @prefetch(ahead + group * group_bytes + 64 * line, .{ .locality = 2 });
            }
            var low: [m][parts]Signed = @splat(@splat(@splat(0)));
            var high: [m][parts]Signed = @splat(@splat(@splat(0)));
            inline for (0..${INDICES}) |i| {
                inline for (0..m) |t| {
                    const table = tables + t * table_stride + (group * ${INDICES} + i) * ${TABLE_BYTES};
                    const table_low = loadTable(table);
                    const table_high = loadTable(table + 16);
                    inline for (0..parts) |part| {
                        const indices = indicesOf(words + part * ${lanes}, i);
                        const sign = signs(words[4 * ${BLOCK_ROWS} + part * ${lanes} ..][0..${lanes}].*, i);
                        low[t][part] = addSigned(low[t][part], lookUp(table_low, indices), sign);
                        high[t][part] = addSigned(high[t][part], lookUp(table_high, indices), sign);
                    }
                }
            }
            inline for (0..m) |t| {
                inline for (0..parts) |part| acc[t][part] = addWords(acc[t][part], low[t][part], high[t][part]);
            }
        }
        inline for (0..m) |t| {
            const pieces: [4]@Vector(8, i16) = @bitCast(acc[t]);
            inline for (pieces, piece_rows) |piece, row| {
                const sums: @Vector(8, i32) = piece;
                const y_t = y[t * y_stride + row ..][0..8];
                y_t.* = (@as(@Vector(8, i32), y_t.*) & @as(@Vector(8, i32), @splat(keep))) + sums;
            }
        }
    }

    /// All slices, then the scale; y holds the integer sums until then.
    inline fn lookUpLinear(comptime groups: usize, comptime all_blocks: usize, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        const sums: [*]i32 = @ptrCast(y);
        for (0..(groups + slice_groups - 1) / slice_groups) |slice| {
            const from = slice * slice_groups;
            const count: usize = @min(slice_groups, groups - from);
            // The first slice finds whatever was in y before.
            const keep: i32 = if (slice == 0) 0 else -1;
            const slice_w = linear.codes + from * all_blocks * group_bytes;
            // Where this thread's part of the next slice begins.
            const next_count: usize = @min(slice_groups, groups - from - count);
            const next_w = slice_w + (all_blocks * count + blocks[0] * next_count) * group_bytes;
            const slice_tables = x.tables + from * ${GROUP_TABLE_BYTES};
            var t: usize = 0;
            ${tiles}
        }
        for (blocks[0]..blocks[1]) |block| finishBlock(false, linear, x, .{ 0, tokens }, block * ${BLOCK_ROWS}, y, y_stride);
    }
  `;
}

function unpackFunctions(): string {
  return zig`
    /// Codes of feature d of an index, one a row.
    inline fn codesOf(indices: Bytes, sign: Signed, comptime d: usize) Bytes {
        const digits = comptime blk: {
            const digit: @Vector(16, i8) = @intCast(digitOf(d));
            break :blk @as([16]i8, digit);
        };
        return @bitCast(addSigned(@splat(1), lookUp(loadTable(&digits), indices), sign));
    }

    /// Codes of a slice of a block. Returns the number of its steps of 16 features.
    fn unpackSlice(comptime matrix: Matrix, codes: [*]const u8, block: usize, slice: usize, out: *Slice) usize {
        @setEvalBranchQuota(100_000);
        const groups = (matrix.features + ${
    BYTES_24.groupFeatures - 1
  }) / ${BYTES_24.groupFeatures};
        const from = slice * slice_groups;
        const count: usize = @min(slice_groups, groups - from);
        const w = codes + (from * matrix.blocks + block * count) * group_bytes;
        for (0..count) |group| {
            inline for (0..parts) |part| {
                const words = w + group * group_bytes + part * @typeInfo(Bytes).vector.len;
                var features: [${BYTES_24.groupFeatures}]Bytes = undefined;
                inline for (0..${INDICES}) |i| {
                    const indices = indicesOf(words, i);
                    const sign = signs(words[4 * ${BLOCK_ROWS} ..][0..@typeInfo(Bytes).vector.len].*, i);
                    inline for (0..${INDEX_FEATURES}) |d| features[${INDEX_FEATURES} * i + d] = codesOf(indices, sign, d);
                }
                inline for (0..3) |pair| {
                    const even = byRows(features[8 * pair ..][0..4]);
                    const odd = byRows(features[8 * pair + 4 ..][0..4]);
                    inline for (even, odd, 0..) |e, o, v| putCodes(out, group * 6 + 2 * pair, part * even.len + v, e, o);
                }
            }
        }
        // Not past the last step: there may be activations of an earlier input.
        const steps = (matrix.features + 15) / 16 - slice * (slice_features / 16);
        return @min(steps, (count * ${BYTES_24.groupFeatures} + 15) / 16);
    }
  `;
}

/** vpshufb picks within each half of a register, so that both halves hold the table. */
const VPSHUFB_FUNCTIONS = zig`
  const Table = Bytes;
  extern fn @"llvm.x86.avx2.pshuf.b"(Bytes, Bytes) callconv(.{ .x86_64_sysv = .{} }) Bytes;
  extern fn @"llvm.x86.avx2.psign.b"(Signed, Signed) callconv(.{ .x86_64_sysv = .{} }) Signed;

  inline fn loadTable(table: [*]const i8) Table {
      const bytes: @Vector(16, i8) = table[0..16].*;
      const both: Signed = @shuffle(i8, bytes, undefined, [32]i32{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 });
      return @bitCast(both);
  }

  inline fn lookUp(table: Table, indices: Bytes) Signed {
      return @bitCast(@"llvm.x86.avx2.pshuf.b"(table, indices));
  }

  /// Bytes whose signs are the i-th ones, and which are not zero. A shift of 16-bit lanes, as x86 has none
  /// of bytes, moves only lower bits into a byte's own.
  inline fn signs(all: Bytes, comptime i: u4) Signed {
      const words: @Vector(16, u16) = @bitCast(all);
      const shifted: Bytes = @bitCast(words << @splat(i));
      return @bitCast(shifted | @as(Bytes, @splat(1)));
  }

  inline fn addSigned(sum: Signed, value: Signed, sign: Signed) Signed {
      return sum +% @"llvm.x86.avx2.psign.b"(value, sign);
  }

  /// Elements of a and b in turn, of the lower or upper eight bytes of each half.
  inline fn interleave(comptime T: type, a: Bytes, b: Bytes, comptime upper: bool) Bytes {
      const count = 32 / @sizeOf(T);
      comptime var order: [count]i32 = undefined;
      comptime for (0..count) |i| {
          const place = i / (count / 2) * (count / 2) + (if (upper) count / 4 else 0) + i % (count / 2) / 2;
          order[i] = if (i % 2 == 0) place else -1 - @as(i32, place);
      };
      const V = @Vector(count, T);
      return @bitCast(@shuffle(T, @as(V, @bitCast(a)), @as(V, @bitCast(b)), order));
  }

  inline fn addWords(sums: [2]Lanes, low: Signed, high: Signed) [2]Lanes {
      const factors: Codes = @bitCast(@as(@Vector(16, u16), @splat(30 << 8 | 1)));
      var out = sums;
      inline for (0..2) |half| {
          const both = interleave(u8, @bitCast(low), @bitCast(high), half == 1);
          out[half] +%= @"llvm.x86.avx2.pmadd.ub.sw"(factors, @bitCast(both));
      }
      return out;
  }

  const piece_rows = [4]usize{ 0, 16, 8, 24 };

  /// Four features by row: eight rows a register.
  inline fn byRows(features: *const [4]Bytes) [4]Codes {
      var fours: [4]Bytes = undefined;
      inline for (0..2) |half| {
          const first = interleave(u8, features[0], features[1], half == 1);
          const second = interleave(u8, features[2], features[3], half == 1);
          inline for (0..2) |quarter| fours[2 * half + quarter] = interleave(u16, first, second, quarter == 1);
      }
      // Rows 0-3 and 16-19, 4-7 and 20-23, and so on.
      var out: [4]Codes = undefined;
      inline for (0..4) |v| {
          const a: @Vector(4, u64) = @bitCast(fours[v % 2 * 2]);
          const b: @Vector(4, u64) = @bitCast(fours[v % 2 * 2 + 1]);
          out[v] = @bitCast(@shuffle(u64, a, b, if (v < 2) [4]i32{ 0, 1, -1, -2 } else [4]i32{ 2, 3, -3, -4 }));
      }
      return out;
  }
`;

export const VPSHUFB: ShuffleDialect = {
  lanes: 32,
  tokenTiles: [2, 1],
  multiply: { ...AVX2, unpackFrom: 24 },
  functions: VPSHUFB_FUNCTIONS,
};

/** tbl picks for 16 rows; signs are factors -1 and 1, so that mla adds a signed value at once. */
const TBL_FUNCTIONS = zig`
  const Table = Bytes;
  extern fn @"llvm.aarch64.neon.tbl1.v16i8"(Bytes, Bytes) Bytes;

  inline fn loadTable(table: [*]const i8) Table {
      const bytes: Signed = table[0..16].*;
      return @bitCast(bytes);
  }

  inline fn lookUp(table: Table, indices: Bytes) Signed {
      return @bitCast(@"llvm.aarch64.neon.tbl1.v16i8"(table, indices));
  }

  /// -1 or 1 by the i-th sign.
  inline fn signs(all: Bytes, comptime i: u3) Signed {
      const shifted: Signed = @bitCast(all << @splat(i));
      return (shifted >> @splat(7)) | @as(Signed, @splat(1));
  }

  inline fn addSigned(sum: Signed, value: Signed, sign: Signed) Signed {
      return sum +% value *% sign;
  }

  inline fn addWords(sums: [2]Lanes, low: Signed, high: Signed) [2]Lanes {
      const low_halves: [2]@Vector(8, i8) = @bitCast(low);
      const high_halves: [2]@Vector(8, i8) = @bitCast(high);
      var out = sums;
      inline for (0..2) |half| out[half] += @as(Lanes, low_halves[half]) + @as(Lanes, high_halves[half]) * @as(Lanes, @splat(30));
      return out;
  }

  const piece_rows = [4]usize{ 0, 8, 16, 24 };
`;

export const TBL: ShuffleDialect = {
  lanes: 16,
  tokenTiles: [2, 1],
  // By count of instructions, unpacking gains nothing: 13.9 for 64 products, looking up 13.0.
  multiply: { ...NEON, unpackedTiles: [], unpackFrom: Infinity },
  functions: TBL_FUNCTIONS,
};
