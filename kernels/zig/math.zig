//! Float arithmetic that gives the same bits on every CPU: 16 lanes everywhere (the compiler splits
//! them into what the registers hold), no fused multiply-add that rounds otherwise than its two parts,
//! fixed reduction trees, our own exp.
//! `codegen/float_reference.ts` is the same arithmetic in TypeScript.

pub const lanes = 16;
pub const F = @Vector(lanes, f32);
pub const I = @Vector(lanes, i32);

pub inline fn load(p: [*]const f32) F {
    return p[0..lanes].*;
}

pub inline fn store(p: [*]f32, v: F) void {
    p[0..lanes].* = v;
}

pub inline fn splat(x: f32) F {
    return @splat(x);
}

/// Adds 16 lanes as a tree: halves, quarters, pairs. A left-to-right sum would give other bits.
pub inline fn sum(v: F) f32 {
    const a: @Vector(8, f32) = half(8, v, 0) + half(8, v, 8);
    const b: @Vector(4, f32) = half(4, a, 0) + half(4, a, 4);
    const c: @Vector(2, f32) = half(2, b, 0) + half(2, b, 2);
    return c[0] + c[1];
}

inline fn half(comptime n: comptime_int, v: anytype, comptime from: i32) @Vector(n, @typeInfo(@TypeOf(v)).vector.child) {
    comptime var mask: [n]i32 = undefined;
    inline for (0..n) |i| mask[i] = from + @as(i32, i);
    return @shuffle(@typeInfo(@TypeOf(v)).vector.child, v, undefined, mask);
}

/// Sixteen doubles, for sums whose rounding error would be amplified or could tip an int8 rounding.
pub const D = @Vector(lanes, f64);

/// Sixteen elements of a row as doubles.
pub inline fn wide(comptime T: type, p: [*]const T) D {
    const v: @Vector(lanes, T) = p[0..lanes].*;
    return if (T == f64) v else @floatCast(v);
}

/// As `sum`, in doubles.
pub inline fn sumWide(v: D) f64 {
    const a: @Vector(8, f64) = half(8, v, 0) + half(8, v, 8);
    const b: @Vector(4, f64) = half(4, a, 0) + half(4, a, 4);
    const c: @Vector(2, f64) = half(2, b, 0) + half(2, b, 2);
    return c[0] + c[1];
}

/// Sum over i of a[i] * b[i] in doubles, `n` a multiple of 16: lane i % 16 adds its products in order.
pub inline fn dotWide(comptime n: usize, comptime A: type, a: [*]const A, comptime B: type, b: [*]const B) f64 {
    var acc: D = @splat(0);
    var i: usize = 0;
    while (i < n) : (i += lanes) acc += wide(A, a + i) * wide(B, b + i);
    return sumWide(acc);
}

/// Nearest integers, ties to even, of doubles below 2^31 in size. Others give some integer.
pub inline fn roundToIntWide(v: D) I {
    // 1.5 * 2^52: adding it leaves the integer in the low bits of the mantissa.
    const shifted: @Vector(lanes, u64) = @bitCast(v + @as(D, @splat(6755399441055744.0)));
    const low: @Vector(lanes, u32) = @truncate(shifted);
    return @bitCast(low);
}

/// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits of the mantissa.
const round_magic: f32 = 12582912.0;
const round_magic_bits: i32 = @bitCast(round_magic);

/// Nearest integers, ties to even, of values below 2^22 in size. Others give some integer.
pub inline fn roundToInt(v: F) I {
    const shifted: I = @bitCast(v + splat(round_magic));
    return shifted -% @as(I, @splat(round_magic_bits));
}

/// The larger of each lane, b where one is NaN: what one instruction of x86 does. `@max` takes three, as
/// it also looks for a NaN in b.
pub inline fn larger(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return @select(@typeInfo(@TypeOf(a)).vector.child, a > b, a, b);
}

/// As `larger`, the smaller of each lane.
pub inline fn smaller(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return @select(@typeInfo(@TypeOf(a)).vector.child, a < b, a, b);
}

/// e^x to about 1 ulp, x clamped to [-87.3, 88.3] so that results stay normal and finite.
/// Cody-Waite reduction by ln 2 in two parts, then the degree-7 polynomial of Cephes' expf.
pub inline fn exp(x_in: F) F {
    const x = smaller(larger(x_in, splat(-87.3)), splat(88.3));
    const n = (x * splat(1.44269504088896341) + splat(round_magic)) - splat(round_magic);
    const r = (x - n * splat(0.693359375)) - n * splat(-2.12194440e-4);
    var p = splat(1.9875691500e-4);
    p = p * r + splat(1.3981999507e-3);
    p = p * r + splat(8.3334519073e-3);
    p = p * r + splat(4.1665795894e-2);
    p = p * r + splat(1.6666665459e-1);
    p = p * r + splat(5.0000001201e-1);
    const y = (p * (r * r) + r) + splat(1.0);
    const exponent = (roundToInt(n) +% @as(I, @splat(127))) << @splat(23);
    return y * @as(F, @bitCast(exponent));
}

/// Sixteen elements of a matrix in its checkpoint's type, widened to f32 without loss.
pub inline fn widen(comptime T: type, p: [*]const T) F {
    return widenTo(lanes, T, p);
}

/// As `widen`, for another number of elements.
pub inline fn widenTo(comptime count: usize, comptime T: type, p: [*]const T) @Vector(count, f32) {
    if (T == f32) return p[0..count].*;
    if (T == f16) {
        if (widens_halves) return @floatCast(@as(@Vector(count, f16), p[0..count].*));
        return widenHalves(count, @as([*]const u16, @ptrCast(p))[0..count].*);
    }
    // bf16 is kept as u16: the upper half of an f32.
    const bits: @Vector(count, u16) = p[0..count].*;
    const words: @Vector(count, u32) = bits;
    return @bitCast(words << @splat(16));
}

/// Whether an instruction does it; else the compiler calls a function for each number.
const widens_halves = switch (builtin.cpu.arch) {
    .x86_64 => builtin.cpu.has(.x86, .f16c),
    else => true,
};

/// Halves by their bits: as those of an f32 they are 2^112 times too small, denormal ones too.
fn widenHalves(comptime count: usize, halves: @Vector(count, u16)) @Vector(count, f32) {
    const Bits = @Vector(count, u32);
    const bits: Bits = halves;
    const size = (bits & @as(Bits, @splat(0x7fff))) << @splat(13);
    const number: Bits = @bitCast(@as(@Vector(count, f32), @bitCast(size)) * @as(@Vector(count, f32), @splat(0x1p112)));
    // Infinite, or none.
    const special = size | @as(Bits, @splat(0x7f800000));
    const magnitude = @select(u32, size >= @as(Bits, @splat(0x7c00 << 13)), special, number);
    return @bitCast(magnitude | (bits & @as(Bits, @splat(0x8000))) << @splat(16));
}

const fuses = switch (builtin.cpu.arch) {
    .x86_64 => builtin.cpu.has(.x86, .fma),
    else => builtin.cpu.arch == .aarch64,
};

/// acc + a * b where a * b has no more than 24 significant bits: fused or not, the bits are the same.
pub inline fn addExactProduct(acc: F, a: F, b: F) F {
    return if (fuses) @mulAdd(F, a, b, acc) else acc + a * b;
}

/// The nearest number of 13 significant bits (ties to even), whose products with f16 numbers, which
/// have 11, are exact in an f32; 0 where |x| < 2^-60. x: at most 2^100 in size, else -2^100 or 2^100.
pub inline fn shortened(x: F) F {
    const bounded: @Vector(lanes, u32) = @bitCast(smaller(larger(x, splat(-0x1p100)), splat(0x1p100)));
    const half_and_tie = @as(@Vector(lanes, u32), @splat(0x3ff)) + ((bounded >> @splat(11)) & @as(@Vector(lanes, u32), @splat(1)));
    const rounded: F = @bitCast((bounded + half_and_tie) & @as(@Vector(lanes, u32), @splat(0xfffff800)));
    return @select(f32, @abs(rounded) < splat(0x1p-60), splat(0), rounded);
}

/// Splits `count` items among `threads`: item `start(t)` up to `start(t + 1)` belong to thread t.
pub inline fn share(count: usize, thread: usize, threads: usize) [2]usize {
    return .{ count * thread / threads, count * (thread + 1) / threads };
}

const std = @import("std");
const builtin = @import("builtin");
const testing = std.testing;

test "sum adds halves, quarters, pairs" {
    // 2^24 swallows a 1 that is added to it, but not the 2 that lanes 7 and 15 make first.
    var v: [lanes]f32 = @splat(0);
    v[0] = 1 << 24;
    v[7] = 1;
    v[15] = 1;
    try testing.expectEqual((1 << 24) + 2, sum(v));
    // Lanes 0 and 8 meet first, then lane 4's half: both ones are swallowed.
    v = @splat(0);
    v[0] = 1 << 24;
    v[8] = 1;
    v[4] = 1;
    try testing.expectEqual(1 << 24, sum(v));
}

test "sumWide and dotWide add in the same order, in doubles" {
    var v: [lanes]f64 = @splat(0);
    v[0] = 1 << 53;
    v[7] = 1;
    v[15] = 1;
    try testing.expectEqual((1 << 53) + 2, sumWide(v));
    const a: [32]f32 = @splat(3);
    const b: [32]f64 = @splat(0.5);
    try testing.expectEqual(48, dotWide(32, f32, &a, f64, &b));
}

test "exp is within 2 ulp over its range" {
    var x: f32 = -87.3;
    while (x < 88.3) : (x += 0.0137) {
        const exact = @exp(@as(f64, x));
        const ulp = std.math.ldexp(@as(f64, 1), std.math.ilogb(exact) - 23);
        const y: f64 = exp(splat(x))[0];
        try testing.expect(@abs(y - exact) <= 2 * ulp);
    }
}

test "exp is exact at 0 and clamped outside its range" {
    try testing.expectEqual(1, exp(splat(0))[0]);
    try testing.expectEqual(exp(splat(-87.3))[3], exp(splat(-1e4))[3]);
    try testing.expectEqual(exp(splat(88.3))[3], exp(splat(1e4))[3]);
    try testing.expect(std.math.isNormal(exp(splat(-1e4))[0]));
    try testing.expect(std.math.isNormal(exp(splat(1e4))[0]));
}

test "larger and smaller take the second where one is NaN" {
    const nan = splat(std.math.nan(f32));
    try testing.expectEqual(splat(2), larger(splat(1), splat(2)));
    try testing.expectEqual(splat(2), larger(splat(2), splat(1)));
    try testing.expectEqual(splat(1), larger(nan, splat(1)));
    try testing.expectEqual(splat(1), smaller(splat(1), splat(2)));
    try testing.expectEqual(splat(-1), smaller(splat(2), splat(-1)));
    try testing.expectEqual(splat(1), smaller(nan, splat(1)));
}

test "rounding is to the nearest integer, ties to even" {
    const cases = [_][2]f32{ .{ 0.5, 0 }, .{ 1.5, 2 }, .{ 2.5, 2 }, .{ -0.5, 0 }, .{ -1.5, -2 }, .{ -2.5, -2 }, .{ 126.7, 127 }, .{ -0.49, 0 } };
    for (cases) |case| {
        const expected: i32 = @intFromFloat(case[1]);
        try testing.expectEqual(expected, roundToInt(splat(case[0]))[5]);
        try testing.expectEqual(expected, roundToIntWide(@splat(case[0]))[5]);
    }
}

test "widen keeps the value of every type" {
    const values = [4]f32{ 1.5, -2, 0.15625, 1024 };
    var as_f32: [lanes]f32 = @splat(0);
    var as_f16: [lanes]f16 = @splat(0);
    var as_bf16: [lanes]u16 = @splat(0);
    for (values, 0..) |value, i| {
        as_f32[i] = value;
        as_f16[i] = @floatCast(value);
        as_bf16[i] = @intCast(@as(u32, @bitCast(value)) >> 16);
    }
    const expected: F = as_f32;
    try testing.expectEqual(expected, widen(f32, &as_f32));
    try testing.expectEqual(expected, widen(f16, &as_f16));
    try testing.expectEqual(expected, widen(u16, &as_bf16));
}

test "halves are widened by their bits to what they are" {
    for (0..1 << 12) |high| {
        var halves: [lanes]u16 = undefined;
        for (&halves, 0..) |*half_bits, low| half_bits.* = @intCast(high << 4 | low);
        const values: [lanes]f16 = @bitCast(halves);
        const expected: [lanes]u32 = @bitCast(@as(F, @floatCast(@as(@Vector(lanes, f16), values))));
        const actual: [lanes]u32 = @bitCast(widenHalves(lanes, halves));
        for (values, expected, actual) |value, e, a| {
            if (std.math.isNan(value)) try testing.expect(std.math.isNan(@as(f32, @bitCast(a)))) else try testing.expectEqual(e, a);
        }
    }
}

test "shortened keeps 13 bits, ties to even, nothing tiny and nothing huge" {
    const cases = [_][2]f32{
        .{ 1, 1 },                       .{ 0x1.001p0, 0x1.001p0 },
        .{ 0x1.0018p0, 0x1.002p0 },      .{ 0x1.0008p0, 1 },
        .{ 0x1.00081p0, 0x1.001p0 },     .{ -0x1.fffp0, -0x1.fffp0 },
        .{ -0x1.fffap0, -2 },            .{ 0x1p-60, 0x1p-60 },
        .{ 0x1.fffp-61, 0 },             .{ -0x1p-140, 0 },
        .{ std.math.inf(f32), 0x1p100 }, .{ std.math.nan(f32), -0x1p100 },
    };
    for (cases) |case| try testing.expectEqual(splat(case[1]), shortened(splat(case[0])));
}

test "exact products are added alike, fused or not" {
    const acc = splat(0x1.abcdefp3);
    const a = shortened(splat(0x1.123456p-2));
    const b = splat(0x1.ffcp4);
    try testing.expectEqual(acc + a * b, addExactProduct(acc, a, b));
    try testing.expectEqual(acc + a * b, @mulAdd(F, a, b, acc));
}

test "share gives every item to one thread, in order and evenly" {
    for ([_]usize{ 0, 1, 7, 80, 81 }) |count| {
        for (1..9) |threads| {
            var next: usize = 0;
            for (0..threads) |thread| {
                const mine = share(count, thread, threads);
                try testing.expectEqual(next, mine[0]);
                try testing.expect(mine[1] - mine[0] <= count / threads + 1);
                next = mine[1];
            }
            try testing.expectEqual(count, next);
        }
    }
}
