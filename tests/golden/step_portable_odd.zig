//! Trilith: one decoder step of a ternary model for portable-multiply. Generated from codegen/step/template.ts;
//! do not edit. 2 layers, hidden 100, 3/1 heads of 10, intermediate 140, vocabulary 50.
const std = @import("std");
const math = @import("math.zig");
const host = @import("host.zig");
const Team = @import("team.zig").Team;
const Stopwatch = @import("profile.zig").Stopwatch(38);

comptime {
    _ = host;
}

/// One ternary matrix: packed weights, the factor of a weight, and a bias of one f32 a row.
const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f64,
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

/// Takes exact sums of all features, which are scaled afterwards.
const FirstSums = struct {
    y: [*]i32,
    y_stride: usize,

    inline fn start(_: FirstSums, _: usize, _: usize, _: usize) Sums {
        return @splat(0);
    }

    inline fn factorsOf(_: FirstSums, _: usize, _: usize) void {}

    inline fn put(out: FirstSums, t: usize, _: usize, row: usize, sums: Sums, _: void) void {
        out.y[t * out.y_stride + row ..][0..vector_rows].* = sums;
    }
};

/// The codes in bits 2i, 2i + 1 of every byte.
inline fn plane(packed_codes: Codes, comptime i: u4) Codes {
    const Words = @Vector(@typeInfo(Codes).vector.len / 2, u16);
    const words: Words = @bitCast(packed_codes);
    const shifted: Codes = @bitCast(words >> @splat(2 * i));
    return shifted & @as(Codes, @splat(3));
}

/// Steps of 16 features whose exact sums are put out together: all of a row.
const group_steps = 1 << 30;

/// Sums of code * x for a block of 32 rows and m tokens. A code is 0, 1 or 2 for weight -1, 0, +1, so
/// that they are larger than those of weights by the sum of x.
fn packedTile(comptime m: usize, comptime vectors: usize, comptime steps: usize, comptime x_stride: usize, w: [*]const u8, fresh: bool, x: [*]const i8, out: anytype) void {
    const partial_steps = @min(32, group_steps, steps);
    inline for (0..block_vectors / vectors) |part| {
        var g: usize = 0;
        while (g * group_steps < steps) : (g += 1) {
            const last: usize = @min((g + 1) * group_steps, steps);
            var sums: [m][vectors]Sums = undefined;
            inline for (0..m) |t| {
                inline for (0..vectors) |v| sums[t][v] = out.start(t, g, (part * vectors + v) * vector_rows);
            }
            var first = g * group_steps;
            while (first < last) : (first += partial_steps) {
                // Partial sums that need no widening go on where the sums are.
                var acc: [m][vectors]Partial = if (Partial == Sums) sums else @splat(@splat(@splat(0)));
                for (first..@min(first + partial_steps, last)) |step| {
                    const from = w + step * 128 + part * vectors * vector_rows * 4;
                    if (fresh) {
                        inline for (0..(vectors * vector_rows * 4 + 63) / 64) |line| @prefetch(from + 8192 + 64 * line, .{ .locality = 2 });
                    }
                    inline for (0..4) |i| {
                        var codes: [vectors]Codes = undefined;
                        inline for (0..vectors) |v| codes[v] = plane(from[v * vector_rows * 4 ..][0 .. vector_rows * 4].*, i);
                        inline for (0..m) |t| {
                            const x_t = broadcastFour(x + t * x_stride + step * 16, i);
                            inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[v], x_t);
                        }
                    }
                }
                inline for (0..m) |t| {
                    inline for (0..vectors) |v| sums[t][v] = if (Partial == Sums) acc[t][v] else sums[t][v] + widen(acc[t][v]);
                }
            }
            inline for (0..vectors) |v| {
                const row = (part * vectors + v) * vector_rows;
                const factors = out.factorsOf(g, row);
                inline for (0..m) |t| out.put(t, g, row, sums[t][v], factors);
            }
        }
    }
}

/// Shape of a matrix and how its input lies: bytes from one token's activations to the next, and
/// tokens that share an unpacking.
const Matrix = struct { features: usize, blocks: usize, x_stride: usize, token_group: usize };

const slice_features = 512;

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
const Slice = [slice_features / 4][8]Codes;

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
                while (t + 4 <= t_1) : (t += 4) unpackedTile(4, 2, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 });
                while (t + 1 <= t_1) : (t += 1) unpackedTile(1, 4, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, MoreSums{ .y = @as([*]i32, @ptrCast(y)) + t * y_stride + row, .y_stride = y_stride, .keep = if (slice == 0) 0 else -1 });
            }
            finishBlock(true, linear, x, .{ t_0, t_1 }, row, y, y_stride);
        }
    }
}

/// Codes of a slice of a block. Returns the number of its steps of 16 features.
fn unpackSlice(comptime matrix: Matrix, codes: [*]const u8, block: usize, slice: usize, out: *Slice) usize {
    const slice_steps = slice_features / 16;
    const steps = (matrix.features + 15) / 16;
    const first = slice * slice_steps;
    const from = codes + (block * steps + first) * 128;
    const count: usize = @min(slice_steps, steps - first);
    for (0..count) |step| {
        inline for (0..2) |line| @prefetch(from + step * 128 + 8192 + 64 * line, .{ .locality = 2 });
        inline for (0..block_vectors) |v| {
            const all: Codes = from[step * 128 + v * vector_rows * 4 ..][0 .. vector_rows * 4].*;
            putCodes(out, step * 4, v, plane(all, 0), plane(all, 1));
            putCodes(out, step * 4 + 2, v, plane(all, 2), plane(all, 3));
        }
    }
    return count;
}

/// From the codes of token t, what linears of 100 features read.
fn prepare_k100(x: Quantized, t: usize) void {
    const codes = x.codes + t * 176;
    var sums: math.I = @splat(0);
    for (0..7) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 100 features, each array in its part of tokens * 320 bytes.
fn inputIn_k100(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 192)),
        .sums = @ptrCast(@alignCast(memory + tokens * 256)),
    };
}

/// From the codes of token t, what linears of 30 features read.
fn prepare_k30(x: Quantized, t: usize) void {
    const codes = x.codes + t * 96;
    var sums: math.I = @splat(0);
    for (0..2) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 30 features, each array in its part of tokens * 256 bytes.
fn inputIn_k30(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .sums = @ptrCast(@alignCast(memory + tokens * 192)),
    };
}

/// From the codes of token t, what linears of 140 features read.
fn prepare_k140(x: Quantized, t: usize) void {
    const codes = x.codes + t * 208;
    var sums: math.I = @splat(0);
    for (0..9) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 140 features, each array in its part of tokens * 384 bytes.
fn inputIn_k140(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 256)),
        .sums = @ptrCast(@alignCast(memory + tokens * 320)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (30, 100) ternary. x: (tokens, 100) int8. y: (tokens, y_stride).
fn linear_30x100(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 100, .blocks = 1, .x_stride = 176, .token_group = 3932 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 896;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 100) int8. y: (tokens, 32). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_30x100(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 320;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k100(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 176 ..][0..112], 0);
        @memcpy(x.codes[t * 176 ..][0..100], codes[t * 100 ..][0..100]);
        x.inverse[t] = 1;
        prepare_k100(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_30x100(plain, x, count, y, 32, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (10, 100) ternary. x: (tokens, 100) int8. y: (tokens, y_stride).
fn linear_10x100(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 100, .blocks = 1, .x_stride = 176, .token_group = 3932 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 896;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 100) int8. y: (tokens, 32). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_10x100(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 320;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k100(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 176 ..][0..112], 0);
        @memcpy(x.codes[t * 176 ..][0..100], codes[t * 100 ..][0..100]);
        x.inverse[t] = 1;
        prepare_k100(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_10x100(plain, x, count, y, 32, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (100, 30) ternary. x: (tokens, 30) int8. y: (tokens, y_stride).
fn linear_100x30(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 30, .blocks = 4, .x_stride = 96, .token_group = 13104 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 256;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 2, 96, w, t == 0, x.codes + t * 96, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 2, 96, w, t == 0, x.codes + t * 96, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 30) int8. y: (tokens, 128). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_100x30(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k30(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 96 ..][0..32], 0);
        @memcpy(x.codes[t * 96 ..][0..30], codes[t * 30 ..][0..30]);
        x.inverse[t] = 1;
        prepare_k30(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_100x30(plain, x, count, y, 128, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (140, 100) ternary. x: (tokens, 100) int8. y: (tokens, y_stride).
fn linear_140x100(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 100, .blocks = 5, .x_stride = 176, .token_group = 3932 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 896;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 7, 176, w, t == 0, x.codes + t * 176, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 100) int8. y: (tokens, 160). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_140x100(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 320;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k100(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 176 ..][0..112], 0);
        @memcpy(x.codes[t * 176 ..][0..100], codes[t * 100 ..][0..100]);
        x.inverse[t] = 1;
        prepare_k100(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_140x100(plain, x, count, y, 160, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (100, 140) ternary. x: (tokens, 140) int8. y: (tokens, y_stride).
fn linear_100x140(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 140, .blocks = 4, .x_stride = 208, .token_group = 2808 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 1152;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 9, 208, w, t == 0, x.codes + t * 208, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 9, 208, w, t == 0, x.codes + t * 208, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 140) int8. y: (tokens, 128). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_100x140(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 384;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k140(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 208 ..][0..144], 0);
        @memcpy(x.codes[t * 208 ..][0..140], codes[t * 140 ..][0..140]);
        x.inverse[t] = 1;
        prepare_k140(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_100x140(plain, x, count, y, 128, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// out = x / sqrt(mean(x^2) + 0.00001) * weight over 100 features, in doubles; returns max |out|.
fn rmsNorm_k100_eps0_00001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(112, T, x, T, x) / 100.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.00001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = x / sqrt(mean(x^2) + 0.000001) * weight over 100 features, in doubles; returns max |out|.
fn rmsNorm_k100_eps0_000001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(112, T, x, T, x) / 100.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.000001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = x / sqrt(mean(x^2) + 0.000001) * weight over 30 features, in doubles; returns max |out|.
fn rmsNorm_k30_eps0_000001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(32, T, x, T, x) / 30.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.000001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 32) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = x / sqrt(mean(x^2) + 0.000001) * weight over 140 features, in doubles; returns max |out|.
fn rmsNorm_k140_eps0_000001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(144, T, x, T, x) / 140.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.000001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 144) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// max |x| over 100 features.
fn largest_k100(x: [*]const f32) f64 {
    var largest: math.F = @splat(0);
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
    return @reduce(.Max, largest);
}

/// Row t of out: round(x * 127 / max |x|) over 100 features, max |x| / 127, and what linears read.
fn quantize_k100(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
    const codes = out.codes + t * 176;
    const scale = 127.0 / @max(largest, 1e-5);
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) {
        const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
        const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
        codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
    }
    out.inverse[t] = 1.0 / scale;
    prepare_k100(out, t);
}

/// max |x| over 30 features.
fn largest_k30(x: [*]const f32) f64 {
    var largest: math.F = @splat(0);
    var i: usize = 0;
    while (i < 32) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
    return @reduce(.Max, largest);
}

/// Row t of out: round(x * 127 / max |x|) over 30 features, max |x| / 127, and what linears read.
fn quantize_k30(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
    const codes = out.codes + t * 96;
    const scale = 127.0 / @max(largest, 1e-5);
    var i: usize = 0;
    while (i < 32) : (i += math.lanes) {
        const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
        const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
        codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
    }
    out.inverse[t] = 1.0 / scale;
    prepare_k30(out, t);
}

/// max |x| over 140 features.
fn largest_k140(x: [*]const f32) f64 {
    var largest: math.F = @splat(0);
    var i: usize = 0;
    while (i < 144) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
    return @reduce(.Max, largest);
}

/// Row t of out: round(x * 127 / max |x|) over 140 features, max |x| / 127, and what linears read.
fn quantize_k140(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
    const codes = out.codes + t * 208;
    const scale = 127.0 / @max(largest, 1e-5);
    var i: usize = 0;
    while (i < 144) : (i += math.lanes) {
        const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
        const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
        codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
    }
    out.inverse[t] = 1.0 / scale;
    prepare_k140(out, t);
}

/// x / (1 + exp(-x))
inline fn activate(x: math.F) math.D {
    const e: math.D = @floatCast(math.exp(-x));
    return @as(math.D, @floatCast(x)) / (@as(math.D, @splat(1)) + e);
}

/// out = act(gate) * up over 140 features, in doubles; returns max |out|.
fn gatedActivation(gate: [*]const f32, up: [*]const f32, out: [*]f64) f64 {
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 144) : (i += math.lanes) {
        const v = activate(math.load(gate + i)) * math.wide(f32, up + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = head turned to its position; features i and i + 5 form a pair.
inline fn rotate(head: [*]const f32, cos: [*]const f32, sin: [*]const f32, out: [*]f32) void {
    for (0..5) |i| {
        const a = head[i];
        const b = head[i + 5];
        out[i] = a * cos[i] - b * sin[i];
        out[i + 5] = b * cos[i] + a * sin[i];
    }
}

/// Hands out parts of one allocation, each on a cache line of its own.
const Carver = struct {
    base: ?[*]u8,
    used: usize = 0,

    fn take(carver: *Carver, comptime T: type, count: usize) [*]T {
        const start = carver.used;
        carver.used = std.mem.alignForward(usize, start + count * @sizeOf(T), 64);
        const base = carver.base orelse return @ptrFromInt(64);
        return @ptrCast(@alignCast(base + start));
    }
};

const span = 256;
const span_blocks = 16;

const Score = f64;
const Query = extern struct { values: [16]Score align(64) };
const KeyGroup = extern struct { values: [10][2][16]f32 align(64) };
const ValueChunk = extern struct { parts: [1][16][16][16]f32 align(64) };

/// One feature of all positions.
inline fn keyFeature(block: KeyBlock, d: usize) *[16]f32 {
    return &block.group.values[d][block.index];
}

/// Features of one position from d on, up to the end of their part.
inline fn valueFeatures(block: ValueBlock, position: usize, d: usize) [*]f32 {
    return block.chunk.parts[d / 16][block.index][position][d % 16 ..].ptr;
}

/// exp(score - largest) of the rows of a tile; zero where a row does not see.
const Weights = struct { values: [1][span]f32 align(64) };

fn makeQuery(query: *Query, from: [*]const f32) void {
    var padded: [16]f32 align(64) = @splat(0);
    for (0..10) |d| padded[d] = from[d];
    inline for (0..1) |v| {
        const x = math.load(padded[v * math.lanes ..].ptr);
        query.values[v * math.lanes ..][0..math.lanes].* = @as(math.D, @floatCast(x));
    }
}

fn storeKey(block: KeyBlock, slot: usize, from: [*]const f32) void {
    for (0..10) |d| keyFeature(block, d)[slot] = @floatCast(bounded(from[d]));
}

fn storeValue(block: ValueBlock, slot: usize, from: [*]const f32) void {
    for (0..10) |d| valueFeatures(block, slot, d)[0] = @floatCast(bounded(from[d]));
}

/// scores[r][offset + position] = q k^T * 0.31622776601683794 for all positions of the blocks, feature by feature.
fn scoreKeys(comptime rows: usize, comptime blocks: usize, queries: [*]const Query, keys: [*]const KeyBlock, scores: [*][span]Score, offset: usize) void {
    var acc: [rows][blocks]math.D = @splat(@splat(@splat(0)));
    for (0..10) |d| {
        var k: [blocks]math.D = undefined;
        inline for (0..blocks) |b| k[b] = math.wide(f32, keyFeature(keys[b], d));
        inline for (0..rows) |r| {
            const q: math.D = @splat(queries[r].values[d]);
            inline for (0..blocks) |b| acc[r][b] += q * k[b];
        }
    }
    inline for (0..rows) |r| {
        inline for (0..blocks) |b| scores[r][offset + b * math.lanes ..][0..math.lanes].* = acc[r][b] * @as(math.D, @splat(0.31622776601683794));
    }
}

/// Weights of row r: of what it sees, and zeros around it in the blocks.
fn weigh(scores: *[span]Score, values: [*]const ValueBlock, blocks: Blocks, seen: Seen, weights: *Weights, r: usize) Softmax {
    _ = values;
    const largest = largestOf(scores, blocks, seen);
    var sums: math.F = @splat(0);
    for (blocks.first..blocks.end) |b| {
        const weight = (expWeights(scores, b, seen, largest));
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
        for (0..16) |p| {
            const from = valueFeatures(values[b], p, first * math.lanes);
            var value: [vectors]math.F = undefined;
            inline for (0..vectors) |v| value[v] = math.widen(f32, from + v * math.lanes);
            inline for (0..rows) |r| {
                const weight = math.splat(weights.values[row + r][b * 16 + p]);
                inline for (0..vectors) |v| acc[r][v] += weight * value[v];
            }
        }
    }
    inline for (0..rows) |r| {
        inline for (0..vectors) |v| math.store(out[row + r].sums[(first + v) * math.lanes ..].ptr, acc[r][v]);
    }
}

/// Keys and values of one layer for 16 blocks of 16 positions.
const LayerCache = extern struct {
    keys: [1][8]KeyGroup align(64),
    values: [1]ValueChunk align(64),
};
const CacheChunk = [2]LayerCache;

comptime {
    // What TypeScript reports and allots by.
    std.debug.assert(@sizeOf(CacheChunk) == 53248);
}

/// Keys of a block's positions.
const KeyBlock = struct {
    group: *KeyGroup,
    index: usize,

    inline fn fetchStart(block: KeyBlock) void {
        fetchRun(block.group);
    }
};

const ValueBlock = struct {
    chunk: *ValueChunk,
    index: usize,

    inline fn fetchStart(block: ValueBlock) void {
        inline for (&block.chunk.parts) |*part| fetchRun(&part[block.index]);
    }
};

inline fn keyBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) KeyBlock {
    const index: usize = @intCast(block);
    return .{ .group = &cache[index / 16][layer].keys[head][index / 2 % 8], .index = index % 2 };
}

inline fn valueBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) ValueBlock {
    const index: usize = @intCast(block);
    return .{ .chunk = &cache[index / 16][layer].values[head], .index = index % 16 };
}

/// The first lines of a run, so that it does not begin with a wait; the hardware sees the rest coming.
inline fn fetchRun(run: anytype) void {
    const bytes: [*]const u8 = @ptrCast(run);
    inline for (0..8) |line| @prefetch(bytes + line * 64, .{ .locality = 2 });
}

/// x, or the nearest number that can be kept: an infinity, times the weight 0 of a position that a
/// query does not see, would not be 0.
inline fn bounded(x: f32) f32 {
    return @min(@max(x, -3.4028234663852886e+38), 3.4028234663852886e+38);
}

const Softmax = struct { largest: Score, total: f32 };

/// What one query has of some positions: sums of exp(score - largest) * value, and their total weight.
const Row = struct { sums: [16]f32 align(64), softmax: Softmax };

/// Positions of a span that a query sees: from .. to.
const Seen = struct {
    from: usize,
    to: usize,

    inline fn all(seen: Seen, block: usize) bool {
        return seen.from <= block * math.lanes and (block + 1) * math.lanes <= seen.to;
    }

    inline fn lanes(seen: Seen, block: usize) @Vector(math.lanes, bool) {
        const position = std.simd.iota(i32, math.lanes) + @as(math.I, @splat(@intCast(block * math.lanes)));
        const early = position < @as(math.I, @splat(@intCast(seen.from)));
        const before_end = position < @as(math.I, @splat(@intCast(seen.to)));
        return @select(bool, early, @as(@Vector(math.lanes, bool), @splat(false)), before_end);
    }
};

/// Blocks from first on, up to end.
const Blocks = struct { first: usize, end: usize };

inline fn largestOf(scores: *const [span]Score, blocks: Blocks, seen: Seen) Score {
    const Scores = @Vector(math.lanes, Score);
    const none: Scores = @splat(-std.math.inf(Score));
    var largest = none;
    for (blocks.first..blocks.end) |b| {
        const score: Scores = scores[b * math.lanes ..][0..math.lanes].*;
        largest = math.larger(largest, if (seen.all(b)) score else @select(Score, seen.lanes(b), score, none));
    }
    return @reduce(.Max, largest);
}

/// exp(score - largest) of a block's positions, 0 where they are not seen.
inline fn expWeights(scores: *const [span]Score, block: usize, seen: Seen, largest: Score) math.F {
    const Scores = @Vector(math.lanes, Score);
    const score: Scores = scores[block * math.lanes ..][0..math.lanes].*;
    const weights = math.exp(@floatCast(score - @as(Scores, @splat(largest))));
    return if (seen.all(block)) weights else @select(f32, seen.lanes(block), weights, math.splat(0));
}

/// Makes \`state\`, which has the positions up to a span, have those of the span too.
fn join(state: *Row, part: *const Row) void {
    const largest = @max(state.softmax.largest, part.softmax.largest);
    var below = math.splat(0);
    below[0] = @floatCast(state.softmax.largest - largest);
    below[1] = @floatCast(part.softmax.largest - largest);
    const factors = math.exp(below);
    state.softmax = .{ .largest = largest, .total = state.softmax.total * factors[0] + part.softmax.total * factors[1] };
    const old = math.splat(factors[0]);
    const new = math.splat(factors[1]);
    inline for (0..1) |v| {
        const offset = v * math.lanes;
        math.store(state.sums[offset..].ptr, math.load(state.sums[offset..].ptr) * old + math.load(part.sums[offset..].ptr) * new);
    }
}

/// out = sums / total.
fn finishRow(state: *const Row, out: [*]f32) void {
    const inverse = 1.0 / state.softmax.total;
    for (0..10) |d| out[d] = state.sums[d] * inverse;
}

/// What one thread works with: scores and weights of a tile's rows, and the rows of a span.
const Scratch = struct {
    scores: [1][span]Score align(64),
    weights: Weights,
    parts: [1]Row,
    states: [48]Row,
};

/// One span for \`rows\` queries, later ones of which see the same positions or later ones.
fn attendSpan(comptime rows: usize, queries: [*]const Query, keys: [*]const KeyBlock, values: [*]const ValueBlock, seen: *const [rows]Seen, scratch: *Scratch) void {
    const together: usize = @max(1, 1 / rows);
    const blocks: Blocks = .{
        .first = seen[0].from / 16,
        .end = (seen[rows - 1].to + 15) / 16,
    };
    var b = blocks.first;
    while (b + together <= blocks.end) : (b += together) scoreKeys(rows, together, queries, keys + b, &scratch.scores, b * math.lanes);
    while (b < blocks.end) : (b += 1) scoreKeys(rows, 1, queries, keys + b, &scratch.scores, b * math.lanes);
    for (0..rows) |r| scratch.parts[r].softmax = weigh(&scratch.scores[r], values, blocks, seen[r], &scratch.weights, r);
    var row: usize = 0;
    while (row + 1 <= rows) : (row += 1) sumRows(@min(rows, 1), values, blocks, row, scratch);
    if (rows % 1 != 0) sumRows(rows % 1, values, blocks, row, scratch);
}

/// Sums of some rows, a run of features after the other.
inline fn sumRows(comptime rows: usize, values: [*]const ValueBlock, blocks: Blocks, row: usize, scratch: *Scratch) void {
    var v: usize = 0;
    while (v + 1 <= 1) : (v += 1) sumValues(rows, 1, &scratch.weights, values, blocks, row, v, &scratch.parts);
    if (1 % 1 != 0) sumValues(rows, 1 % 1, &scratch.weights, values, blocks, row, v, &scratch.parts);
}

/// Consecutive tokens of one sequence in a places.
const Tile = struct { first: u32, tokens: u32 };

/// Work on one KV head's share of a tile.
const Piece = struct {
    queries: [*]const Query,
    /// Results so far, of all queries of the tile.
    states: [*]Row,
    scratch: *Scratch,
    /// Positions that the tile's first token sees, from 0 on, and how many of them at most.
    count: usize,
    window: usize,
    /// The first span that the states are to have.
    first_span: usize,
    keys: [span_blocks]KeyBlock = undefined,
    values: [span_blocks]ValueBlock = undefined,

    /// Adds span \`index\` to the states of rows \`row\` .. row + rows.
    fn attendRows(piece: *const Piece, comptime rows: usize, index: usize, row: usize) void {
        const start = index * span;
        var seen: [rows]Seen = undefined;
        for (&seen, row..) |*s, r| s.* = .{
            .from = @min(span, piece.firstOf(r) -| start),
            .to = @min(span, piece.countOf(r) -| start),
        };
        if (seen[rows - 1].to == 0 or seen[0].from == span) return;
        attendSpan(rows, piece.queries + row, &piece.keys, &piece.values, &seen, piece.scratch);
        for (seen, row.., piece.scratch.parts[0..rows]) |s, r, *part| {
            if (s.from >= s.to) continue;
            if (index == @max(piece.first_span, piece.firstOf(r) / span)) piece.states[r] = part.* else join(&piece.states[r], part);
        }
    }

    inline fn countOf(piece: *const Piece, row: usize) usize {
        return piece.count + row / 3;
    }

    inline fn firstOf(piece: *const Piece, row: usize) usize {
        return piece.countOf(row) -| piece.window;
    }
};

/// states = attention of a tile's queries of one KV head to the positions of spans[0] .. spans[1].
fn attendTile(a: *const Attention, places: Places, layer: usize, window: usize, head: usize, tile: Tile, spans: [2]usize, scratch: *Scratch, states: [*]Row) void {
    const count: usize = @intCast(places.positions[tile.first] + 1);
    const rows = tile.tokens * 3;
    const last = count + tile.tokens - 1;
    const table = places.table(tile.first);
    var piece: Piece = .{ .queries = queriesOf(a, tile.first, head), .states = states, .scratch = scratch, .count = count, .window = window, .first_span = spans[0] };
    const begin = @max(spans[0], piece.firstOf(0) / span);
    const end = @max(begin, @min(spans[1], (last + span - 1) / span));
    for (begin..end) |index| {
        const blocks = (@min(span, last - index * span) + 15) / 16;
        for (0..blocks, table[index * span_blocks ..]) |b, block| {
            piece.keys[b] = keyBlock(a.cache, block, layer, head);
            piece.values[b] = valueBlock(a.cache, block, layer, head);
            if (b == 0 or @mod(block, 16) == 0) piece.values[b].fetchStart();
        }
        // Keys that come next; after the last span, the next head's first ones.
        const more = (index + 1) * span < last;
        const next_block = if (more) (index + 1) * span_blocks else 0;
        keyBlock(a.cache, table[next_block], layer, if (more) head else (head + 1) % 1).fetchStart();
        var row: usize = 0;
        while (row + 1 <= rows) : (row += 1) piece.attendRows(1, index, row);
    }
}

/// Where the tokens of a step stand in their sequences.
const Places = struct {
    tokens: usize,
    positions: [*]const i32,
    /// Row of each token's sequence in the block tables.
    tables_of: [*]const i32,
    tables: [*]const i32,
    table_stride: usize,

    fn table(places: Places, token: usize) [*]const i32 {
        const row: usize = @intCast(places.tables_of[token]);
        return places.tables + row * places.table_stride;
    }
};

/// Tokens times KV heads up to which each thread may have spans of its own to work on.
const split_pairs = 16;
const ticket_spans = 4;
/// A window of all positions.
const everything = std.math.maxInt(usize);

/// The cache, and what attention needs beside it.
const Attention = struct {
    cache: [*]CacheChunk = undefined,
    max_tokens: usize = 0,
    threads: usize = 0,
    /// (KV head, max_tokens, 3): the queries of one head and consecutive tokens lie together.
    queries: [*]Query = undefined,
    /// One a thread.
    scratch: [*]Scratch = undefined,
    /// A step's tiles, at most max_tokens.
    tiles: [*]Tile = undefined,
    tile_count: usize = 0,
    /// Spans of the longest sequence of the step, and whether they are shared out one by one.
    spans: usize = 0,
    split: bool = false,
    /// (KV head, spans, tokens, 3) where the step is split.
    parts: [*]Row = undefined,
    /// The next piece of work of each layer.
    tickets: [*]std.atomic.Value(u32) = undefined,
};

/// Queries of one token that share a KV head; those of the next token follow.
inline fn queriesOf(a: *const Attention, token: usize, head: usize) *[3]Query {
    return (a.queries + (head * a.max_tokens + token) * 3)[0..3];
}

/// Takes what attention needs for up to \`context\` positions from a carver of memory.
fn carveAttention(carver: *Carver, a: *Attention, max_tokens: usize, context: usize, threads: usize, kv_blocks: usize) void {
    const most_spans = (context + span - 1) / span;
    a.max_tokens = max_tokens;
    a.threads = threads;
    a.queries = carver.take(Query, 1 * max_tokens * 3);
    a.scratch = carver.take(Scratch, threads);
    a.tiles = carver.take(Tile, max_tokens);
    a.parts = carver.take(Row, threads * split_pairs * most_spans * 3);
    a.tickets = carver.take(std.atomic.Value(u32), 2);
    a.cache = carver.take(CacheChunk, chunksOf(kv_blocks));
}

/// Before a step: cuts its tokens into tiles. A few tokens with a long past are split by spans, as
/// there would be too little for all threads else.
fn shareOut(a: *Attention, places: Places) void {
    var longest: usize = 0;
    for (places.positions[0..places.tokens]) |position| longest = @max(longest, @as(usize, @intCast(position)) + 1);
    a.spans = (longest + span - 1) / span;
    a.split = a.spans > 1 and places.tokens * 1 <= a.threads * split_pairs;
    var most: usize = 16;
    while (most > 2 and places.tokens * 1 < 4 * a.threads * most) most /= 2;
    a.tile_count = 0;
    var first: usize = 0;
    while (first < places.tokens) {
        const tokens = consecutive(places, first, most);
        a.tiles[a.tile_count] = .{ .first = @intCast(first), .tokens = @intCast(tokens) };
        a.tile_count += 1;
        first += tokens;
    }
    for (a.tickets[0..2]) |*ticket| ticket.store(0, .monotonic);
}

/// Tokens from \`first\` on, at most \`most\`, that follow each other in one sequence.
fn consecutive(places: Places, first: usize, most: usize) usize {
    const limit = @min(first + most, places.tokens);
    var next = first + 1;
    while (next < limit and places.tables_of[next] == places.tables_of[first] and places.positions[next] == places.positions[next - 1] + 1) next += 1;
    return next - first;
}

/// Takes work until there is none: who does what changes nothing. Long tiles come first, so that
/// threads end together.
/// attended: (tokens, stride) with 3 heads of 10.
fn attendPieces(a: *const Attention, places: Places, layer: usize, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
    const scratch = &a.scratch[thread];
    if (a.split) return attendSpans(a, places, layer, window, scratch);
    const pieces = a.tile_count * 1;
    while (true) {
        const piece: usize = a.tickets[layer].fetchAdd(1, .monotonic);
        if (piece >= pieces) return;
        const tile = a.tiles[a.tile_count - 1 - piece % a.tile_count];
        const head = piece / a.tile_count;
        attendTile(a, places, layer, window, head, tile, .{ 0, a.spans }, scratch, &scratch.states);
        for (0..tile.tokens * 3) |r| finishRow(&scratch.states[r], attendedRow(attended, stride, tile.first + r / 3, head, r % 3));
    }
}

/// Takes some spans of a split step at a time, so that what was fetched ahead is mostly one's own.
fn attendSpans(a: *const Attention, places: Places, layer: usize, window: usize, scratch: *Scratch) void {
    const pieces = a.tile_count * 1 * a.spans;
    while (true) {
        const first = ticket_spans * @as(usize, a.tickets[layer].fetchAdd(1, .monotonic));
        if (first >= pieces) return;
        for (first..@min(first + ticket_spans, pieces)) |piece| {
            const head = piece / a.spans % 1;
            const index = piece % a.spans;
            const tile = a.tiles[piece / a.spans / 1];
            const states = partsOf(a, places, head, index) + tile.first * 3;
            attendTile(a, places, layer, window, head, tile, .{ index, index + 1 }, scratch, states);
        }
    }
}

inline fn partsOf(a: *const Attention, places: Places, head: usize, index: usize) [*]Row {
    return a.parts + (head * a.spans + index) * places.tokens * 3;
}

inline fn attendedRow(attended: [*]f32, stride: usize, token: usize, head: usize, query: usize) [*]f32 {
    return attended + token * stride + (head * 3 + query) * 10;
}

/// After a split step's pieces: joins the spans of each query. Heads of tokens are shared out.
fn joinParts(a: *const Attention, places: Places, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
    const pairs = math.share(places.tokens * 1, thread, a.threads);
    for (pairs[0]..pairs[1]) |pair| {
        const token = pair / 1;
        const head = pair % 1;
        const count: usize = @intCast(places.positions[token] + 1);
        for (0..3) |g| {
            const first = (count -| window) / span;
            const state = &partsOf(a, places, head, first)[token * 3 + g];
            for (first + 1..(count + span - 1) / span) |index| join(state, &partsOf(a, places, head, index)[token * 3 + g]);
            finishRow(state, attendedRow(attended, stride, token, head, g));
        }
    }
}

/// Fills the cache's first blocks with numbers like a trained model's, to measure attention by.
fn fillCache(a: *const Attention, blocks: usize) void {
    var random: u32 = 1;
    var made: [16]f32 = undefined;
    for (0..blocks * 16) |position| {
        const block: i32 = @intCast(position / 16);
        const slot = position % 16;
        for (&made) |*value| {
            random = random *% 1664525 +% 1013904223;
            value.* = @as(f32, @floatFromInt(random >> 8)) * 0x1p-22 - 2;
        }
        for (0..2) |layer| {
            for (0..1) |head| {
                storeKey(keyBlock(a.cache, block, layer, head), slot, &made);
                storeValue(valueBlock(a.cache, block, layer, head), slot, &made);
            }
        }
    }
}

inline fn chunksOf(blocks: usize) usize {
    return (blocks + 15) / 16;
}

/// Attention of the last \`tokens\` of \`positions\` positions to all before them, nothing being turned.
/// q: (tokens, 3, 10). k, v: (positions, 1, 10). table: KV blocks of the
/// sequence. window: positions that a query sees at most. out: (tokens, 3, 10). Work is shared out as for \`threads\` threads, and done
/// by this one. Returns 1 if memory is short, else 0.
pub export fn trilith_attention_3x1x10_f32(q: [*]const f32, k: [*]const f32, v: [*]const f32, table: [*]const i32, positions: i32, tokens: i32, window: i32, threads: i32, out: [*]f32) i32 {
    const count: usize = @intCast(positions);
    const queries: usize = @intCast(tokens);
    var blocks: usize = 0;
    for (table[0 .. (count + 15) / 16]) |block| blocks = @max(blocks, @as(usize, @intCast(block)) + 1);
    var a: Attention = .{};
    var measure: Carver = .{ .base = null };
    _ = carveBare(&measure, &a, count, @intCast(threads), blocks);
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(measure.used) orelse return 1);
    defer host.trilith_free(memory, measure.used);
    var carver: Carver = .{ .base = memory };
    const all = carveBare(&carver, &a, count, @intCast(threads), blocks);
    for (all.positions[0..count], 0..) |*position, i| position.* = @intCast(i);
    const places: Places = .{ .tokens = queries, .positions = all.positions + count - queries, .tables_of = all.tables_of, .tables = table, .table_stride = 0 };
    for (0..1) |head| {
        for (0..count) |position| {
            const row = (position * 1 + head) * 10;
            const block = table[position / 16];
            storeKey(keyBlock(a.cache, block, 0, head), position % 16, k + row);
            storeValue(valueBlock(a.cache, block, 0, head), position % 16, v + row);
        }
        for (0..queries) |token| {
            const first = q + (token * 3 + head * 3) * 10;
            for (queriesOf(&a, token, head), 0..) |*query, g| makeQuery(query, first + g * 10);
        }
    }
    shareOut(&a, places);
    attendPieces(&a, places, 0, @intCast(window), 0, out, 30);
    if (a.split) {
        for (0..a.threads) |thread| joinParts(&a, places, @intCast(window), thread, out, 30);
    }
    return 0;
}

const Bare = struct { positions: [*]i32, tables_of: [*]i32 };

fn carveBare(carver: *Carver, a: *Attention, count: usize, threads: usize, blocks: usize) Bare {
    carveAttention(carver, a, count, count, threads, blocks);
    return .{
        .positions = carver.take(i32, count),
        .tables_of = carver.take(i32, count),
    };
}

const EmbeddingElement = f16;

/// out = the embedding of a token.
fn embed(weights: [*]const u8, token: i32, out: [*]f32) void {
    const embedding: [*]const EmbeddingElement = @ptrCast(@alignCast(weights + embedding_at));
    const row = embedding + @as(usize, @intCast(token)) * 112;
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) math.store(out + i, math.widen(EmbeddingElement, row + i));
}

const HeadElement = f32;

/// logits[l, r] = row r of the head . x[l] for rows first .. last: (50, 100) by (100,).
fn scoreRows(head: [*]const HeadElement, x: [*]const f32, count: usize, logits: [*]f32, rows: [2]usize) void {
    var r = rows[0];
    while (r + 4 <= rows[1]) : (r += 4) scoreTile(4, head, x, count, logits, r);
    while (r < rows[1]) : (r += 1) scoreTile(1, head, x, count, logits, r);
}

/// Rows that follow each other.
inline fn scoreTile(comptime tile: usize, head: [*]const HeadElement, x: [*]const f32, count: usize, logits: [*]f32, r: usize) void {
    var from: [tile][*]const HeadElement = undefined;
    var next: [tile][*]const HeadElement = undefined;
    for (&from, &next, r..) |*row, *later, i| {
        row.* = head + i * 112;
        later.* = row.* + 4 * 112;
    }
    for (0..count) |l| logits[l * 50 + r ..][0..tile].* = sumRowsOf(tile, x + l * 112, &from, &next);
}

/// out[i] = row rows[i] of the head . x, as scoreRows computes it. Rows are far from one another.
fn scorePicked(head: [*]const HeadElement, x: [*]const f32, rows: []const u32, out: [*]f32) void {
    var i: usize = 0;
    while (i + 4 <= rows.len) : (i += 4) {
        var from: [4][*]const HeadElement = undefined;
        var next: [4][*]const HeadElement = undefined;
        for (&from, &next, i..) |*row, *later, j| {
            row.* = head + @as(usize, rows[j]) * 112;
            later.* = head + @as(usize, rows[@min(j + 4, rows.len - 1)]) * 112;
        }
        out[i..][0..4].* = sumRowsOf(4, x, &from, &next);
    }
    while (i < rows.len) : (i += 1) out[i] = sumRowsOf(1, x, &.{head + @as(usize, rows[i]) * 112}, &.{})[0];
}

/// The sums of some rows; those in \`next\` are fetched meanwhile.
inline fn sumRowsOf(comptime tile: usize, x: [*]const f32, from: *const [tile][*]const HeadElement, next: []const [*]const HeadElement) [tile]f32 {
    var acc: [tile]math.F = @splat(@splat(0));
    var i: usize = 0;
    while (i < 112) : (i += math.lanes) {
        const v = math.load(x + i);
        for (next) |row| @prefetch(row + i, .{ .locality = 2 });
        inline for (0..tile) |j| acc[j] += v * math.widen(HeadElement, from[j] + i);
    }
    var sums: [tile]f32 = undefined;
    inline for (0..tile) |j| sums[j] = math.sum(acc[j]);
    return sums;
}

/// Where a layer's tensors lie, in bytes from its start.
const at = struct {
    const scales = 0;
    const input_norm = 64;
    const post_attention_norm = 512;
    const q_bias = 960;
    const q_norm = 1088;
    const q_codes = 1536;
    const k_norm = 2432;
    const k_codes = 2880;
    const v_norm = 3776;
    const v_codes = 4224;
    const o_norm = 5120;
    const o_codes = 5248;
    const gate_norm = 6272;
    const gate_codes = 6720;
    const up_norm = 11200;
    const up_codes = 11648;
    const down_bias = 16128;
    const down_norm = 16640;
    const down_codes = 17216;
};
const embedding_at = 0;
const final_norm_at = 11200;
const head_at = 11648;
const layers_at = 36864;
const layer_bytes = 24576;

/// A loaded model: its packed weights, its KV cache, and buffers for max_tokens rows.
const Model = struct {
    weights: [*]const u8,
    team: *Team,
    max_tokens: usize,
    context: usize,
    memory: [*]u8,
    memory_bytes: usize,
    attention: Attention,
    /// cos then sin, (context, 5) each.
    rope: [*]const f32,
    /// Normed values, one row of doubles a thread and one for the linears' own norms.
    rows: [*]f64,
    h: [*]f32,
    y: [*]f32,
    q: [*]f32,
    k: [*]f32,
    v: [*]f32,
    attended: [*]f32,
    gate: [*]f32,
    up: [*]f32,
    normed: [*]f32,
    x0_codes: [*]i8,
    x0_inverse: [*]f64,
    x0_sums: [*]i32,
    x1_codes: [*]i8,
    x1_inverse: [*]f64,
    x1_sums: [*]i32,
    x2_codes: [*]i8,
    x2_inverse: [*]f64,
    x2_sums: [*]i32,
    /// Where the time goes, as thread 0 sees it; runs only when it was asked for.
    watch: Stopwatch,

    fn layer(model: *const Model, index: usize) [*]const u8 {
        return model.weights + layers_at + index * layer_bytes;
    }
};

/// Tokens of one step. An i32 array from the caller: 4 counts, then the lists in this order.
const Batch = struct {
    tokens: usize,
    logit_count: usize,
    /// Tokens that are normed at the end: first those of logits, then those of hidden states.
    row_count: usize,
    ids: [*]const i32,
    places: Places,
    rows: [*]const i32,
    /// How many of each row's largest logits must be exact; 0 is all.
    logit_candidates: [*]const i32,

    fn read(words: [*]const i32) Batch {
        const tokens: usize = @intCast(words[0]);
        const logit_count: usize = @intCast(words[2]);
        const row_count: usize = @intCast(words[3]);
        const ids = words + 4;
        return .{
            .tokens = tokens,
            .logit_count = logit_count,
            .row_count = row_count,
            .ids = ids,
            .places = .{
                .tokens = tokens,
                .positions = ids + tokens,
                .tables_of = ids + 2 * tokens,
                .tables = ids + 3 * tokens + row_count + logit_count,
                .table_stride = @intCast(words[1]),
            },
            .rows = ids + 3 * tokens,
            .logit_candidates = ids + 3 * tokens + row_count,
        };
    }
};

const Step = struct { model: *Model, batch: Batch, logits: [*]f32 };

inline fn floats(bytes: [*]const u8) [*]const f32 {
    return @ptrCast(@alignCast(bytes));
}

inline fn linearAt(layer: [*]const u8, comptime scale: usize, comptime codes: usize, comptime bias: ?usize) Linear {
    return .{
        .codes = layer + codes,
        .scale = floats(layer + at.scales)[scale],
        .bias = if (bias) |offset| floats(layer + offset) else null,
    };
}

inline fn inputOf(model: *const Model, comptime input: usize) Quantized {
    return switch (input) {
        0 => .{ .codes = model.x0_codes, .inverse = model.x0_inverse, .sums = model.x0_sums },
        1 => .{ .codes = model.x1_codes, .inverse = model.x1_inverse, .sums = model.x1_sums },
        2 => .{ .codes = model.x2_codes, .inverse = model.x2_inverse, .sums = model.x2_sums },
        else => comptime unreachable,
    };
}

/// h += y; q, k, v read round(norm(h)) of this thread's tokens.
fn attentionInput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 288;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const h = model.h + t * 112;
        const y = model.y + t * 128;
        var i: usize = 0;
        while (i < 112) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        const largest = rmsNorm_k100_eps0_00001(f32, h, floats(layer + at.input_norm), row);
        _ = largest;
        const largest_q = rmsNorm_k100_eps0_000001(f64, row, floats(layer + at.q_norm), row + 144);
        quantize_k100(f64, row + 144, largest_q, inputOf(model, 0), t);
        const largest_k = rmsNorm_k100_eps0_000001(f64, row, floats(layer + at.k_norm), row + 144);
        quantize_k100(f64, row + 144, largest_k, inputOf(model, 1), t);
        const largest_v = rmsNorm_k100_eps0_000001(f64, row, floats(layer + at.v_norm), row + 144);
        quantize_k100(f64, row + 144, largest_v, inputOf(model, 2), t);
    }
}

/// q, k, v: 3 blocks of 32 rows, shared out among threads.
fn attentionLinears(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(3, thread, model.team.threads);
    linear_30x100(linearAt(layer, 0, at.q_codes, at.q_bias), inputOf(model, 0), step.batch.tokens, model.q, 32, overlap(mine, 0, 1));
    linear_10x100(linearAt(layer, 1, at.k_codes, null), inputOf(model, 1), step.batch.tokens, model.k, 32, overlap(mine, 1, 1));
    linear_10x100(linearAt(layer, 2, at.v_codes, null), inputOf(model, 2), step.batch.tokens, model.v, 32, overlap(mine, 2, 1));
}

/// Turns queries and keys to their positions; keys and values go into the cache.
fn rotateAndStore(step: *const Step, layer_index: usize, thread: usize) void {
    const model = step.model;
    const places = step.batch.places;
    const items = math.share(places.tokens * 1, thread, model.team.threads);
    for (items[0]..items[1]) |item| {
        const t = item / 1;
        const head = item % 1;
        const position: usize = @intCast(places.positions[t]);
        const cos = model.rope + position * 5;
        const sin = cos + model.context * 5;
        var turned: [10]f32 = undefined;
        const first = model.q + t * 32 + head * 30;
        for (queriesOf(&model.attention, t, head), 0..) |*query, g| {
            rotate(first + g * 10, cos, sin, &turned);
            makeQuery(query, &turned);
        }
        const key = model.k + t * 32 + head * 10;
        rotate(key, cos, sin, &turned);
        const block = places.table(t)[position / 16];
        const slot = position % 16;
        storeKey(keyBlock(model.attention.cache, block, layer_index, head), slot, &turned);
        storeValue(valueBlock(model.attention.cache, block, layer_index, head), slot, model.v + t * 32 + head * 10);
    }
}

/// Attention of all tokens. Where spans were shared out, another barrier and their joining follow.
fn attendAll(step: *const Step, layer_index: usize, thread: usize) void {
    const model = step.model;
    const places = step.batch.places;
    const window: usize = everything;
    attendPieces(&model.attention, places, layer_index, window, thread, model.attended, 32);
    if (!model.attention.split) return;
    model.team.barrier();
    joinParts(&model.attention, places, window, thread, model.attended, 32);
}

/// o reads round(x) of this thread's tokens.
fn attentionOutput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 288;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const x = model.attended + t * 32;
        const largest_made = largest_k30(x);
        const largest = largest_made;
        _ = largest;
        const largest_o = rmsNorm_k30_eps0_000001(f32, x, floats(layer + at.o_norm), row + 144);
        quantize_k30(f64, row + 144, largest_o, inputOf(model, 0), t);
    }
}

/// o: 4 blocks of 32 rows, shared out among threads.
fn outputLinear(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(4, thread, model.team.threads);
    linear_100x30(linearAt(layer, 3, at.o_codes, null), inputOf(model, 0), step.batch.tokens, model.y, 128, overlap(mine, 0, 4));
}

/// h += y; gate, up read round(norm(h)) of this thread's tokens.
fn mlpInput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 288;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const h = model.h + t * 112;
        const y = model.y + t * 128;
        var i: usize = 0;
        while (i < 112) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        const largest = rmsNorm_k100_eps0_00001(f32, h, floats(layer + at.post_attention_norm), row);
        _ = largest;
        const largest_gate = rmsNorm_k100_eps0_000001(f64, row, floats(layer + at.gate_norm), row + 144);
        quantize_k100(f64, row + 144, largest_gate, inputOf(model, 0), t);
        const largest_up = rmsNorm_k100_eps0_000001(f64, row, floats(layer + at.up_norm), row + 144);
        quantize_k100(f64, row + 144, largest_up, inputOf(model, 1), t);
    }
}

/// gate, up: 10 blocks of 32 rows, shared out among threads.
fn mlpLinears(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(10, thread, model.team.threads);
    linear_140x100(linearAt(layer, 4, at.gate_codes, null), inputOf(model, 0), step.batch.tokens, model.gate, 160, overlap(mine, 0, 5));
    linear_140x100(linearAt(layer, 5, at.up_codes, null), inputOf(model, 1), step.batch.tokens, model.up, 160, overlap(mine, 5, 5));
}

/// down reads round(x) of this thread's tokens.
fn mlpOutput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 288;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const largest_made = gatedActivation(model.gate + t * 160, model.up + t * 160, row);
        const largest = largest_made;
        _ = largest;
        const largest_down = rmsNorm_k140_eps0_000001(f64, row, floats(layer + at.down_norm), row + 144);
        quantize_k140(f64, row + 144, largest_down, inputOf(model, 0), t);
    }
}

/// down: 4 blocks of 32 rows, shared out among threads.
fn downLinear(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(4, thread, model.team.threads);
    linear_100x140(linearAt(layer, 6, at.down_codes, at.down_bias), inputOf(model, 0), step.batch.tokens, model.y, 128, overlap(mine, 0, 4));
}

/// The part of blocks mine[0] .. mine[1] that falls into the matrix whose blocks begin at from.
inline fn overlap(mine: [2]usize, from: usize, count: usize) [2]usize {
    return .{ @min(@max(mine[0], from) - from, count), @min(@max(mine[1], from) - from, count) };
}

/// A few tokens, which every thread prepares for itself: norms and inputs of linears cost less than a
/// barrier, and far less than lines that another core has written or read last.
inline fn isAlone(step: *const Step) bool {
    const tokens = step.batch.tokens;
    return tokens <= 16 and tokens * step.model.team.threads <= rowsOf(step.model.max_tokens, step.model.team.threads);
}

/// Rows of the buffers: of a step's tokens, or one a thread.
inline fn rowsOf(max_tokens: usize, threads: usize) usize {
    return @max(max_tokens, threads);
}

/// The tokens that a thread prepares.
inline fn tokensOf(step: *const Step, thread: usize) [2]usize {
    return if (isAlone(step)) .{ 0, step.batch.tokens } else math.share(step.batch.tokens, thread, step.model.team.threads);
}

/// The model as a thread sees it that prepares all tokens for itself: with rows of its own of what it
/// alone reads again.
fn ownRows(model: Model, first: usize) Model {
    var own = model;
    own.h += first * 112;
    own.x0_codes += first * 208;
    own.x0_inverse += first * 1;
    own.x0_sums += first * 1;
    own.x1_codes += first * 208;
    own.x1_inverse += first * 1;
    own.x1_sums += first * 1;
    own.x2_codes += first * 208;
    own.x2_inverse += first * 1;
    own.x2_sums += first * 1;
    return own;
}

fn embedTokens(step: *const Step, thread: usize) void {
    const model = step.model;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        embed(model.weights, step.batch.ids[t], model.h + t * 112);
        @memset(model.y[t * 128 ..][0..128], 0);
    }
}

/// Final norm of the rows whose logits or hidden states are wanted.
fn finalNorm(step: *const Step, thread: usize) void {
    const model = step.model;
    const rows = math.share(step.batch.row_count, thread, model.team.threads);
    for (rows[0]..rows[1]) |l| {
        const t: usize = @intCast(step.batch.rows[l]);
        const h = model.h + t * 112;
        const y = model.y + t * 128;
        const row = model.rows + thread * 288;
        var i: usize = 0;
        while (i < 112) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        _ = rmsNorm_k100_eps0_00001(f32, h, floats(model.weights + final_norm_at), row);
        for (0..112) |d| model.normed[l * 112 + d] = @floatCast(row[d]);
    }
}

fn headLogits(step: *const Step, thread: usize) void {
    const model = step.model;
    const rows = math.share(50, thread, model.team.threads);
    scoreRows(@ptrCast(@alignCast(model.weights + head_at)), model.normed, step.batch.logit_count, step.logits, rows);
}

const Phase = enum { embedding, inputNorm, qkv, rope, attention, outputNorm, o, mlpNorm, router, pick, gather, gateUp, activation, down, combine, finalNorm, sketch, head, handover };

/// Since the last lap, thread 0 has worked in this phase.
inline fn lap(watch: ?*Stopwatch, phase: Phase) void {
    if (watch) |running| running.lap(2 * @as(usize, @backingInt(phase)));
}

/// The barrier at the end of a phase. Waiting there is told apart from work.
inline fn meet(team: *Team, watch: ?*Stopwatch, phase: Phase) void {
    lap(watch, phase);
    team.barrier();
    if (watch) |running| running.lap(2 * @as(usize, @backingInt(phase)) + 1);
}

/// As \`meet\`, where a thread that prepared a token for itself needs nobody.
inline fn meetUnless(alone: bool, team: *Team, watch: ?*Stopwatch, phase: Phase) void {
    if (alone) lap(watch, phase) else meet(team, watch, phase);
}

/// What every thread of the team runs: the layers, a barrier wherever one reads what others wrote.
fn runStep(context: *anyopaque, team: *Team, thread_index: u32) void {
    const step: *const Step = @ptrCast(@alignCast(context));
    const thread: usize = thread_index;
    const watch = if (thread == 0 and step.model.watch.running) &step.model.watch else null;
    const alone = isAlone(step);
    // What this thread prepares and reads again; everything else is the team's.
    var own_model = ownRows(step.model.*, thread * step.batch.tokens);
    const prepared: Step = .{ .model = &own_model, .batch = step.batch, .logits = step.logits };
    const own = if (alone) &prepared else step;
    embedTokens(own, thread);
    lap(watch, .embedding);
    for (0..2) |index| {
        const layer = step.model.layer(index);
        attentionInput(own, layer, thread);
        meetUnless(alone, team, watch, .inputNorm);
        attentionLinears(own, layer, thread);
        meet(team, watch, .qkv);
        rotateAndStore(step, index, thread);
        meet(team, watch, .rope);
        attendAll(step, index, thread);
        meet(team, watch, .attention);
        attentionOutput(own, layer, thread);
        meetUnless(alone, team, watch, .outputNorm);
        outputLinear(own, layer, thread);
        meet(team, watch, .o);
        mlpInput(own, layer, thread);
        meetUnless(alone, team, watch, .mlpNorm);
        mlpLinears(own, layer, thread);
        meet(team, watch, .gateUp);
        mlpOutput(own, layer, thread);
        meetUnless(alone, team, watch, .activation);
        downLinear(own, layer, thread);
        meet(team, watch, .down);
    }
    if (step.batch.row_count == 0) return;
    finalNorm(step, thread);
    if (step.batch.logit_count == 0) return lap(watch, .finalNorm);
    meet(team, watch, .finalNorm);
    headLogits(step, thread);
    lap(watch, .head);
}

pub export fn trilith_abi() i32 {
    return 6;
}

/// 0 when this CPU runs every kind of instruction here, else the signal that stopped a child process.
pub export fn trilith_probe() i32 {
    return host.survives(touchInstructions);
}

/// Runs each ternary linear and the float kernels once, on zeros.
fn touchInstructions() void {
    const bytes = 5760;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(4 * bytes) orelse return);
    const codes: [*]const i8 = @ptrCast(memory);
    const y: [*]f32 = @ptrCast(@alignCast(memory + 2 * bytes));
    const weights = memory + 3 * bytes;
    _ = trilith_linear_30x100(weights, codes, 5, y, 0, 1);
    _ = trilith_linear_30x100(weights, codes, 9, y, 0, 1);
    _ = trilith_linear_10x100(weights, codes, 5, y, 0, 1);
    _ = trilith_linear_10x100(weights, codes, 9, y, 0, 1);
    _ = trilith_linear_100x30(weights, codes, 5, y, 0, 4);
    _ = trilith_linear_100x30(weights, codes, 9, y, 0, 4);
    _ = trilith_linear_140x100(weights, codes, 5, y, 0, 5);
    _ = trilith_linear_140x100(weights, codes, 9, y, 0, 5);
    _ = trilith_linear_100x140(weights, codes, 5, y, 0, 4);
    _ = trilith_linear_100x140(weights, codes, 9, y, 0, 4);
    quantize_k100(f32, y, largest_k100(y), inputIn_k100(memory, 1), 0);
    quantize_k30(f32, y, largest_k30(y), inputIn_k30(memory, 1), 0);
    quantize_k140(f32, y, largest_k140(y), inputIn_k140(memory, 1), 0);
    _ = gatedActivation(y, y, @ptrCast(@alignCast(memory + bytes)));
    scoreRows(@ptrCast(@alignCast(weights)), y, 1, y, .{ 0, 1 });
    _ = trilith_attention_3x1x10_f32(y, y, y, @ptrCast(@alignCast(memory)), 1, 1, 1, 1, @ptrCast(@alignCast(memory + bytes)));
    host.trilith_free(memory, 4 * bytes);
}

fn carve(carver: *Carver, model: *Model, threads: usize, kv_blocks: usize) void {
    const tokens = rowsOf(model.max_tokens, threads);
    model.rows = carver.take(f64, threads * 288);
    model.h = carver.take(f32, tokens * 112);
    model.y = carver.take(f32, tokens * 128);
    model.q = carver.take(f32, tokens * 32);
    model.k = carver.take(f32, tokens * 32);
    model.v = carver.take(f32, tokens * 32);
    model.attended = carver.take(f32, tokens * 32);
    model.gate = carver.take(f32, tokens * 160);
    model.up = carver.take(f32, tokens * 160);
    model.normed = carver.take(f32, tokens * 112);
    model.x0_codes = carver.take(i8, tokens * 208);
    model.x0_inverse = carver.take(f64, tokens * 1);
    model.x0_sums = carver.take(i32, tokens * 1);
    model.x1_codes = carver.take(i8, tokens * 208);
    model.x1_inverse = carver.take(f64, tokens * 1);
    model.x1_sums = carver.take(i32, tokens * 1);
    model.x2_codes = carver.take(i8, tokens * 208);
    model.x2_inverse = carver.take(f64, tokens * 1);
    model.x2_sums = carver.take(i32, tokens * 1);
    const rope = carver.take(f32, model.context * 10);
    model.rope = rope;
    carveAttention(carver, &model.attention, tokens, model.context, threads, kv_blocks);
}

/// Makes a model over packed weights. rope: cos then sin, (context, 5) each, copied.
/// Null when memory is short. KV memory is touched only as sequences grow.
pub export fn trilith_model_create(weights: [*]const u8, team: *Team, max_tokens: i32, context: i32, kv_blocks: i32, rope: [*]const f32) ?*Model {
    const model = std.heap.page_allocator.create(Model) catch return null;
    model.weights = weights;
    model.team = team;
    model.max_tokens = @intCast(max_tokens);
    model.context = @intCast(context);
    model.watch = .{};
    model.attention = .{};
    var measure: Carver = .{ .base = null };
    carve(&measure, model, team.threads, @intCast(kv_blocks));
    const memory = host.trilith_alloc(measure.used) orelse {
        std.heap.page_allocator.destroy(model);
        return null;
    };
    model.memory = @ptrCast(memory);
    model.memory_bytes = measure.used;
    var carver: Carver = .{ .base = model.memory };
    carve(&carver, model, team.threads, @intCast(kv_blocks));
    const words = model.context * 10;
    @memcpy(@constCast(model.rope)[0..words], rope[0..words]);
    return model;
}

/// Gives the first blocks of the cache some keys and values, to measure decoding after a long past
/// without computing it.
pub export fn trilith_fill_cache(model: *Model, blocks: i32) void {
    fillCache(&model.attention, @intCast(blocks));
}

pub export fn trilith_model_destroy(model: *Model) void {
    host.trilith_free(@ptrCast(model.memory), model.memory_bytes);
    std.heap.page_allocator.destroy(model);
}

/// Bytes of the model's buffers and of its cache.
pub export fn trilith_model_bytes(model: *const Model) u64 {
    return model.memory_bytes;
}

/// Rows of the head that were scored exactly after its sketch, of all steps since the model was made.
pub export fn trilith_rescored(model: *const Model) u64 {
    _ = model;
    return 0;
}

/// Hidden states after the final norm that the last step left, (count, 100) float32, from its
/// \`first\`th row on: the rows of logits come before those of hidden states.
pub export fn trilith_hidden(model: *const Model, first: i32, count: i32, out: [*]f32) void {
    const from: usize = @intCast(first);
    for (0..@intCast(count)) |l| {
        const row = model.normed + (from + l) * 112;
        @memcpy(out[l * 100 ..][0..100], row[0..100]);
    }
}

/// Runs a batch; logits: (logit rows, 50) float32. The caller has checked every index.
pub export fn trilith_step(model: *Model, words: [*]const i32, logits: [*]f32) i32 {
    var step: Step = .{ .model = model, .batch = .read(words), .logits = logits };
    shareOut(&model.attention, step.batch.places);
    const watch = if (model.watch.running) &model.watch else null;
    if (watch) |running| running.begin();
    model.team.run(@ptrCast(&step), runStep);
    lap(watch, .handover);
    return 0;
}

/// From now on the time of steps is divided into phases.
pub export fn trilith_profile_start(model: *Model) void {
    model.watch.start();
}

/// Ends that; seconds: of work and of waiting for each phase, in the order of \`Phase\`.
pub export fn trilith_profile_stop(model: *Model, seconds: *[38]f64) void {
    seconds.* = model.watch.stop();
}
