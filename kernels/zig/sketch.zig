//! Rows of a float matrix in 9 levels with subtractive dither: the sketch of a head.
//! `codegen/head/sketch.ts` says what it is for, `codegen/head/reference.ts` says the same a row at a time.
const std = @import("std");
const math = @import("math.zig");
const pack = @import("pack.zig");
const Team = @import("team.zig").Team;

const largest_level = 4;
const Trits = @Vector(math.lanes, u8);

const Sketch = struct {
    bytes: [*]const u8,
    kind: pack.Kind,
    count: usize,
    /// Rows of a piece: the lower trits lie so many rows behind the upper ones, and so do a row's floats.
    stride: usize,
    k: usize,
    /// u then v, each padded to whole vectors.
    dither: [*]const f32,
    codes: [*]u8,
    floats: [*]f32,

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const sketch: *const Sketch = @ptrCast(@alignCast(context));
        const rows = math.share(sketch.count, thread, team.threads);
        for (rows[0]..rows[1]) |row| switch (sketch.kind) {
            .f32 => sketch.roundRow(f32, row),
            .f16 => sketch.roundRow(f16, row),
            .bf16 => sketch.roundRow(u16, row),
            else => unreachable,
        };
    }

    fn roundRow(sketch: *const Sketch, comptime T: type, row: usize) void {
        const elements: [*]const T = @ptrCast(@alignCast(sketch.bytes));
        const w = elements + row * sketch.k;
        const padded = std.mem.alignForward(usize, sketch.k, math.lanes);
        const u = sketch.dither;
        const v = sketch.dither + padded;
        var largest: math.F = @splat(0);
        var i: usize = 0;
        while (i < padded) : (i += math.lanes) largest = @max(largest, @abs(sketch.weights(T, w, i)));
        const scale = @reduce(.Max, largest) / largest_level;
        const inverse = if (scale > 0) 1 / scale else 0;
        var correction: math.D = @splat(0);
        var norm: math.D = @splat(0);
        i = 0;
        while (i < padded) : (i += math.lanes) {
            const weight = sketch.weights(T, w, i);
            const dither = if (scale > 0) math.load(u + i) else math.splat(0);
            const rounded = math.roundToInt(weight * math.splat(inverse) + dither);
            const level = @min(@max(rounded, @as(math.I, @splat(-largest_level))), @as(math.I, @splat(largest_level)));
            const wide: math.D = @floatCast(weight);
            norm += wide * wide;
            correction += @as(math.D, @floatFromInt(level)) * math.wide(f32, v + i);
            sketch.storeTrits(row, i, level);
        }
        const out = sketch.floats + row;
        out[0] = scale;
        out[sketch.stride] = @floatCast(math.sumWide(correction));
        out[2 * sketch.stride] = @floatCast(@sqrt(math.sumWide(norm)));
    }

    /// Sixteen weights from i on; zeros behind the row's end, which may be the matrix's.
    inline fn weights(sketch: *const Sketch, comptime T: type, w: [*]const T, i: usize) math.F {
        if (i + math.lanes <= sketch.k) return math.widen(T, w + i);
        var rest: [math.lanes]T = @splat(0);
        @memcpy(rest[0 .. sketch.k - i], w[i..sketch.k]);
        return math.widen(T, &rest);
    }

    /// level = 3 * upper + lower, both stored as codes 0, 1, 2.
    inline fn storeTrits(sketch: *const Sketch, row: usize, i: usize, level: math.I) void {
        const one: math.I = @splat(1);
        const none: math.I = @splat(0);
        const up = @select(i32, level >= @as(math.I, @splat(2)), one, none);
        const down = @select(i32, level <= @as(math.I, @splat(-2)), one, none);
        const upper = up - down;
        const lower = level - upper * @as(math.I, @splat(3));
        sketch.store(row, i, @intCast(upper + one));
        sketch.store(sketch.stride + row, i, @intCast(lower + one));
    }

    inline fn store(sketch: *const Sketch, row: usize, i: usize, trits: Trits) void {
        const to = sketch.codes + row * sketch.k + i;
        const lanes: [math.lanes]u8 = trits;
        if (i + math.lanes <= sketch.k) to[0..math.lanes].* = trits else @memcpy(to[0 .. sketch.k - i], lanes[0 .. sketch.k - i]);
    }
};

/// Sketches `count` rows of k floats. codes: (2 * stride, k), one a byte, of which the rows of upper and
/// lower trits are written. floats: (3, stride): scales, sums of level * v, norms.
pub export fn trilith_sketch(team: *Team, kind: i32, bytes: [*]const u8, count: i32, stride: i32, k: i32, dither: [*]const f32, codes: [*]u8, floats: [*]f32) void {
    var sketch: Sketch = .{
        .bytes = bytes,
        .kind = @fromBackingInt(kind),
        .count = @intCast(count),
        .stride = @intCast(stride),
        .k = @intCast(k),
        .dither = dither,
        .codes = codes,
        .floats = floats,
    };
    team.run(@ptrCast(&sketch), Sketch.body);
}
