//! Trilith: one decoder step of a ternary model for portable-multiply. Generated from codegen/step/template.ts;
//! do not edit. 2 layers, hidden 64, 4/2 heads of 16, intermediate 40, vocabulary 50.
const std = @import("std");
const math = @import("math.zig");
const host = @import("host.zig");
const Team = @import("team.zig").Team;
const Stopwatch = @import("profile.zig").Stopwatch(38);

comptime {
    _ = host;
}

/// One ternary matrix: packed weights, the factor of a weight and a bias, one f32 a row each.
const Linear = struct { codes: [*]const u8, scales: [*]const f32, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f64,
    sums: [*]i32,
};

/// y = exact * (scale * inverse), rounded once, + bias for 16 rows of a token.
inline fn finish(exact: math.I, linear: Linear, inverse: f64, row: usize, y: [*]f32) void {
    const wide: math.D = @floatFromInt(exact);
    const factor = math.wide(f32, linear.scales + row) * @as(math.D, @splat(inverse));
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

/// From the codes of token t, what linears of 64 features read.
fn prepare_k64(x: Quantized, t: usize) void {
    const codes = x.codes + t * 128;
    var sums: math.I = @splat(0);
    for (0..4) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 64 features, each array in its part of tokens * 256 bytes.
fn inputIn_k64(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .sums = @ptrCast(@alignCast(memory + tokens * 192)),
    };
}

/// From the codes of token t, what linears of 40 features read.
fn prepare_k40(x: Quantized, t: usize) void {
    const codes = x.codes + t * 112;
    var sums: math.I = @splat(0);
    for (0..3) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 40 features, each array in its part of tokens * 256 bytes.
fn inputIn_k40(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .sums = @ptrCast(@alignCast(memory + tokens * 192)),
    };
}

/// y[t, row] = scale[row] * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (64, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_64x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 64, .blocks = 2, .x_stride = 128, .token_group = 6144 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 512;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
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
    const ones: [64]f32 = @splat(1);
    const plain: Linear = .{ .codes = weights, .scales = &ones, .bias = null };
    linear_64x64(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale[row] * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (32, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_32x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 64, .blocks = 1, .x_stride = 128, .token_group = 6144 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 512;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 32). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_32x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
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
    const ones: [32]f32 = @splat(1);
    const plain: Linear = .{ .codes = weights, .scales = &ones, .bias = null };
    linear_32x64(plain, x, count, y, 32, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale[row] * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (128, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_128x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 64, .blocks = 4, .x_stride = 128, .token_group = 6144 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 512;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 128). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_128x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
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
    const ones: [128]f32 = @splat(1);
    const plain: Linear = .{ .codes = weights, .scales = &ones, .bias = null };
    linear_128x64(plain, x, count, y, 128, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale[row] * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (64, 40) ternary. x: (tokens, 40) int8. y: (tokens, y_stride).
fn linear_64x40(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 8) {
        const matrix: Matrix = .{ .features = 40, .blocks = 2, .x_stride = 112, .token_group = 9828 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 384;
        const row = block * 32;
        var t: usize = 0;
        while (t + 4 <= tokens) : (t += 4) packedTile(4, 2, 3, 112, w, t == 0, x.codes + t * 112, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 3, 112, w, t == 0, x.codes + t * 112, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 40) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x40(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k40(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 112 ..][0..48], 0);
        @memcpy(x.codes[t * 112 ..][0..40], codes[t * 40 ..][0..40]);
        x.inverse[t] = 1;
        prepare_k40(x, t);
    }
    const ones: [64]f32 = @splat(1);
    const plain: Linear = .{ .codes = weights, .scales = &ones, .bias = null };
    linear_64x40(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// out = x / sqrt(mean(x^2) + 0.00001) * weight over 64 features, in doubles; returns max |out|.
fn rmsNorm_k64_eps0_00001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(64, T, x, T, x) / 64.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.00001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = x / sqrt(mean(x^2) + 0.00001) * weight over 16 features, in doubles; returns max |out|.
fn rmsNorm_k16_eps0_00001(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
    const mean = math.dotWide(16, T, x, T, x) / 16.0;
    const scale: math.D = @splat(1.0 / @sqrt(mean + 0.00001));
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 16) : (i += math.lanes) {
        const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// max |x| over 64 features.
fn largest_k64(x: [*]const f32) f64 {
    var largest: math.F = @splat(0);
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
    return @reduce(.Max, largest);
}

/// Row t of out: round(x * 127 / max |x|) over 64 features, max |x| / 127, and what linears read.
fn quantize_k64(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
    const codes = out.codes + t * 128;
    const scale = 127.0 / @max(largest, 1e-5);
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) {
        const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
        const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
        codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
    }
    out.inverse[t] = 1.0 / scale;
    prepare_k64(out, t);
}

/// max |x| over 40 features.
fn largest_k40(x: [*]const f32) f64 {
    var largest: math.F = @splat(0);
    var i: usize = 0;
    while (i < 48) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
    return @reduce(.Max, largest);
}

/// Row t of out: round(x * 127 / max |x|) over 40 features, max |x| / 127, and what linears read.
fn quantize_k40(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
    const codes = out.codes + t * 112;
    const scale = 127.0 / @max(largest, 1e-5);
    var i: usize = 0;
    while (i < 48) : (i += math.lanes) {
        const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
        const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
        codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
    }
    out.inverse[t] = 1.0 / scale;
    prepare_k40(out, t);
}

/// x / (1 + exp(-x))
inline fn activate(x: math.F) math.D {
    const e: math.D = @floatCast(math.exp(-x));
    return @as(math.D, @floatCast(x)) / (@as(math.D, @splat(1)) + e);
}

/// out = act(gate) * up over 40 features, in doubles; returns max |out|.
fn gatedActivation(gate: [*]const f32, up: [*]const f32, out: [*]f64) f64 {
    const limit = math.splat(7);
    var largest: math.D = @splat(0);
    var i: usize = 0;
    while (i < 48) : (i += math.lanes) {
        const v = activate(@min(math.load(gate + i), limit)) * @as(math.D, @floatCast(@min(@max(math.load(up + i), -limit), limit)));
        largest = @max(largest, @abs(v));
        out[i..][0..math.lanes].* = v;
    }
    return @reduce(.Max, largest);
}

/// out = head turned to its position; features i and i + 4 form a pair.
inline fn rotate(head: [*]const f32, cos: [*]const f32, sin: [*]const f32, out: [*]f32) void {
    for (0..4) |i| {
        const a = head[i];
        const b = head[i + 4];
        out[i] = a * cos[i] - b * sin[i];
        out[i + 4] = b * cos[i] + a * sin[i];
    }
    @memcpy(out[8..16], head[8..16]);
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
const KeyGroup = extern struct { values: [16][2][16]f32 align(64) };
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
    for (0..16) |d| padded[d] = from[d];
    inline for (0..1) |v| {
        const x = math.load(padded[v * math.lanes ..].ptr);
        query.values[v * math.lanes ..][0..math.lanes].* = @as(math.D, @floatCast(x));
    }
}

fn storeKey(block: KeyBlock, slot: usize, from: [*]const f32) void {
    for (0..16) |d| keyFeature(block, d)[slot] = @floatCast(bounded(from[d]));
}

fn storeValue(block: ValueBlock, slot: usize, from: [*]const f32) void {
    for (0..16) |d| valueFeatures(block, slot, d)[0] = @floatCast(bounded(from[d]));
}

/// scores[r][offset + position] = q k^T * 0.25 for all positions of the blocks, feature by feature.
fn scoreKeys(comptime rows: usize, comptime blocks: usize, queries: [*]const Query, keys: [*]const KeyBlock, scores: [*][span]Score, offset: usize) void {
    var acc: [rows][blocks]math.D = @splat(@splat(@splat(0)));
    for (0..16) |d| {
        var k: [blocks]math.D = undefined;
        inline for (0..blocks) |b| k[b] = math.wide(f32, keyFeature(keys[b], d));
        inline for (0..rows) |r| {
            const q: math.D = @splat(queries[r].values[d]);
            inline for (0..blocks) |b| acc[r][b] += q * k[b];
        }
    }
    inline for (0..rows) |r| {
        inline for (0..blocks) |b| scores[r][offset + b * math.lanes ..][0..math.lanes].* = acc[r][b] * @as(math.D, @splat(0.25));
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
    keys: [2][8]KeyGroup align(64),
    values: [2]ValueChunk align(64),
};
const CacheChunk = [2]LayerCache;

comptime {
    // What TypeScript reports and allots by.
    std.debug.assert(@sizeOf(CacheChunk) == 131072);
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
    for (0..16) |d| out[d] = state.sums[d] * inverse;
}

/// What one thread works with: scores and weights of a tile's rows, and the rows of a span.
const Scratch = struct {
    scores: [1][span]Score align(64),
    weights: Weights,
    parts: [1]Row,
    states: [32]Row,
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
        return piece.count + row / 2;
    }

    inline fn firstOf(piece: *const Piece, row: usize) usize {
        return piece.countOf(row) -| piece.window;
    }
};

/// states = attention of a tile's queries of one KV head to the positions of spans[0] .. spans[1].
fn attendTile(a: *const Attention, places: Places, layer: usize, window: usize, head: usize, tile: Tile, spans: [2]usize, scratch: *Scratch, states: [*]Row) void {
    const count: usize = @intCast(places.positions[tile.first] + 1);
    const rows = tile.tokens * 2;
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
        keyBlock(a.cache, table[next_block], layer, if (more) head else (head + 1) % 2).fetchStart();
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
    /// (KV head, max_tokens, 2): the queries of one head and consecutive tokens lie together.
    queries: [*]Query = undefined,
    /// One a thread.
    scratch: [*]Scratch = undefined,
    /// A step's tiles, at most max_tokens.
    tiles: [*]Tile = undefined,
    tile_count: usize = 0,
    /// Spans of the longest sequence of the step, and whether they are shared out one by one.
    spans: usize = 0,
    split: bool = false,
    /// (KV head, spans, tokens, 2) where the step is split.
    parts: [*]Row = undefined,
    /// The next piece of work of each layer.
    tickets: [*]std.atomic.Value(u32) = undefined,
};

/// Queries of one token that share a KV head; those of the next token follow.
inline fn queriesOf(a: *const Attention, token: usize, head: usize) *[2]Query {
    return (a.queries + (head * a.max_tokens + token) * 2)[0..2];
}

/// Takes what attention needs for up to \`context\` positions from a carver of memory.
fn carveAttention(carver: *Carver, a: *Attention, max_tokens: usize, context: usize, threads: usize, kv_blocks: usize) void {
    const most_spans = (context + span - 1) / span;
    a.max_tokens = max_tokens;
    a.threads = threads;
    a.queries = carver.take(Query, 2 * max_tokens * 2);
    a.scratch = carver.take(Scratch, threads);
    a.tiles = carver.take(Tile, max_tokens);
    a.parts = carver.take(Row, threads * split_pairs * most_spans * 2);
    a.tickets = carver.take(std.atomic.Value(u32), 2);
    a.cache = carver.take(CacheChunk, chunksOf(kv_blocks));
}

/// Before a step: cuts its tokens into tiles. A few tokens with a long past are split by spans, as
/// there would be too little for all threads else.
fn shareOut(a: *Attention, places: Places) void {
    var longest: usize = 0;
    for (places.positions[0..places.tokens]) |position| longest = @max(longest, @as(usize, @intCast(position)) + 1);
    a.spans = (longest + span - 1) / span;
    a.split = a.spans > 1 and places.tokens * 2 <= a.threads * split_pairs;
    var most: usize = 16;
    while (most > 2 and places.tokens * 2 < 4 * a.threads * most) most /= 2;
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
/// attended: (tokens, stride) with 4 heads of 16.
fn attendPieces(a: *const Attention, places: Places, layer: usize, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
    const scratch = &a.scratch[thread];
    if (a.split) return attendSpans(a, places, layer, window, scratch);
    const pieces = a.tile_count * 2;
    while (true) {
        const piece: usize = a.tickets[layer].fetchAdd(1, .monotonic);
        if (piece >= pieces) return;
        const tile = a.tiles[a.tile_count - 1 - piece % a.tile_count];
        const head = piece / a.tile_count;
        attendTile(a, places, layer, window, head, tile, .{ 0, a.spans }, scratch, &scratch.states);
        for (0..tile.tokens * 2) |r| finishRow(&scratch.states[r], attendedRow(attended, stride, tile.first + r / 2, head, r % 2));
    }
}

/// Takes some spans of a split step at a time, so that what was fetched ahead is mostly one's own.
fn attendSpans(a: *const Attention, places: Places, layer: usize, window: usize, scratch: *Scratch) void {
    const pieces = a.tile_count * 2 * a.spans;
    while (true) {
        const first = ticket_spans * @as(usize, a.tickets[layer].fetchAdd(1, .monotonic));
        if (first >= pieces) return;
        for (first..@min(first + ticket_spans, pieces)) |piece| {
            const head = piece / a.spans % 2;
            const index = piece % a.spans;
            const tile = a.tiles[piece / a.spans / 2];
            const states = partsOf(a, places, head, index) + tile.first * 2;
            attendTile(a, places, layer, window, head, tile, .{ index, index + 1 }, scratch, states);
        }
    }
}

inline fn partsOf(a: *const Attention, places: Places, head: usize, index: usize) [*]Row {
    return a.parts + (head * a.spans + index) * places.tokens * 2;
}

inline fn attendedRow(attended: [*]f32, stride: usize, token: usize, head: usize, query: usize) [*]f32 {
    return attended + token * stride + (head * 2 + query) * 16;
}

/// After a split step's pieces: joins the spans of each query. Heads of tokens are shared out.
fn joinParts(a: *const Attention, places: Places, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
    const pairs = math.share(places.tokens * 2, thread, a.threads);
    for (pairs[0]..pairs[1]) |pair| {
        const token = pair / 2;
        const head = pair % 2;
        const count: usize = @intCast(places.positions[token] + 1);
        for (0..2) |g| {
            const first = (count -| window) / span;
            const state = &partsOf(a, places, head, first)[token * 2 + g];
            for (first + 1..(count + span - 1) / span) |index| join(state, &partsOf(a, places, head, index)[token * 2 + g]);
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
            for (0..2) |head| {
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
/// q: (tokens, 4, 16). k, v: (positions, 2, 16). table: KV blocks of the
/// sequence. window: positions that a query sees at most. out: (tokens, 4, 16). Work is shared out as for \`threads\` threads, and done
/// by this one. Returns 1 if memory is short, else 0.
pub export fn trilith_attention_4x2x16_f32(q: [*]const f32, k: [*]const f32, v: [*]const f32, table: [*]const i32, positions: i32, tokens: i32, window: i32, threads: i32, out: [*]f32) i32 {
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
    for (0..2) |head| {
        for (0..count) |position| {
            const row = (position * 2 + head) * 16;
            const block = table[position / 16];
            storeKey(keyBlock(a.cache, block, 0, head), position % 16, k + row);
            storeValue(valueBlock(a.cache, block, 0, head), position % 16, v + row);
        }
        for (0..queries) |token| {
            const first = q + (token * 4 + head * 2) * 16;
            for (queriesOf(&a, token, head), 0..) |*query, g| makeQuery(query, first + g * 16);
        }
    }
    shareOut(&a, places);
    attendPieces(&a, places, 0, @intCast(window), 0, out, 64);
    if (a.split) {
        for (0..a.threads) |thread| joinParts(&a, places, @intCast(window), thread, out, 64);
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

const EmbeddingElement = u16;

/// out = the embedding of a token.
fn embed(weights: [*]const u8, token: i32, out: [*]f32) void {
    const embedding: [*]const EmbeddingElement = @ptrCast(@alignCast(weights + embedding_at));
    const row = embedding + @as(usize, @intCast(token)) * 64;
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) math.store(out + i, math.widen(EmbeddingElement, row + i));
}

const HeadElement = u16;

/// logits[l, r] = row r of the head . x[l] for rows first .. last: (50, 64) by (64,).
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
        row.* = head + i * 64;
        later.* = row.* + 4 * 64;
    }
    for (0..count) |l| logits[l * 50 + r ..][0..tile].* = sumRowsOf(tile, x + l * 64, &from, &next);
}

/// out[i] = row rows[i] of the head . x, as scoreRows computes it. Rows are far from one another.
fn scorePicked(head: [*]const HeadElement, x: [*]const f32, rows: []const u32, out: [*]f32) void {
    var i: usize = 0;
    while (i + 4 <= rows.len) : (i += 4) {
        var from: [4][*]const HeadElement = undefined;
        var next: [4][*]const HeadElement = undefined;
        for (&from, &next, i..) |*row, *later, j| {
            row.* = head + @as(usize, rows[j]) * 64;
            later.* = head + @as(usize, rows[@min(j + 4, rows.len - 1)]) * 64;
        }
        out[i..][0..4].* = sumRowsOf(4, x, &from, &next);
    }
    while (i < rows.len) : (i += 1) out[i] = sumRowsOf(1, x, &.{head + @as(usize, rows[i]) * 64}, &.{})[0];
}

/// The sums of some rows; those in \`next\` are fetched meanwhile.
inline fn sumRowsOf(comptime tile: usize, x: [*]const f32, from: *const [tile][*]const HeadElement, next: []const [*]const HeadElement) [tile]f32 {
    var acc: [tile]math.F = @splat(@splat(0));
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) {
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
    const input_norm = 0;
    const post_attention_norm = 256;
    const query_norm = 512;
    const key_norm = 576;
    const q_scales = 640;
    const q_codes = 896;
    const k_scales = 1920;
    const k_codes = 2048;
    const v_scales = 2560;
    const v_codes = 2688;
    const o_scales = 3200;
    const o_codes = 3456;
    const router = 4480;
    const experts = 5504;
};
const embedding_at = 0;
const final_norm_at = 6400;
const head_at = 0;
const layers_at = 8192;
const layer_bytes = 36864;

/// A loaded model: its packed weights, its KV cache, and buffers for max_tokens rows.
const Model = struct {
    weights: [*]const u8,
    team: *Team,
    max_tokens: usize,
    context: usize,
    memory: [*]u8,
    memory_bytes: usize,
    attention: Attention,
    /// cos then sin, (context, 4) each.
    rope: [*]const f32,
    /// Normed values, one row of doubles a thread and one for the linears' own norms.
    rows: [*]f64,
    h: [*]f32,
    y: [*]f32,
    q: [*]f32,
    k: [*]f32,
    v: [*]f32,
    attended: [*]f32,
    routed: [*]f32,
    router_scores: [*]f32,
    picked: [*]u32,
    picked_weights: [*]f32,
    expert_out: [*]f32,
    normed: [*]f32,
    x0_codes: [*]i8,
    x0_inverse: [*]f64,
    x0_sums: [*]i32,
    /// Of each thread its own: inputs and outputs of some tokens of an expert.
    thread_experts: [*]u8,
    thread_expert_bytes: usize,
    /// The same for all threads, where they share an expert.
    shared_experts: [*]u8,
    /// Of each thread its own: tokens by expert.
    groups: [*]u32,
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
        .scales = floats(layer + scale),
        .bias = if (bias) |offset| floats(layer + offset) else null,
    };
}

inline fn inputOf(model: *const Model, comptime input: usize) Quantized {
    return switch (input) {
        0 => .{ .codes = model.x0_codes, .inverse = model.x0_inverse, .sums = model.x0_sums },
        else => comptime unreachable,
    };
}

/// h += y; q, k, v read round(norm(h)) of this thread's tokens.
fn attentionInput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 128;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const h = model.h + t * 64;
        const y = model.y + t * 64;
        var i: usize = 0;
        while (i < 64) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        const largest = rmsNorm_k64_eps0_00001(f32, h, floats(layer + at.input_norm), row);
        quantize_k64(f64, row, largest, inputOf(model, 0), t);
    }
}

/// q, k, v: 4 blocks of 32 rows, shared out among threads.
fn attentionLinears(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(4, thread, model.team.threads);
    linear_64x64(linearAt(layer, at.q_scales, at.q_codes, null), inputOf(model, 0), step.batch.tokens, model.q, 64, overlap(mine, 0, 2));
    linear_32x64(linearAt(layer, at.k_scales, at.k_codes, null), inputOf(model, 0), step.batch.tokens, model.k, 32, overlap(mine, 2, 1));
    linear_32x64(linearAt(layer, at.v_scales, at.v_codes, null), inputOf(model, 0), step.batch.tokens, model.v, 32, overlap(mine, 3, 1));
}

const layer_slides = [_]bool{ true, false };
const layer_turns = [_]bool{ true, false };

/// A query or key head as attention reads it.
inline fn placeHead(norm: [*]const f32, head: [*]const f32, turns: bool, cos: [*]const f32, sin: [*]const f32, out: [*]f32) void {
    var padded: [16]f32 = @splat(0);
    padded[0..16].* = head[0..16].*;
    var wide: [16]f64 = undefined;
    _ = rmsNorm_k16_eps0_00001(f32, &padded, norm, &wide);
    for (0..16) |d| padded[d] = @floatCast(wide[d]);
    const normed: [*]const f32 = &padded;
    if (turns) rotate(normed, cos, sin, out) else @memcpy(out[0..16], normed[0..16]);
}

/// Turns queries and keys to their positions; keys and values go into the cache.
fn rotateAndStore(step: *const Step, layer_index: usize, thread: usize) void {
    const model = step.model;
    const places = step.batch.places;
    const layer = model.layer(layer_index);
    const turns = layer_turns[layer_index];
    const items = math.share(places.tokens * 2, thread, model.team.threads);
    for (items[0]..items[1]) |item| {
        const t = item / 2;
        const head = item % 2;
        const position: usize = @intCast(places.positions[t]);
        const cos = model.rope + position * 4;
        const sin = cos + model.context * 4;
        var turned: [16]f32 = undefined;
        const first = model.q + t * 64 + head * 32;
        for (queriesOf(&model.attention, t, head), 0..) |*query, g| {
            placeHead(floats(layer + at.query_norm), first + g * 16, turns, cos, sin, &turned);
            makeQuery(query, &turned);
        }
        const key = model.k + t * 32 + head * 16;
        placeHead(floats(layer + at.key_norm), key, turns, cos, sin, &turned);
        const block = places.table(t)[position / 16];
        const slot = position % 16;
        storeKey(keyBlock(model.attention.cache, block, layer_index, head), slot, &turned);
        storeValue(valueBlock(model.attention.cache, block, layer_index, head), slot, model.v + t * 32 + head * 16);
    }
}

/// Attention of all tokens. Where spans were shared out, another barrier and their joining follow.
fn attendAll(step: *const Step, layer_index: usize, thread: usize) void {
    const model = step.model;
    const places = step.batch.places;
    const window: usize = if (layer_slides[layer_index]) 5 else everything;
    attendPieces(&model.attention, places, layer_index, window, thread, model.attended, 64);
    if (!model.attention.split) return;
    model.team.barrier();
    joinParts(&model.attention, places, window, thread, model.attended, 64);
}

/// o reads round(x) of this thread's tokens.
fn attentionOutput(step: *const Step, layer: [*]const u8, thread: usize) void {
    _ = layer;
    const model = step.model;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const x = model.attended + t * 64;
        const largest_made = largest_k64(x);
        const largest = largest_made;
        quantize_k64(f32, x, largest, inputOf(model, 0), t);
    }
}

/// o: 2 blocks of 32 rows, shared out among threads.
fn outputLinear(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const mine = math.share(2, thread, model.team.threads);
    linear_64x64(linearAt(layer, at.o_scales, at.o_codes, null), inputOf(model, 0), step.batch.tokens, model.y, 64, overlap(mine, 0, 2));
}

/// h += y; gate, up read round(norm(h)) of this thread's tokens.
fn mlpInput(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const row = model.rows + thread * 128;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        const h = model.h + t * 64;
        const y = model.y + t * 64;
        var i: usize = 0;
        while (i < 64) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        const largest = rmsNorm_k64_eps0_00001(f32, h, floats(layer + at.post_attention_norm), row);
        quantize_k64(f64, row, largest, inputOf(model, 0), t);
        for (0..64) |d| model.routed[t * 64 + d] = @floatCast(row[d]);
    }
}

/// Where an expert's tensors lie, in bytes from its start.
const at_expert = struct {
    const gate_up_codes = 0;
    const gate_up_scales = 2048;
    const down_codes = 2560;
    const down_scales = 3328;
};

fn expertOf(layer: [*]const u8, index: usize) [*]const u8 {
    return layer + at.experts + index * 3584;
}

/// Gate's rows, then up's from a block's first row on: (128, 64).
inline fn gateUpOf(expert: [*]const u8) Linear {
    return .{ .codes = expert + at_expert.gate_up_codes, .scales = floats(expert + at_expert.gate_up_scales), .bias = null };
}

/// (64, 40)
inline fn downOf(expert: [*]const u8) Linear {
    return .{ .codes = expert + at_expert.down_codes, .scales = floats(expert + at_expert.down_scales), .bias = null };
}

const RouterElement = u16;

/// Rows of the router and tokens that meet at once: their sums stay in registers.
const wide_registers = (std.simd.suggestVectorLength(f32) orelse 4) >= math.lanes;
const router_rows = if (wide_registers) 4 else 2;
const router_tokens = if (wide_registers) 4 else 2;

/// router_scores[t, e] = row e of the router . routed[t]: experts are shared out among threads.
fn scoreExperts(step: *const Step, layer: [*]const u8, thread: usize) void {
    const model = step.model;
    const router: [*]const RouterElement = @ptrCast(@alignCast(layer + at.router));
    const tiles = math.share(8 / router_rows, thread, model.team.threads);
    for (tiles[0]..tiles[1]) |tile| {
        const rows = router + tile * router_rows * 64;
        const scores = model.router_scores + tile * router_rows;
        var t: usize = 0;
        while (t + router_tokens <= step.batch.tokens) : (t += router_tokens) scoreTokens(router_tokens, rows, model.routed + t * 64, scores + t * 8);
        while (t < step.batch.tokens) : (t += 1) scoreTokens(1, rows, model.routed + t * 64, scores + t * 8);
    }
}

/// Scores of m tokens for some experts: lane i % 16 adds its products in order, then the tree.
inline fn scoreTokens(comptime m: usize, router: [*]const RouterElement, x: [*]const f32, scores: [*]f32) void {
    var acc: [m][router_rows]math.F = @splat(@splat(@splat(0)));
    var i: usize = 0;
    while (i < 64) : (i += math.lanes) {
        inline for (0..router_rows) |r| {
            // One token reads the router from memory: the next tile is fetched meanwhile.
            if (m == 1) @prefetch(router + (router_rows + r) * 64 + i, .{ .locality = 2 });
            const row = math.widen(RouterElement, router + r * 64 + i);
            inline for (0..m) |t| acc[t][r] += math.load(x + t * 64 + i) * row;
        }
    }
    inline for (0..m) |t| {
        inline for (0..router_rows) |r| scores[t * 8 + r] = math.sum(acc[t][r]);
    }
}

/// The experts of each token, best first, and their weights. Tokens are shared out among threads.
fn pickExperts(step: *const Step, thread: usize) void {
    const model = step.model;
    const tokens = math.share(step.batch.tokens, thread, model.team.threads);
    for (tokens[0]..tokens[1]) |t| {
        const scores = model.router_scores + t * 8;
        pickLargest(scores, model.picked + t * 3);
        weighPicked(scores, model.picked + t * 3, model.picked_weights + t * 16);
    }
}

/// The 3 largest of 8 scores, falling; of equal ones the lower expert first.
/// Whatever the scores are, not a number too, the picked are different experts.
fn pickLargest(scores: [*]const f32, picked: [*]u32) void {
    var found: usize = 0;
    for (0..8) |expert| {
        const score = scores[expert];
        if (found == 3 and !(score > scores[picked[2]])) continue;
        if (found < 3) found += 1;
        var rank = found - 1;
        while (rank > 0 and score > scores[picked[rank - 1]]) : (rank -= 1) picked[rank] = picked[rank - 1];
        picked[rank] = @intCast(expert);
    }
}

/// Softmax over the picked scores.
fn weighPicked(scores: [*]const f32, picked: [*]const u32, weights: [*]f32) void {
    var sums: math.F = @splat(0);
    var i: usize = 0;
    while (i < 3) : (i += math.lanes) {
        const count: usize = @min(math.lanes, 3 - i);
        var below: [math.lanes]f32 = @splat(0);
        for (0..count) |l| below[l] = scores[picked[i + l]] - scores[picked[0]];
        var exps: [math.lanes]f32 = math.exp(below);
        for (count..math.lanes) |l| exps[l] = 0;
        weights[i..][0..math.lanes].* = exps;
        sums += exps;
    }
    const inverse = math.splat(1.0 / math.sum(sums));
    i = 0;
    while (i < 3) : (i += math.lanes) math.store(weights + i, math.load(weights + i) * inverse);
}

/// A batch's picks grouped by expert. Each thread makes its own, which takes less than to wait.
const Groups = struct {
    /// (8 + 2,): picks of expert e have the places starts[e] .. starts[e + 1].
    starts: [*]u32,
    /// (places,): the token at each place; in an expert's part tokens stand in order.
    tokens: [*]u32,
    /// (tokens, 3): the place of each pick.
    places: [*]u32,

    fn of(model: *const Model, thread: usize) Groups {
        const picks = model.max_tokens * 3;
        const starts = model.groups + thread * (10 + 2 * picks);
        return .{ .starts = starts, .tokens = starts + 10, .places = starts + 10 + picks };
    }

    fn group(groups: Groups, model: *const Model, tokens: usize) void {
        const starts = groups.starts;
        @memset(starts[0..10], 0);
        for (0..tokens * 3) |pick| starts[model.picked[pick] + 2] += 1;
        for (2..10) |i| starts[i] += starts[i - 1];
        // Now starts[e + 1] is where e begins; placing its picks moves it to where e ends.
        for (0..tokens * 3) |pick| {
            const place = &starts[model.picked[pick] + 1];
            groups.tokens[place.*] = @intCast(pick / 3);
            groups.places[pick] = place.*;
            place.* += 1;
        }
    }
};

/// Some tokens of one expert, 32 at most: places first .. last.
const Work = struct { expert: usize, first: usize, last: usize };

/// All work of a batch, in the order of the experts.
const Works = struct {
    groups: Groups,
    expert: usize = 0,
    place: usize = 0,

    fn next(works: *Works) ?Work {
        const starts = works.groups.starts;
        while (works.expert < 8 and works.place == starts[works.expert + 1]) works.expert += 1;
        if (works.expert == 8) return null;
        const first = works.place;
        works.place = @min(first + 32, starts[works.expert + 1]);
        return .{ .expert = works.expert, .first = first, .last = works.place };
    }
};

/// How work is shared out: each thread has about as much as the others, in whole pieces.
const Shares = struct {
    total: usize,
    threads: usize,
    /// The work of the thread that has most.
    most: usize,

    fn of(groups: Groups, threads: usize) Shares {
        var shares: Shares = .{ .total = 0, .threads = threads, .most = 0 };
        var works: Works = .{ .groups = groups };
        while (works.next()) |work| shares.total += costOf(work);
        works = .{ .groups = groups };
        var done: usize = 0;
        var thread: usize = 0;
        var own: usize = 0;
        while (works.next()) |work| {
            const owner = shares.ownerOf(done, work);
            own = if (owner == thread) own + costOf(work) else costOf(work);
            thread = owner;
            shares.most = @max(shares.most, own);
            done += costOf(work);
        }
        return shares;
    }

    /// The thread in whose part the middle of the work falls.
    fn ownerOf(shares: Shares, done: usize, work: Work) usize {
        return (2 * done + costOf(work)) * shares.threads / (2 * shares.total);
    }

    fn isEven(shares: Shares) bool {
        return 8 * shares.most * shares.threads <= 9 * shares.total;
    }

    fn costOf(work: Work) usize {
        return work.last - work.first + 2;
    }
};

/// Inputs of 64 features from row t on.
inline fn inputFrom_k64(x: Quantized, t: usize) Quantized {
    return .{
        .codes = x.codes + t * 128,
        .inverse = x.inverse + t * 1,
        .sums = x.sums + t * 1,
    };
}

/// Inputs of 40 features from row t on.
inline fn inputFrom_k40(x: Quantized, t: usize) Quantized {
    return .{
        .codes = x.codes + t * 112,
        .inverse = x.inverse + t * 1,
        .sums = x.sums + t * 1,
    };
}

/// The inputs of some tokens one after the other. Only codes are copied: making anew what linears
/// read of them moves less memory.
fn gatherInputs(x: Quantized, tokens: []const u32, out: Quantized) Quantized {
    if (tokens.len == 1) return inputFrom_k64(x, tokens[0]);
    for (tokens, 0..) |t, i| {
        @memcpy(out.codes[i * 128 ..][0..128], x.codes[t * 128 ..][0..128]);
        out.inverse[i] = x.inverse[t];
        prepare_k64(out, i);
    }
    return out;
}

/// Row i of activated = round(act(gate) * up) of row i of gate_up.
fn activateRow(gate_up: [*]const f32, activated: Quantized, row: [*]f64, i: usize) void {
    const gate = gate_up + i * 128;
    const largest = gatedActivation(gate, gate + 64, row);
    quantize_k40(f64, row, largest, activated, i);
}

/// The thread's part of the experts, each from its tokens' inputs to its outputs.
fn runWhole(step: *const Step, layer: [*]const u8, groups: Groups, shares: Shares, watch: ?*Stopwatch, thread: usize) void {
    const model = step.model;
    const memory = model.thread_experts + thread * model.thread_expert_bytes;
    const activated = inputIn_k40(memory, 32);
    const gate_up: [*]f32 = @ptrCast(@alignCast(memory + 8192));
    const gathered = inputIn_k64(memory + 24576, 32);
    const row = model.rows + thread * 128;
    var works: Works = .{ .groups = groups };
    var done: usize = 0;
    while (works.next()) |work| {
        const owner = shares.ownerOf(done, work);
        done += Shares.costOf(work);
        if (owner != thread) continue;
        const expert = expertOf(layer, work.expert);
        const tokens = groups.tokens[work.first..work.last];
        const x = gatherInputs(inputOf(model, 0), tokens, gathered);
        lap(watch, .gather);
        linear_128x64(gateUpOf(expert), x, tokens.len, gate_up, 128, .{ 0, 4 });
        lap(watch, .gateUp);
        for (0..tokens.len) |i| activateRow(gate_up, activated, row, i);
        lap(watch, .activation);
        linear_64x40(downOf(expert), activated, tokens.len, model.expert_out + work.first * 64, 64, .{ 0, 2 });
        lap(watch, .down);
    }
}

/// All threads work on the same experts: for few tokens, where whole experts don't come out even.
fn runSplit(step: *const Step, layer: [*]const u8, groups: Groups, team: *Team, watch: ?*Stopwatch, thread: usize) void {
    const model = step.model;
    const memory = model.shared_experts;
    const activated = inputIn_k40(memory, 24);
    const gate_up: [*]f32 = @ptrCast(@alignCast(memory + 6144));
    const own = model.thread_experts + thread * model.thread_expert_bytes;
    const gathered = inputIn_k64(own + 24576, 32);
    var cuts: Cuts = .{ .works = .{ .groups = groups }, .blocks = 4, .thread = thread, .threads = team.threads };
    while (cuts.next()) |cut| {
        const tokens = groups.tokens[cut.work.first..cut.work.last];
        const x = gatherInputs(inputOf(model, 0), tokens, gathered);
        linear_128x64(gateUpOf(expertOf(layer, cut.work.expert)), x, tokens.len, gate_up + cut.work.first * 128, 128, cut.blocks);
    }
    meet(team, watch, .gateUp);
    const rows = math.share(step.batch.tokens * 3, thread, team.threads);
    for (rows[0]..rows[1]) |i| activateRow(gate_up, activated, model.rows + thread * 128, i);
    meet(team, watch, .activation);
    cuts = .{ .works = .{ .groups = groups }, .blocks = 2, .thread = thread, .threads = team.threads };
    while (cuts.next()) |cut| {
        const x = inputFrom_k40(activated, cut.work.first);
        linear_64x40(downOf(expertOf(layer, cut.work.expert)), x, cut.work.last - cut.work.first, model.expert_out + cut.work.first * 64, 64, cut.blocks);
    }
}

/// A thread's part of one matrix of each expert, in units of 4 blocks.
const Cuts = struct {
    works: Works,
    blocks: usize,
    thread: usize,
    threads: usize,
    /// Units of the experts before.
    done: usize = 0,

    const Cut = struct { work: Work, blocks: [2]usize };

    fn next(cuts: *Cuts) ?Cut {
        const units = (cuts.blocks + 3) / 4;
        const mine = math.share(cuts.total(units), cuts.thread, cuts.threads);
        while (cuts.works.next()) |work| {
            const own = overlap(mine, cuts.done, units);
            cuts.done += units;
            if (own[0] == own[1]) continue;
            return .{ .work = work, .blocks = .{ own[0] * 4, @min(own[1] * 4, cuts.blocks) } };
        }
        return null;
    }

    fn total(cuts: *const Cuts, units: usize) usize {
        var works: Works = .{ .groups = cuts.works.groups };
        var count: usize = 0;
        while (works.next()) |_| count += units;
        return count;
    }
};

/// The picked experts of all tokens. All threads decide alike whether experts are cut.
fn runExperts(step: *const Step, layer: [*]const u8, team: *Team, watch: ?*Stopwatch, thread: usize) void {
    const groups: Groups = .of(step.model, thread);
    groups.group(step.model, step.batch.tokens);
    const shares: Shares = .of(groups, team.threads);
    if (step.batch.tokens > 8 or shares.isEven()) {
        runWhole(step, layer, groups, shares, watch, thread);
    } else {
        runSplit(step, layer, groups, team, watch, thread);
    }
}

/// y[t] = sum over ranks of weight * the expert's output, in order. Tokens are shared out among threads.
fn combineExperts(step: *const Step, thread: usize) void {
    const model = step.model;
    const places = Groups.of(model, thread).places;
    const tokens = math.share(step.batch.tokens, thread, model.team.threads);
    for (tokens[0]..tokens[1]) |t| {
        var i: usize = 0;
        while (i < 64) : (i += math.lanes) {
            var sum: math.F = @splat(0);
            for (0..3) |rank| {
                const out = math.load(model.expert_out + places[t * 3 + rank] * 64 + i);
                sum += math.splat(model.picked_weights[t * 16 + rank]) * out;
            }
            math.store(model.y + t * 64 + i, sum);
        }
    }
}

/// The part of blocks mine[0] .. mine[1] that falls into the matrix whose blocks begin at from.
inline fn overlap(mine: [2]usize, from: usize, count: usize) [2]usize {
    return .{ @min(@max(mine[0], from) - from, count), @min(@max(mine[1], from) - from, count) };
}

/// A few tokens, which every thread prepares for itself: norms and inputs of linears cost less than a
/// barrier, and far less than lines that another core has written or read last.
inline fn isAlone(step: *const Step) bool {
    _ = step;
    return false;
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
    own.h += first * 64;
    own.x0_codes += first * 128;
    own.x0_inverse += first * 1;
    own.x0_sums += first * 1;
    return own;
}

fn embedTokens(step: *const Step, thread: usize) void {
    const model = step.model;
    const tokens = tokensOf(step, thread);
    for (tokens[0]..tokens[1]) |t| {
        embed(model.weights, step.batch.ids[t], model.h + t * 64);
        @memset(model.y[t * 64 ..][0..64], 0);
    }
}

/// Final norm of the rows whose logits or hidden states are wanted.
fn finalNorm(step: *const Step, thread: usize) void {
    const model = step.model;
    const rows = math.share(step.batch.row_count, thread, model.team.threads);
    for (rows[0]..rows[1]) |l| {
        const t: usize = @intCast(step.batch.rows[l]);
        const h = model.h + t * 64;
        const y = model.y + t * 64;
        const row = model.rows + thread * 128;
        var i: usize = 0;
        while (i < 64) : (i += math.lanes) math.store(h + i, math.load(h + i) + math.load(y + i));
        _ = rmsNorm_k64_eps0_00001(f32, h, floats(model.weights + final_norm_at), row);
        for (0..64) |d| model.normed[l * 64 + d] = @floatCast(row[d]);
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
        scoreExperts(step, layer, thread);
        meet(team, watch, .router);
        pickExperts(step, thread);
        meet(team, watch, .pick);
        runExperts(step, layer, team, watch, thread);
        meet(team, watch, .down);
        combineExperts(step, thread);
        meet(team, watch, .combine);
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
    const bytes = 4608;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(4 * bytes) orelse return);
    const codes: [*]const i8 = @ptrCast(memory);
    const y: [*]f32 = @ptrCast(@alignCast(memory + 2 * bytes));
    const weights = memory + 3 * bytes;
    _ = trilith_linear_64x64(weights, codes, 5, y, 0, 2);
    _ = trilith_linear_64x64(weights, codes, 9, y, 0, 2);
    _ = trilith_linear_32x64(weights, codes, 5, y, 0, 1);
    _ = trilith_linear_32x64(weights, codes, 9, y, 0, 1);
    _ = trilith_linear_128x64(weights, codes, 5, y, 0, 4);
    _ = trilith_linear_128x64(weights, codes, 9, y, 0, 4);
    _ = trilith_linear_64x40(weights, codes, 5, y, 0, 2);
    _ = trilith_linear_64x40(weights, codes, 9, y, 0, 2);
    quantize_k64(f32, y, largest_k64(y), inputIn_k64(memory, 1), 0);
    quantize_k40(f32, y, largest_k40(y), inputIn_k40(memory, 1), 0);
    _ = gatedActivation(y, y, @ptrCast(@alignCast(memory + bytes)));
    scoreRows(@ptrCast(@alignCast(weights)), y, 1, y, .{ 0, 1 });
    _ = trilith_attention_4x2x16_f32(y, y, y, @ptrCast(@alignCast(memory)), 1, 1, 1, 1, @ptrCast(@alignCast(memory + bytes)));
    host.trilith_free(memory, 4 * bytes);
}

fn carve(carver: *Carver, model: *Model, threads: usize, kv_blocks: usize) void {
    const tokens = rowsOf(model.max_tokens, threads);
    model.rows = carver.take(f64, threads * 128);
    model.h = carver.take(f32, tokens * 64);
    model.y = carver.take(f32, tokens * 64);
    model.q = carver.take(f32, tokens * 64);
    model.k = carver.take(f32, tokens * 32);
    model.v = carver.take(f32, tokens * 32);
    model.attended = carver.take(f32, tokens * 64);
    model.routed = carver.take(f32, tokens * 64);
    model.router_scores = carver.take(f32, tokens * 8);
    model.picked = carver.take(u32, tokens * 3);
    model.picked_weights = carver.take(f32, tokens * 16);
    model.expert_out = carver.take(f32, tokens * 192);
    model.normed = carver.take(f32, tokens * 64);
    model.x0_codes = carver.take(i8, tokens * 128);
    model.x0_inverse = carver.take(f64, tokens * 1);
    model.x0_sums = carver.take(i32, tokens * 1);
    model.thread_expert_bytes = 32768;
    model.thread_experts = carver.take(u8, threads * 32768);
    model.shared_experts = carver.take(u8, 18432);
    model.groups = carver.take(u32, threads * (10 + 2 * tokens * 3));
    const rope = carver.take(f32, model.context * 8);
    model.rope = rope;
    carveAttention(carver, &model.attention, tokens, model.context, threads, kv_blocks);
}

/// Makes a model over packed weights. rope: cos then sin, (context, 4) each, copied.
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
    const words = model.context * 8;
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

/// Hidden states after the final norm that the last step left, (count, 64) float32, from its
/// \`first\`th row on: the rows of logits come before those of hidden states.
pub export fn trilith_hidden(model: *const Model, first: i32, count: i32, out: [*]f32) void {
    const from: usize = @intCast(first);
    for (0..@intCast(count)) |l| {
        const row = model.normed + (from + l) * 64;
        @memcpy(out[l * 64 ..][0..64], row[0..64]);
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
