//! Products of float matrices with many inputs at once, to run a model as it is before it is ternarised.
//! For measuring: sums are of f32, in an order of this CPU's own, and products are fused where it can.
const std = @import("std");
const builtin = @import("builtin");
const math = @import("math.zig");
const Team = @import("team.zig").Team;

/// Rows and inputs whose sums are in registers together: 24 of AVX-512's 32, 12 of the 16 others have.
const wide_registers = switch (builtin.cpu.arch) {
    .x86_64 => builtin.cpu.has(.x86, .avx512f),
    else => false,
};
const tile_rows = if (wide_registers) 4 else 2;
const tile_inputs = if (wide_registers) 6 else 3;

const fuses = switch (builtin.cpu.arch) {
    .x86_64 => builtin.cpu.has(.x86, .fma),
    else => builtin.cpu.arch == .aarch64,
};

/// Floats of the inputs that stay in the second cache while all rows go by.
const block_floats = 1 << 17;

/// As in `codegen/pack/stored.ts`.
const Kind = enum(i32) { f32 = 2, f16 = 3, bf16 = 4 };

const Product = struct {
    weights: [*]const u8,
    kind: Kind,
    n: usize,
    k: usize,
    /// (count, padded k).
    x: [*]const f32,
    count: usize,
    /// (count, n).
    y: [*]f32,

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const product: *const Product = @ptrCast(@alignCast(context));
        const rows = math.share(product.n, thread, team.threads);
        switch (product.kind) {
            .f32 => product.multiply(f32, rows),
            .f16 => product.multiply(f16, rows),
            .bf16 => product.multiply(u16, rows),
        }
    }

    fn padded(product: *const Product) usize {
        return std.mem.alignForward(usize, product.k, math.lanes);
    }

    fn multiply(product: *const Product, comptime T: type, rows: [2]usize) void {
        const block = @max(tile_inputs, block_floats / product.padded() / tile_inputs * tile_inputs);
        var first: usize = 0;
        while (first < product.count) : (first += block) {
            const inputs = [2]usize{ first, @min(first + block, product.count) };
            var row = rows[0];
            while (row + tile_rows <= rows[1]) : (row += tile_rows) product.multiplyRows(T, tile_rows, row, inputs);
            while (row < rows[1]) : (row += 1) product.multiplyRows(T, 1, row, inputs);
        }
    }

    fn multiplyRows(product: *const Product, comptime T: type, comptime count: usize, row: usize, inputs: [2]usize) void {
        var t = inputs[0];
        while (t + tile_inputs <= inputs[1]) : (t += tile_inputs) product.multiplyTile(T, count, tile_inputs, row, t);
        while (t < inputs[1]) : (t += 1) product.multiplyTile(T, count, 1, row, t);
    }

    fn multiplyTile(product: *const Product, comptime T: type, comptime rows: usize, comptime inputs: usize, row: usize, t: usize) void {
        const elements: [*]const T = @ptrCast(@alignCast(product.weights));
        const whole = product.k / math.lanes * math.lanes;
        var sums: [rows][inputs]math.F = @splat(@splat(@splat(0)));
        var i: usize = 0;
        while (i < whole) : (i += math.lanes) {
            var w: [rows]math.F = undefined;
            inline for (0..rows) |r| w[r] = math.widen(T, elements + (row + r) * product.k + i);
            product.add(rows, inputs, &sums, w, t, i);
        }
        if (whole < product.k) {
            var w: [rows]math.F = undefined;
            inline for (0..rows) |r| w[r] = lastWeights(T, elements[(row + r) * product.k + whole .. (row + r + 1) * product.k]);
            product.add(rows, inputs, &sums, w, t, whole);
        }
        inline for (0..inputs) |j| {
            inline for (0..rows) |r| product.y[(t + j) * product.n + row + r] = math.sum(sums[r][j]);
        }
    }

    inline fn add(product: *const Product, comptime rows: usize, comptime inputs: usize, sums: *[rows][inputs]math.F, w: [rows]math.F, t: usize, i: usize) void {
        inline for (0..inputs) |j| {
            const x = math.load(product.x + (t + j) * product.padded() + i);
            inline for (0..rows) |r| sums[r][j] = if (fuses) @mulAdd(math.F, w[r], x, sums[r][j]) else sums[r][j] + w[r] * x;
        }
    }

    /// Zeros behind the row's end, which may be the matrix's.
    inline fn lastWeights(comptime T: type, rest: []const T) math.F {
        var filled: [math.lanes]T = @splat(0);
        @memcpy(filled[0..rest.len], rest);
        return math.widen(T, &filled);
    }
};

/// y[t, row] = sum over i of weights[row, i] * x[t, i], for (n, k) weights of a Kind. x: (count, k padded
/// to whole vectors with zeros). y: (count, n).
pub export fn trilith_float_product(team: *Team, kind: i32, weights: [*]const u8, n: i32, k: i32, x: [*]const f32, count: i32, y: [*]f32) void {
    var product: Product = .{
        .weights = weights,
        .kind = @fromBackingInt(kind),
        .n = @intCast(n),
        .k = @intCast(k),
        .x = x,
        .count = @intCast(count),
        .y = y,
    };
    team.run(@ptrCast(&product), Product.body);
}
