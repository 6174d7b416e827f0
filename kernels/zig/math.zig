//! Float arithmetic that gives the same bits on every CPU: 16 lanes everywhere (the compiler splits
//! them into what the registers hold), no fused multiply-add, fixed reduction trees, our own exp.
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

/// e^x to about 1 ulp, x clamped to [-87.3, 88.3] so that results stay normal and finite.
/// Cody-Waite reduction by ln 2 in two parts, then the degree-7 polynomial of Cephes' expf.
pub inline fn exp(x_in: F) F {
    const x = @min(@max(x_in, splat(-87.3)), splat(88.3));
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
    if (T == f32) return load(p);
    if (T == f16) {
        const v: @Vector(lanes, f16) = p[0..lanes].*;
        return @floatCast(v);
    }
    // bf16 is kept as u16: the upper half of an f32.
    const bits: @Vector(lanes, u16) = p[0..lanes].*;
    const words: @Vector(lanes, u32) = bits;
    return @bitCast(words << @splat(16));
}

/// Splits `count` items among `threads`: item `start(t)` up to `start(t + 1)` belong to thread t.
pub inline fn share(count: usize, thread: usize, threads: usize) [2]usize {
    return .{ count * thread / threads, count * (thread + 1) / threads };
}
