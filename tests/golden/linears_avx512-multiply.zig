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

const Sums = @Vector(16, i32);
const Codes = @Vector(64, u8);
extern fn @"llvm.x86.avx512.vpdpbusd.512"(Sums, Sums, Sums) callconv(.{ .x86_64_sysv = .{} }) Sums;

/// acc[lane] += sum over j < 4 of codes[4 lane + j] * x[4 lane + j]: vpdpbusd.
inline fn dotFour(acc: Sums, codes: Codes, x: Sums) Sums {
    return @"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(codes), x);
}

/// The codes in bits 2i, 2i + 1 of every byte.
inline fn plane(packed_codes: Codes, comptime i: u4) Codes {
    const Words = @Vector(@typeInfo(Codes).vector.len / 2, u16);
    const words: Words = @bitCast(packed_codes);
    const shifted: Codes = @bitCast(words >> @splat(2 * i));
    return shifted & @as(Codes, @splat(3));
}

inline fn broadcastFour(x: [*]const i8) Sums {
    const four: i32 = @bitCast(x[0..4].*);
    return @splat(four);
}

/// y[t] = sums - sum of x, scaled, for the 32 rows of a block.
inline fn finishBlock(comptime m: usize, sums: *const [m][32]i32, linear: Linear, x: Quantized, t_0: usize, row: usize, y: [*]f32, y_stride: usize) void {
    inline for (0..m) |t| {
        const offset: math.I = @splat(x.sums[t_0 + t]);
        inline for (0..2) |half| {
            const coded: math.I = sums[t][half * 16 ..][0..16].*;
            finish(coded - offset, linear, x.inverse[t_0 + t], row + half * 16, y + (t_0 + t) * y_stride);
        }
    }
}

/// From the codes of token t, what linears of 64 features read.
fn prepare_k64(x: Quantized, t: usize) void {
    const codes = x.codes + t * 128;
    var sums: math.I = @splat(0);
    for (0..4) |step| {
        const some: @Vector(16, i8) = codes[step * 16 ..][0..16].*;
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
    for (0..6) |step| {
        const some: @Vector(16, i8) = codes[step * 16 ..][0..16].*;
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

/// Sums of code * x for a block of 32 rows and 8 token(s), k = 64. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k64_m8(w: [*]const u8, x: [*]const i8, out: *[8][32]i32) void {
    inline for (0..1) |group| {
        var acc: [8][2]Sums = @splat(@splat(@splat(0)));
        for (0..4) |step| {
            const from = w + step * 128 + group * 128;
            @prefetch(from + 8192, .{ .locality = 2 });
            @prefetch(from + 8256, .{ .locality = 2 });
            inline for (0..4) |i| {
                var codes: [2]Codes = undefined;
                inline for (0..2) |v| codes[v] = plane(from[v * 64 ..][0..64].*, i);
                inline for (0..8) |t| {
                    const x_t = broadcastFour(x + t * 128 + step * 16 + i * 4);
                    inline for (0..2) |v| acc[t][v] = dotFour(acc[t][v], codes[v], x_t);
                }
            }
        }
        inline for (0..8) |t| {
            inline for (0..2) |v| out[t][(group * 2 + v) * 16 ..][0..16].* = acc[t][v];
        }
    }
}

/// Sums of code * x for a block of 32 rows and 4 token(s), k = 64. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k64_m4(w: [*]const u8, x: [*]const i8, out: *[4][32]i32) void {
    inline for (0..1) |group| {
        var acc: [4][2]Sums = @splat(@splat(@splat(0)));
        for (0..4) |step| {
            const from = w + step * 128 + group * 128;
            @prefetch(from + 8192, .{ .locality = 2 });
            @prefetch(from + 8256, .{ .locality = 2 });
            inline for (0..4) |i| {
                var codes: [2]Codes = undefined;
                inline for (0..2) |v| codes[v] = plane(from[v * 64 ..][0..64].*, i);
                inline for (0..4) |t| {
                    const x_t = broadcastFour(x + t * 128 + step * 16 + i * 4);
                    inline for (0..2) |v| acc[t][v] = dotFour(acc[t][v], codes[v], x_t);
                }
            }
        }
        inline for (0..4) |t| {
            inline for (0..2) |v| out[t][(group * 2 + v) * 16 ..][0..16].* = acc[t][v];
        }
    }
}

/// Sums of code * x for a block of 32 rows and 2 token(s), k = 64. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k64_m2(w: [*]const u8, x: [*]const i8, out: *[2][32]i32) void {
    var acc: [2][2][4]Sums = @splat(@splat(@splat(@splat(0))));
    for (0..4) |step| {
        const from = w + step * 128;
        inline for (0..4) |i| {
            inline for (0..2) |v| {
                const all: Codes = from[v * 64 ..][0..64].*;
                const codes = all & @as(Codes, @splat(3 << (2 * i)));
                inline for (0..2) |t| {
                    const x_t = broadcastFour(x + t * 128 + step * 16 + i * 4);
                    acc[t][v][i] = dotFour(acc[t][v][i], codes, x_t);
                }
            }
        }
    }
    inline for (0..2) |t| {
        inline for (0..2) |v| {
            var sums = acc[t][v][0];
            inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
            out[t][v * 16 ..][0..16].* = sums;
        }
    }
}

/// Sums of code * x for a block of 32 rows and 1 token(s), k = 64. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k64_m1(w: [*]const u8, x: [*]const i8, out: *[1][32]i32) void {
    var acc: [1][2][4]Sums = @splat(@splat(@splat(@splat(0))));
    for (0..4) |step| {
        const from = w + step * 128;
        @prefetch(from + 8192, .{ .locality = 2 });
        @prefetch(from + 8256, .{ .locality = 2 });
        inline for (0..4) |i| {
            inline for (0..2) |v| {
                const all: Codes = from[v * 64 ..][0..64].*;
                const codes = all & @as(Codes, @splat(3 << (2 * i)));
                inline for (0..1) |t| {
                    const x_t = broadcastFour(x + t * 128 + step * 16 + i * 4);
                    acc[t][v][i] = dotFour(acc[t][v][i], codes, x_t);
                }
            }
        }
    }
    inline for (0..1) |t| {
        inline for (0..2) |v| {
            var sums = acc[t][v][0];
            inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
            out[t][v * 16 ..][0..16].* = sums;
        }
    }
}

/// Sums of code * x for a block of 32 rows and 8 token(s), k = 96. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k96_m8(w: [*]const u8, x: [*]const i8, out: *[8][32]i32) void {
    inline for (0..1) |group| {
        var acc: [8][2]Sums = @splat(@splat(@splat(0)));
        for (0..6) |step| {
            const from = w + step * 128 + group * 128;
            @prefetch(from + 8192, .{ .locality = 2 });
            @prefetch(from + 8256, .{ .locality = 2 });
            inline for (0..4) |i| {
                var codes: [2]Codes = undefined;
                inline for (0..2) |v| codes[v] = plane(from[v * 64 ..][0..64].*, i);
                inline for (0..8) |t| {
                    const x_t = broadcastFour(x + t * 160 + step * 16 + i * 4);
                    inline for (0..2) |v| acc[t][v] = dotFour(acc[t][v], codes[v], x_t);
                }
            }
        }
        inline for (0..8) |t| {
            inline for (0..2) |v| out[t][(group * 2 + v) * 16 ..][0..16].* = acc[t][v];
        }
    }
}

/// Sums of code * x for a block of 32 rows and 4 token(s), k = 96. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k96_m4(w: [*]const u8, x: [*]const i8, out: *[4][32]i32) void {
    inline for (0..1) |group| {
        var acc: [4][2]Sums = @splat(@splat(@splat(0)));
        for (0..6) |step| {
            const from = w + step * 128 + group * 128;
            @prefetch(from + 8192, .{ .locality = 2 });
            @prefetch(from + 8256, .{ .locality = 2 });
            inline for (0..4) |i| {
                var codes: [2]Codes = undefined;
                inline for (0..2) |v| codes[v] = plane(from[v * 64 ..][0..64].*, i);
                inline for (0..4) |t| {
                    const x_t = broadcastFour(x + t * 160 + step * 16 + i * 4);
                    inline for (0..2) |v| acc[t][v] = dotFour(acc[t][v], codes[v], x_t);
                }
            }
        }
        inline for (0..4) |t| {
            inline for (0..2) |v| out[t][(group * 2 + v) * 16 ..][0..16].* = acc[t][v];
        }
    }
}

/// Sums of code * x for a block of 32 rows and 2 token(s), k = 96. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k96_m2(w: [*]const u8, x: [*]const i8, out: *[2][32]i32) void {
    var acc: [2][2][4]Sums = @splat(@splat(@splat(@splat(0))));
    for (0..6) |step| {
        const from = w + step * 128;
        inline for (0..4) |i| {
            inline for (0..2) |v| {
                const all: Codes = from[v * 64 ..][0..64].*;
                const codes = all & @as(Codes, @splat(3 << (2 * i)));
                inline for (0..2) |t| {
                    const x_t = broadcastFour(x + t * 160 + step * 16 + i * 4);
                    acc[t][v][i] = dotFour(acc[t][v][i], codes, x_t);
                }
            }
        }
    }
    inline for (0..2) |t| {
        inline for (0..2) |v| {
            var sums = acc[t][v][0];
            inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
            out[t][v * 16 ..][0..16].* = sums;
        }
    }
}

/// Sums of code * x for a block of 32 rows and 1 token(s), k = 96. A code is 0, 1 or 2
/// for weight -1, 0, +1, so the caller subtracts the sum of x.
fn tile_k96_m1(w: [*]const u8, x: [*]const i8, out: *[1][32]i32) void {
    var acc: [1][2][4]Sums = @splat(@splat(@splat(@splat(0))));
    for (0..6) |step| {
        const from = w + step * 128;
        @prefetch(from + 8192, .{ .locality = 2 });
        @prefetch(from + 8256, .{ .locality = 2 });
        inline for (0..4) |i| {
            inline for (0..2) |v| {
                const all: Codes = from[v * 64 ..][0..64].*;
                const codes = all & @as(Codes, @splat(3 << (2 * i)));
                inline for (0..1) |t| {
                    const x_t = broadcastFour(x + t * 160 + step * 16 + i * 4);
                    acc[t][v][i] = dotFour(acc[t][v][i], codes, x_t);
                }
            }
        }
    }
    inline for (0..1) |t| {
        inline for (0..2) |v| {
            var sums = acc[t][v][0];
            inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
            out[t][v * 16 ..][0..16].* = sums;
        }
    }
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (96, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_96x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 512;
        const row = block * 32;
        var t: usize = 0;
        while (t + 8 <= tokens) : (t += 8) {
            var sums: [8][32]i32 = undefined;
            tile_k64_m8(w, x.codes + t * 128, &sums);
            finishBlock(8, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 4 <= tokens) : (t += 4) {
            var sums: [4][32]i32 = undefined;
            tile_k64_m4(w, x.codes + t * 128, &sums);
            finishBlock(4, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 2 <= tokens) : (t += 2) {
            var sums: [2][32]i32 = undefined;
            tile_k64_m2(w, x.codes + t * 128, &sums);
            finishBlock(2, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 1 <= tokens) : (t += 1) {
            var sums: [1][32]i32 = undefined;
            tile_k64_m1(w, x.codes + t * 128, &sums);
            finishBlock(1, &sums, linear, x, t, row, y, y_stride);
        }
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 96). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_96x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 256;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    const x = inputIn_k64(memory, count);
    for (0..count) |t| {
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
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 768;
        const row = block * 32;
        var t: usize = 0;
        while (t + 8 <= tokens) : (t += 8) {
            var sums: [8][32]i32 = undefined;
            tile_k96_m8(w, x.codes + t * 160, &sums);
            finishBlock(8, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 4 <= tokens) : (t += 4) {
            var sums: [4][32]i32 = undefined;
            tile_k96_m4(w, x.codes + t * 160, &sums);
            finishBlock(4, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 2 <= tokens) : (t += 2) {
            var sums: [2][32]i32 = undefined;
            tile_k96_m2(w, x.codes + t * 160, &sums);
            finishBlock(2, &sums, linear, x, t, row, y, y_stride);
        }
        while (t + 1 <= tokens) : (t += 1) {
            var sums: [1][32]i32 = undefined;
            tile_k96_m1(w, x.codes + t * 160, &sums);
            finishBlock(1, &sums, linear, x, t, row, y, y_stride);
        }
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 96) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x96(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 320;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    const x = inputIn_k96(memory, count);
    for (0..count) |t| {
        @memcpy(x.codes[t * 160 ..][0..96], codes[t * 96 ..][0..96]);
        x.inverse[t] = 1;
        prepare_k96(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_64x96(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}
