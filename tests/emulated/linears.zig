//! Runs single ternary linears as a program, so that an emulator can run those of another CPU. Linux
//! only, and without libc.
//!
//!     linears CASES SUMS
//!
//! CASES, a file that is read, one after the other: i32 index of a linear, i32 tokens, i32 blocks, i32
//! bytes of the weights, i32 bytes of the codes, i32 floats of the sums; then weights and codes, each
//! filled up to a multiple of 64 bytes. SUMS is written: float32, in the cases' order.
const std = @import("std");
const files = @import("files.zig");
const linears = @import("linears_table.zig").linears;

const Case = extern struct { linear: i32, tokens: i32, blocks: i32, weight_bytes: i32, code_bytes: i32, floats: i32 };

fn padded(bytes: i32) usize {
    return std.mem.alignForward(usize, @intCast(bytes), 64);
}

fn run(case: Case, weights: [*]const u8, codes: [*]const i8, sums: [*]f32) files.Failure!void {
    inline for (linears, 0..) |linear, index| {
        if (index == case.linear) {
            if (linear(weights, codes, case.tokens, sums, 0, case.blocks) != 0) return error.CannotAllocate;
            return;
        }
    }
    return error.WrongUsage;
}

pub fn main(init: std.process.Init.Minimal) files.Failure!void {
    const args = init.args.vector;
    if (args.len != 3) return error.WrongUsage;
    const bytes = try files.read(args[1]);
    const out = try files.create(args[2]);
    var at: usize = 0;
    while (at < bytes.len) {
        const case = std.mem.bytesToValue(Case, bytes[at..][0..@sizeOf(Case)]);
        const weights = at + 64; // The numbers are filled up too.
        const codes = weights + padded(case.weight_bytes);
        const count: usize = @intCast(case.floats);
        const sums = try files.allocate(f32, count);
        try run(case, bytes.ptr + weights, @ptrCast(bytes.ptr + codes), sums);
        try files.write(out, std.mem.sliceAsBytes(sums[0..count]));
        at = codes + padded(case.code_bytes);
    }
}
