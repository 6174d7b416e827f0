/// One ternary matrix: packed weights, the factor of a weight, and a bias of one f32 a row.
const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f64,
    tables: [*]i8,
};

/// y = exact * (scale * inverse), rounded once, + bias for 16 rows of a token.
inline fn finish(exact: math.I, linear: Linear, inverse: f64, row: usize, y: [*]f32) void {
    const wide: math.D = @floatFromInt(exact);
    const factor: math.D = @splat(linear.scale * inverse);
    var out: math.F = @floatCast(wide * factor);
    if (linear.bias) |bias| out += math.load(bias + row);
    math.store(y + row, out);
}

const vector_rows = 4;
const block_vectors = 8;
const Sums = @Vector(4, i32);
const Codes = @Vector(16, u8);
const Activations = @Vector(16, i8);

const Partial = @Vector(16, i16);

/// Lane l: partial + codes[l] * x[l], exact in 16 bits.
inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
    const signed: Activations = @bitCast(codes);
    return partial +% @as(Partial, signed) * @as(Partial, x);
}

/// Lane r: the sum of products 4r .. 4r + 3, in 32 bits.
inline fn widen(partial: Partial) Sums {
    const wide: @Vector(16, i32) = partial;
    var sums: Sums = @splat(0);
    inline for (0..4) |j| sums += @shuffle(i32, wide, undefined, [4]i32{ j, 4 + j, 8 + j, 12 + j });
    return sums;
}

/// Activations 4i .. 4i + 3 of 16, for each row.
inline fn broadcastFour(x: [*]const i8, comptime i: usize) Activations {
    const all: @Vector(16, i8) = x[0..16].*;
    const fours: Sums = @bitCast(all);
    return @bitCast(@as(Sums, @shuffle(i32, fours, undefined, [4]i32{ i, i, i, i })));
}

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

/// Indices of 16 rows, and values looked up by them.
const Bytes = @Vector(16, u8);
const Signed = @Vector(16, i8);
const Lanes = @Vector(8, i16);

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

/// The i-th index of a group: four bits of each byte.
inline fn indicesOf(words: [*]const u8, comptime i: usize) Bytes {
    const two: Bytes = words[i / 2 * 32 ..][0..16].*;
    return if (i % 2 == 0) two & @as(Bytes, @splat(15)) else two >> @splat(4);
}

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
    for (0..groups * 8) |index| {
        // 30 * 13 + 15 is added, so that rounding down is rounding to the nearest.
        var sums: Sixteen = @splat(405);
        inline for (0..3) |d| {
            const x: i16 = codes[index * 3 + d];
            sums += digits[d] * @as(Sixteen, @splat(x));
        }
        const positive: @Vector(16, u16) = @bitCast(sums);
        const high = positive / @as(@Vector(16, u16), @splat(30));
        const low: Sixteen = @bitCast(positive - high * @as(@Vector(16, u16), @splat(30)));
        const high_signed: Sixteen = @bitCast(high);
        tables[index * 32 ..][0..16].* = @as(@Vector(16, i8), @intCast(low - @as(Sixteen, @splat(15))));
        tables[index * 32 + 16 ..][0..16].* = @as(@Vector(16, i8), @intCast(high_signed - @as(Sixteen, @splat(13))));
    }
}

const slice_groups = 10;
const group_bytes = 160;
const parts = 2;

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
        inline for (0..8) |i| {
            inline for (0..m) |t| {
                const table = tables + t * table_stride + (group * 8 + i) * 32;
                const table_low = loadTable(table);
                const table_high = loadTable(table + 16);
                inline for (0..parts) |part| {
                    const indices = indicesOf(words + part * 16, i);
                    const sign = signs(words[4 * 32 + part * 16 ..][0..16].*, i);
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
        const slice_tables = x.tables + from * 256;
        var t: usize = 0;
        while (t + 2 <= tokens) : (t += 2) {
            for (blocks[0]..blocks[1]) |block| {
                lookUpTile(2, groups * 256, slice_w + block * count * group_bytes, slice_w, count, slice_tables + t * groups * 256, keep, sums + t * y_stride + block * 32, y_stride);
            }
        }
        while (t + 1 <= tokens) : (t += 1) {
            for (blocks[0]..blocks[1]) |block| {
                const later = block + 5;
                const ahead = if (later < blocks[1]) slice_w + later * count * group_bytes else next_w + (later - blocks[1]) * next_count * group_bytes;
                lookUpTile(1, groups * 256, slice_w + block * count * group_bytes, ahead, count, slice_tables + t * groups * 256, keep, sums + t * y_stride + block * 32, y_stride);
            }
        }
    }
    for (blocks[0]..blocks[1]) |block| finishBlock(false, linear, x, .{ 0, tokens }, block * 32, y, y_stride);
}

/// From the codes of token t, what linears of 64 features read.
fn prepare_k64(x: Quantized, t: usize) void {
    buildTables(3, x.codes + t * 128, x.tables + t * 768);
}

/// Inputs of 64 features, each array in its part of tokens * 960 bytes.
fn inputIn_k64(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .tables = @ptrCast(@alignCast(memory + tokens * 192)),
    };
}

/// From the codes of token t, what linears of 96 features read.
fn prepare_k96(x: Quantized, t: usize) void {
    buildTables(4, x.codes + t * 160, x.tables + t * 1024);
}

/// Inputs of 96 features, each array in its part of tokens * 1280 bytes.
fn inputIn_k96(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 192)),
        .tables = @ptrCast(@alignCast(memory + tokens * 256)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (96, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_96x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    lookUpLinear(3, 3, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 96). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_96x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 960;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k64(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 128 ..][0..64], 0);
        @memcpy(x.codes[t * 128 ..][0..64], codes[t * 64 ..][0..64]);
        x.inverse[t] = 1;
        prepare_k64(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_96x64(plain, x, count, y, 96, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (64, 96) ternary. x: (tokens, 96) int8. y: (tokens, y_stride).
fn linear_64x96(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    lookUpLinear(4, 2, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 96) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x96(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 1280;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k96(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 160 ..][0..96], 0);
        @memcpy(x.codes[t * 160 ..][0..96], codes[t * 96 ..][0..96]);
        x.inverse[t] = 1;
        prepare_k96(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_64x96(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}
