/// One ternary matrix: packed weights, the factor of a weight, and a bias of one f32 a row.
const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f64,
    tables: [*]i8,
    sums: [*]i32,
};

/// y = exact * (scale * inverse), rounded once, + bias for 16 rows of a token.
inline fn finish(exact: math.I, linear: Linear, inverse: f64, row: usize, y: [*]f32) void {
    const wide: math.D = @floatFromInt(exact);
    const factor: math.D = @splat(linear.scale * inverse);
    var out: math.F = @floatCast(wide * factor);
    if (linear.bias) |bias| out += math.load(bias + row);
    math.store(y + row, out);
}

const vector_rows = 8;
const block_vectors = 4;
const Sums = @Vector(8, i32);
const Codes = @Vector(32, u8);
const Activations = @Vector(32, i8);

const Partial = @Vector(16, i16);
extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Codes, Activations) callconv(.{ .x86_64_sysv = .{} }) Partial;
extern fn @"llvm.x86.avx2.pmadd.wd"(Partial, Partial) callconv(.{ .x86_64_sysv = .{} }) Sums;

/// Lane l: partial + codes[2l] * x[2l] + codes[2l + 1] * x[2l + 1]: vpmaddubsw, which can't saturate here.
inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
    return partial +% @"llvm.x86.avx2.pmadd.ub.sw"(codes, x);
}

/// Adds neighbouring 16-bit lanes into 32-bit ones.
inline fn widen(partial: Partial) Sums {
    return @"llvm.x86.avx2.pmadd.wd"(partial, @splat(1));
}

/// Activations 4i .. 4i + 3 of 16, for each row.
inline fn broadcastFour(x: [*]const i8, comptime i: usize) Activations {
    const four: i32 = @bitCast(x[4 * i ..][0..4].*);
    return @bitCast(@as(Sums, @splat(four)));
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

/// Shape of a matrix and how its input lies: bytes from one token's activations to the next, and
/// tokens that share an unpacking.
const Matrix = struct { features: usize, blocks: usize, x_stride: usize, token_group: usize };

const slice_features = 240;

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

/// Codes of a block, [group of four features][register].
const Slice = [slice_features / 4][4]Codes;

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

/// All tokens: y holds the integer sums of codes * x until they are scaled.
inline fn unpackedLinear(comptime matrix: Matrix, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    const slices = (matrix.features + slice_features - 1) / slice_features;
    // Up to the end of the last step activations are zero, whatever the codes are.
    var codes: Slice align(64) = @splat(@splat(@splat(0)));
    var t_0: usize = 0;
    while (t_0 < tokens) : (t_0 += matrix.token_group) {
        const t_1 = @min(t_0 + matrix.token_group, tokens);
        for (blocks[0]..blocks[1]) |block| {
            const row = block * 32;
            for (0..slices) |slice| {
                const steps = unpackSlice(matrix, linear.codes, block, slice, &codes);
                const x_slice = x.codes + slice * slice_features;
                var t = t_0;
                while (t + 6 <= t_1) : (t += 6) unpackedTile(6, 2, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 });
                while (t + 2 <= t_1) : (t += 2) unpackedTile(2, 4, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 });
                while (t + 1 <= t_1) : (t += 1) unpackedTile(1, 4, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 });
            }
            finishBlock(true, linear, x, .{ t_0, t_1 }, row, y, y_stride);
        }
    }
}

/// Indices of 32 rows, and values looked up by them.
const Bytes = @Vector(32, u8);
const Signed = @Vector(32, i8);
const Lanes = @Vector(16, i16);

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

/// The i-th index of a group: four bits of each byte.
inline fn indicesOf(words: [*]const u8, comptime i: usize) Bytes {
    const two: Bytes = words[i / 2 * 32 ..][0..32].*;
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
const parts = 1;

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
                    const indices = indicesOf(words + part * 32, i);
                    const sign = signs(words[4 * 32 + part * 32 ..][0..32].*, i);
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
    const groups = (matrix.features + 23) / 24;
    const from = slice * slice_groups;
    const count: usize = @min(slice_groups, groups - from);
    const w = codes + (from * matrix.blocks + block * count) * group_bytes;
    for (0..count) |group| {
        inline for (0..parts) |part| {
            const words = w + group * group_bytes + part * @typeInfo(Bytes).vector.len;
            var features: [24]Bytes = undefined;
            inline for (0..8) |i| {
                const indices = indicesOf(words, i);
                const sign = signs(words[4 * 32 ..][0..@typeInfo(Bytes).vector.len].*, i);
                inline for (0..3) |d| features[3 * i + d] = codesOf(indices, sign, d);
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
    return @min(steps, (count * 24 + 15) / 16);
}

/// From the codes of token t, what linears of 64 features read.
fn prepare_k64(x: Quantized, t: usize) void {
    const codes = x.codes + t * 128;
    var sums: math.I = @splat(0);
    for (0..4) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
    buildTables(3, x.codes + t * 128, x.tables + t * 768);
}

/// Inputs of 64 features, each array in its part of tokens * 1024 bytes.
fn inputIn_k64(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .tables = @ptrCast(@alignCast(memory + tokens * 192)),
        .sums = @ptrCast(@alignCast(memory + tokens * 960)),
    };
}

/// From the codes of token t, what linears of 96 features read.
fn prepare_k96(x: Quantized, t: usize) void {
    const codes = x.codes + t * 160;
    var sums: math.I = @splat(0);
    for (0..6) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
    buildTables(4, x.codes + t * 160, x.tables + t * 1024);
}

/// Inputs of 96 features, each array in its part of tokens * 1344 bytes.
fn inputIn_k96(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 192)),
        .tables = @ptrCast(@alignCast(memory + tokens * 256)),
        .sums = @ptrCast(@alignCast(memory + tokens * 1280)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (96, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_96x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 24) {
        const matrix: Matrix = .{ .features = 64, .blocks = 3, .x_stride = 128, .token_group = 6144 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    lookUpLinear(3, 3, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 96). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_96x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 1024;
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
    if (tokens >= 24) {
        const matrix: Matrix = .{ .features = 96, .blocks = 2, .x_stride = 160, .token_group = 4092 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    lookUpLinear(4, 2, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 96) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x96(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 1344;
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
