import { BLOCK_ROWS, blocksOf, type TernaryLayout } from "../layouts/layout.ts";
import {
  INDEX_FEATURES,
  LOOKUP10,
  LOOKUP48,
  LOOKUP9,
  sliceWords,
  UNIT_BLOCKS,
  type WordCode,
  WORDS_10,
  WORDS_48,
  WORDS_9,
  wordsOf,
} from "../layouts/lookup.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import type { Scheme } from "./scheme.ts";

/** 16-bit lanes of a table, of which the 27 sums of three activations take the first. */
const TABLE_LANES = 32;

/**
 * Tokens whose slices are done before the next slice: their sums (64 tokens of 2,560 rows take
 * 655 kB) and a slice's weights (2,560 rows: 143 kB) stay in the second-level cache.
 */
const TOKEN_GROUP = 32;

/** Registers of AVX-512. */
const REGISTERS = 32;

/** A word code, and how a kernel takes the indices of a group out of its words. */
export interface LookupCode {
  layout: TernaryLayout;
  words: WordCode;
  /**
   * Zig that looks up all indices of a group: reads words with `take(j)`, j < groupWords, and adds
   * with `add(i, indices)`, where i counts `words.lookups`.
   */
  group: string;
  /** Vectors a block that `group` holds at once, beside the sums. */
  vectors: number;
}

/** `vpermw` reads the five lower bits of an index only, so that nothing has to be masked. */
const SHIFT_FIVE = "inline for (&indices) |*index| index.* >>= @splat(5);";

export const LOOKUP_9: LookupCode = {
  layout: LOOKUP9,
  words: WORDS_9,
  vectors: 1,
  group: zig`
    var indices = take(width, w, w_stride, 0);
    add(m, width, acc, tables, table_stride, 0, indices);
    ${SHIFT_FIVE}
    add(m, width, acc, tables, table_stride, 1, indices);
    ${SHIFT_FIVE}
    add(m, width, acc, tables, table_stride, 2, indices);
  `,
};

export const LOOKUP_48: LookupCode = {
  layout: LOOKUP48,
  words: WORDS_48,
  vectors: 2,
  group: zig`
    // Bits 15 of the words, of which the sixteenth index is made: in bits 5 to 9, as there they come by.
    var bits: [width]Indices = @splat(@splat(0));
    inline for (0..5) |j| {
        var indices = take(width, w, w_stride, j);
        add(m, width, acc, tables, table_stride, 3 * j, indices);
        ${SHIFT_FIVE}
        add(m, width, acc, tables, table_stride, 3 * j + 1, indices);
        ${SHIFT_FIVE}
        add(m, width, acc, tables, table_stride, 3 * j + 2, indices);
        inline for (0..width) |b| bits[b] = withBit(bits[b] +% bits[b], indices[b]);
    }
    inline for (&bits) |*last| last.* >>= @splat(5);
    add(m, width, acc, tables, table_stride, 15, bits);
  `,
};

export const LOOKUP_10: LookupCode = {
  layout: LOOKUP10,
  words: WORDS_10,
  vectors: 2,
  group: zig`
    // What lies above the point after a multiplication is an index, what lies below has the others.
    var fraction = take(width, w, w_stride, 0);
    inline for (0..4) |j| {
        const base: Indices = @splat(if (j < 3) 27 else 3);
        var indices: [width]Indices = undefined;
        inline for (0..width) |b| {
            indices[b] = @"llvm.x86.avx512.pmulhu.w.512"(fraction[b], base);
            if (j < 3) fraction[b] *%= base;
        }
        add(m, width, acc, tables, table_stride, j, indices);
    }
  `,
};

/**
 * Looks sums of three activations up in tables by AVX-512's vpermw, 32 rows at once: 1.6 to 1.78
 * bits a weight and no multiplication by activations. Tables are made once for each quantised input:
 * 64 bytes for three features, in 1.4 ns each on Emerald Rapids (1.2 us for 2,560 features, 1 % of a
 * decoded token).
 *
 * @param tokenTiles Tokens that share a vector of indices, largest first.
 * @param prefetch Whether decode fetches the next tile's weights ahead, as several tokens always do.
 */
export function lookup(
  code: LookupCode,
  tokenTiles: readonly number[],
  prefetch: boolean,
): Scheme {
  for (const m of tokenTiles) checkRegisters(code, m);
  const { words, layout } = code;
  return {
    name: prefetch ? `${words.name}-prefetch` : words.name,
    layout,
    // The sum of all tiles is split into one of each.
    provedTokens: [tokenTiles.reduce((sum, m) => sum + m, 0)],
    inputBuffers: (k) => [
      { name: "tables", type: "i16", elements: tablesOf(words, k) * TABLE_LANES },
    ],
    prelude: [tableFunctions(words), sliceFunctions(code, tokenTiles, prefetch)].join("\n"),
    prepare: (k) =>
      `buildTables(${groupsOf(words, k)}, x.codes + t * ${activationStride(k)}, x.tables + t * ${
        tablesOf(words, k) * TABLE_LANES
      });`,
    linear: ({ n, k }) =>
      zig`
        lookUpLinear(.{ .words = ${wordsOf(words, k)}, .blocks = ${
        blocksOf(n)
      } }, linear, x, tokens, y, y_stride, blocks);
      `,
  };
}

/** A tile holds its sums, the vectors of its blocks, a table and a temporary. */
function checkRegisters({ vectors, words }: LookupCode, m: number): void {
  const used = (m + vectors) * UNIT_BLOCKS + 2;
  if (used <= REGISTERS) return;
  throw new RangeError(
    `Cannot make ${words.name} tiles of ${m} tokens as they need ${used} registers: there are ${REGISTERS}`,
  );
}

function groupsOf(words: WordCode, k: number): number {
  return wordsOf(words, k) / words.groupWords;
}

/** Tables of one token; those past the last feature are read with zero weights only. */
function tablesOf(words: WordCode, k: number): number {
  return groupsOf(words, k) * words.lookups.length;
}

/**
 * Tables by vpdpbusd, which multiplies unsigned bytes by signed ones: x + 128 by the digits -1, 0, 1,
 * starting from -128 times the digits' sum. Two halves of 16 lanes are packed into 32 of 16 bits.
 */
function tableFunctions({ groupFeatures, lookups }: WordCode): string {
  return zig`
    const Indices = @Vector(${TABLE_LANES}, u16);
    const Lanes = @Vector(${TABLE_LANES}, i16);
    const Bytes = @Vector(64, i8);
    extern fn @"llvm.x86.avx512.vpdpbusd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
    extern fn @"llvm.x86.avx512.vpdpwssd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
    extern fn @"llvm.x86.avx512.packssdw.512"(math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) Lanes;
    extern fn @"llvm.x86.avx512.pmulhu.w.512"(Indices, Indices) callconv(.{ .x86_64_sysv = .{} }) Indices;

    /// The weights that a table's lane names: digits in base 3, digit 0, 1, 2 for weight -1, 0, +1.
    fn weightOf(lane: usize, digit: usize, comptime trits: usize) i8 {
        const place = [3]usize{ 1, 3, 9 };
        return if (lane < 27 and digit < trits) @as(i8, @intCast(lane / place[digit] % 3)) - 1 else 0;
    }

    /// vpackssdw takes four lanes of one half, then four of the other: lane l of a half is this one.
    fn tableLane(l: usize, half: usize) usize {
        return l / 4 * 8 + half * 4 + l % 4;
    }

    fn weightsOf(half: usize, comptime trits: usize) Bytes {
        var weights: [64]i8 = @splat(0);
        for (0..16) |l| {
            for (0..${INDEX_FEATURES}) |digit| weights[4 * l + digit] = weightOf(tableLane(l, half), digit, trits);
        }
        return weights;
    }

    fn startOf(half: usize, comptime trits: usize) math.I {
        var start: [16]i32 = @splat(0);
        for (0..16) |l| {
            for (0..${INDEX_FEATURES}) |digit| start[l] -= 128 * @as(i32, weightOf(tableLane(l, half), digit, trits));
        }
        return start;
    }

    /// First feature in its group of each table, and the group's end.
    const table_features = [_]usize{ ${[...lookups, groupFeatures].join(", ")} };
    const group_tables = ${lookups.length};

    /// A group's table j, lane v: the sum of the activations of its features times the weights that v names.
    fn buildTables(comptime groups: usize, codes: [*]const i8, tables: [*]i16) void {
        @setEvalBranchQuota(100_000);
        for (0..groups) |group| {
            inline for (0..group_tables) |j| {
                const trits = table_features[j + 1] - table_features[j];
                const weights = comptime [2]math.I{ @bitCast(weightsOf(0, trits)), @bitCast(weightsOf(1, trits)) };
                const starts = comptime [2]math.I{ startOf(0, trits), startOf(1, trits) };
                const four: i32 = @bitCast(codes[group * ${groupFeatures} + table_features[j] ..][0..4].*);
                const shifted = @as(math.I, @splat(four)) ^ @as(math.I, @bitCast(@as(Bytes, @splat(-128))));
                const low = @"llvm.x86.avx512.vpdpbusd.512"(starts[0], shifted, weights[0]);
                const high = @"llvm.x86.avx512.vpdpbusd.512"(starts[1], shifted, weights[1]);
                tables[(group * group_tables + j) * ${TABLE_LANES} ..][0..${TABLE_LANES}].* = @"llvm.x86.avx512.packssdw.512"(low, high);
            }
        }
    }
  `;
}

function sliceFunctions(
  { words, group }: LookupCode,
  tokenTiles: readonly number[],
  prefetch: boolean,
): string {
  const tiles = tokenTiles.map((m) =>
    `while (t + ${m} <= t_1) : (t += ${m}) lookUpSlice(${m}, grid, slice, w, t == t_0, tables, t, sums, y_stride, blocks);`
  );
  return zig`
    const group_words = ${words.groupWords};
    const slice_words = ${sliceWords(words)};

    /// A matrix in 16-bit words and blocks of 32 rows.
    const Grid = struct { words: usize, blocks: usize };

    /// Packed weights, wherever the caller has them: unaligned loads cost nothing when they are aligned.
    const Words = [*]align(1) const Indices;

    /// vpermw: lane r is the table's lane that index r names by its five lower bits.
    inline fn lookUp(table: Indices, indices: Indices) Lanes {
        return asm volatile ("vpermw %[table], %[indices], %[found]"
            : [found] "=v" (-> Lanes),
            : [table] "v" (table),
              [indices] "v" (indices),
        );
    }

    inline fn addTo(acc: Lanes, found: Lanes) Lanes {
        return asm volatile ("vpaddw %[found], %[acc], %[sum]"
            : [sum] "=v" (-> Lanes),
            : [acc] "0" (acc),
              [found] "v" (found),
        );
    }

    /// bits | indices & 32, now: the compiler would put it off until all words of a group are at hand.
    inline fn withBit(bits: Indices, indices: Indices) Indices {
        return asm volatile ("vpternlogd $0xf8, %[mask], %[indices], %[all]"
            : [all] "=v" (-> Indices),
            : [bits] "0" (bits),
              [indices] "v" (indices),
              [mask] "v" (@as(Indices, @splat(32))),
        );
    }

    /// Word j of a group, for each block.
    inline fn take(comptime width: usize, w: Words, w_stride: usize, comptime j: usize) [width]Indices {
        var indices: [width]Indices = undefined;
        inline for (0..width) |b| indices[b] = w[j * w_stride + b];
        return indices;
    }

    /// Adds what table i of a group holds at the indices, for each token and block: first all blocks'
    /// lookups, then their sums. Volatile assembly keeps this order. The compiler's own needs more registers
    /// than there are (207 G MAC/s of four tokens), and a sum straight after its lookup makes Zen 4 hold up
    /// the lookups, which only half of its pipes can do (228; in this order 250).
    inline fn add(comptime m: usize, comptime width: usize, acc: *[m][width]Lanes, tables: [*]const Indices, table_stride: usize, comptime i: usize, indices: [width]Indices) void {
        inline for (0..m) |t| {
            const table = tables[t * table_stride + i];
            var found: [width]Lanes = undefined;
            inline for (0..width) |b| found[b] = lookUp(table, indices[b]);
            inline for (0..width) |b| acc[t][b] = addTo(acc[t][b], found[b]);
        }
    }

    /// Looks up all indices of a group of ${words.groupWords} word(s).
    inline fn lookUpGroup(comptime m: usize, comptime width: usize, acc: *[m][width]Lanes, w: Words, w_stride: usize, tables: [*]const Indices, table_stride: usize) void {
        ${group}
    }

    /// Sums of m tokens for width blocks over the words of a slice. Words of a block are w_stride vectors
    /// apart. In int16, which a slice can't overflow; added to y, or stored if the slice is the first.
    /// The weights at \`ahead\` are fetched meanwhile.
    inline fn lookUpTile(comptime m: usize, comptime width: usize, table_stride: usize, w: Words, w_stride: usize, ahead: ?Words, count: usize, tables: [*]const Indices, first: bool, y: [*]i32, y_stride: usize) void {
        var acc: [m][width]Lanes = @splat(@splat(@splat(0)));
        var word: usize = 0;
        while (word < count) : (word += group_words) {
            if (ahead) |next| {
                inline for (0..group_words * width) |i| @prefetch(next + (word + i / width) * w_stride + i % width, .{ .locality = 2 });
            }
            lookUpGroup(m, width, &acc, w + word * w_stride, w_stride, tables + word / group_words * group_tables, table_stride);
        }
        inline for (0..m) |t| {
            inline for (0..width) |b| addLanes(acc[t][b], first, y + t * y_stride + b * ${BLOCK_ROWS});
        }
    }

    /// A pair of lanes that is multiplied by the one or the other gives its even or its odd lane.
    const even: math.I = @splat(1);
    const odd: math.I = @splat(1 << 16);

    /// Adds a block's sums: its first 16 rows are in even lanes, the others in odd ones.
    inline fn addLanes(lanes: Lanes, first: bool, y: [*]i32) void {
        inline for (.{ even, odd }, 0..) |ones, half| {
            const y_half = y[half * 16 ..][0..16];
            const before: math.I = if (first) @splat(0) else y_half.*;
            y_half.* = @"llvm.x86.avx512.vpdpwssd.512"(before, @bitCast(lanes), ones);
        }
    }

    /// One slice of m tokens from t on, for blocks first .. last: whole units at once, else single blocks.
    /// Fresh weights, which no tokens before have read, come from memory. The hardware sees them coming in
    /// decode; where several tokens make each line last, it loses its thread, and they are fetched ahead.
    fn lookUpSlice(comptime m: usize, grid: Grid, slice: usize, w: Words, fresh: bool, tables: [*]const Indices, t: usize, y: [*]i32, y_stride: usize, blocks: [2]usize) void {
        @setEvalBranchQuota(100_000);
        const table_stride = grid.words / group_words * group_tables;
        const from = slice * slice_words;
        // A usize by name, as the type of @min with a constant is only as wide as the constant.
        const count: usize = @min(slice_words, grid.words - from);
        const tables_t = tables + t * table_stride + from / group_words * group_tables;
        const slice_w = w + from * grid.blocks;
        // Where this thread's part of the next slice begins.
        const next_count: usize = @min(grid.words - from - count, slice_words);
        const next_w = slice_w + grid.blocks * count + blocks[0] * next_count;
        var block = blocks[0];
        while (block < blocks[1]) {
            const unit = block - block % ${UNIT_BLOCKS};
            const width: usize = @min(${UNIT_BLOCKS}, grid.blocks - unit);
            const whole = block == unit and unit + ${UNIT_BLOCKS} <= blocks[1];
            const unit_w = slice_w + unit * count + (block - unit);
            const step: usize = if (whole) ${UNIT_BLOCKS} else 1;
            const next = if (block + step < blocks[1]) unit_w + step * count else next_w;
            const ahead: ?Words = if (${prefetch ? "" : "m > 1 and "}fresh) next else null;
            const y_t = y + t * y_stride + block * ${BLOCK_ROWS};
            if (whole) {
                lookUpTile(m, ${UNIT_BLOCKS}, table_stride, unit_w, ${UNIT_BLOCKS}, ahead, count, tables_t, slice == 0, y_t, y_stride);
            } else {
                lookUpTile(m, 1, table_stride, unit_w, width, ahead, count, tables_t, slice == 0, y_t, y_stride);
            }
            block += step;
        }
    }

    /// All slices, then the scale; y holds the integer sums until then.
    inline fn lookUpLinear(grid: Grid, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        const w: Words = @ptrCast(@alignCast(linear.codes));
        const tables: [*]const Indices = @ptrCast(@alignCast(x.tables));
        const sums: [*]i32 = @ptrCast(y);
        var t_0: usize = 0;
        while (t_0 < tokens) : (t_0 += ${TOKEN_GROUP}) {
            const t_1 = @min(t_0 + ${TOKEN_GROUP}, tokens);
            for (0..(grid.words + slice_words - 1) / slice_words) |slice| {
                var t = t_0;
                ${tiles}
            }
            for (t_0..t_1) |t| {
                for (blocks[0] * 2..blocks[1] * 2) |half| {
                    const exact: math.I = sums[t * y_stride + half * 16 ..][0..16].*;
                    finish(exact, linear, x.inverse[t], half * 16, y + t * y_stride);
                }
            }
        }
    }
  `;
}
