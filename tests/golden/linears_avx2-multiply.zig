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
    const partial_steps = @min(16, group_steps, steps);
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

const slice_features = 256;

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

/// From the codes of token t, what linears of 96 features read.
fn prepare_k96(x: Quantized, t: usize) void {
    const codes = x.codes + t * 160;
    var sums: math.I = @splat(0);
    for (0..6) |i| {
        const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
}

/// Inputs of 96 features, each array in its part of tokens * 320 bytes.
fn inputIn_k96(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 192)),
        .sums = @ptrCast(@alignCast(memory + tokens * 256)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (96, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_96x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 16) {
        const matrix: Matrix = .{ .features = 64, .blocks = 3, .x_stride = 128, .token_group = 6144 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 512;
        const row = block * 32;
        var t: usize = 0;
        while (t + 6 <= tokens) : (t += 6) packedTile(6, 1, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 2 <= tokens) : (t += 2) packedTile(2, 4, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 4, 128, w, t == 0, x.codes + t * 128, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 96). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_96x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
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
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_96x64(plain, x, count, y, 96, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (64, 96) ternary. x: (tokens, 96) int8. y: (tokens, y_stride).
fn linear_64x96(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 16) {
        const matrix: Matrix = .{ .features = 96, .blocks = 2, .x_stride = 160, .token_group = 4092 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    const sums: [*]i32 = @ptrCast(y);
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 768;
        const row = block * 32;
        var t: usize = 0;
        while (t + 6 <= tokens) : (t += 6) packedTile(6, 1, 6, 160, w, t == 0, x.codes + t * 160, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 2 <= tokens) : (t += 2) packedTile(2, 4, 6, 160, w, t == 0, x.codes + t * 160, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 6, 160, w, t == 0, x.codes + t * 160, FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride });
        finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 96) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x96(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 320;
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
