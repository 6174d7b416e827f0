//! Runs generated kernels as a program, so that an emulator can run those of another CPU. Linux only,
//! and without libc: nothing of the other system is needed.
//!
//!     main WEIGHTS ROPE BATCHES LOGITS max_tokens context kv_blocks threads vocabulary
//!
//! The first three are files that are read. BATCHES: i32 words, each batch preceded by its length.
//! LOGITS is written: float32, in the batches' order.
const std = @import("std");
const kernels = @import("kernels.zig");
const host = @import("host.zig");
const files = @import("files.zig");

fn number(text: [*:0]const u8) files.Failure!i32 {
    return std.fmt.parseInt(i32, std.mem.span(text), 10) catch error.WrongUsage;
}

pub fn main(init: std.process.Init.Minimal) files.Failure!void {
    const args = init.args.vector;
    if (args.len != 10) return error.WrongUsage;
    const weights = try files.read(args[1]);
    const rope = try files.read(args[2]);
    const batches = std.mem.bytesAsSlice(i32, try files.read(args[3]));
    const vocabulary: usize = @intCast(try number(args[9]));
    const team = host.trilith_team_create(try number(args[8])) orelse return error.CannotAllocate;
    const model = kernels.trilith_model_create(
        weights.ptr,
        @ptrCast(@alignCast(team)),
        try number(args[5]),
        try number(args[6]),
        try number(args[7]),
        @ptrCast(rope.ptr),
    ) orelse return error.CannotAllocate;
    const out = try files.create(args[4]);
    var at: usize = 0;
    while (at < batches.len) {
        const length: usize = @intCast(batches[at]);
        const batch = batches.ptr + at + 1;
        const count: usize = @intCast(batch[2]);
        const logits = try files.allocate(f32, vocabulary * count);
        if (kernels.trilith_step(model, batch, logits) != 0) return error.CannotStep;
        try files.write(out, std.mem.sliceAsBytes(logits[0 .. vocabulary * count]));
        at += 1 + length;
    }
}
