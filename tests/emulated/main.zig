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

const linux = std.os.linux;

const Failure = error{ WrongUsage, CannotRead, CannotAllocate, CannotStep, CannotWrite };

fn number(text: [*:0]const u8) Failure!i32 {
    return std.fmt.parseInt(i32, std.mem.span(text), 10) catch error.WrongUsage;
}

/// A file's descriptor, or null if the system refuses.
fn descriptorOf(result: usize) ?i32 {
    return if (linux.errno(result) == .SUCCESS) @intCast(result) else null;
}

/// The file in memory, aligned to a page.
fn read(path: [*:0]const u8) Failure![]align(4096) u8 {
    const file = descriptorOf(linux.open(path, .{}, 0)) orelse return error.CannotRead;
    defer _ = linux.close(file);
    const size = linux.lseek(file, 0, linux.SEEK.END);
    const memory: [*]align(4096) u8 = @alignCast(try allocate(u8, size));
    _ = linux.lseek(file, 0, linux.SEEK.SET);
    var done: usize = 0;
    while (done < size) {
        const count = linux.read(file, memory + done, size - done);
        if (linux.errno(count) != .SUCCESS or count == 0) return error.CannotRead;
        done += count;
    }
    return memory[0..size];
}

fn allocate(comptime T: type, count: usize) Failure![*]T {
    return @ptrCast(@alignCast(host.trilith_alloc(@sizeOf(T) * count) orelse return error.CannotAllocate));
}

fn write(file: i32, bytes: []const u8) Failure!void {
    var rest = bytes;
    while (rest.len > 0) {
        const count = linux.write(file, rest.ptr, rest.len);
        if (linux.errno(count) != .SUCCESS) return error.CannotWrite;
        rest = rest[count..];
    }
}

pub fn main(init: std.process.Init.Minimal) Failure!void {
    const args = init.args.vector;
    if (args.len != 10) return error.WrongUsage;
    const weights = try read(args[1]);
    const rope = try read(args[2]);
    const batches = std.mem.bytesAsSlice(i32, try read(args[3]));
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
    const out = descriptorOf(linux.open(args[4], .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true }, 0o600)) orelse
        return error.CannotWrite;
    var at: usize = 0;
    while (at < batches.len) {
        const length: usize = @intCast(batches[at]);
        const batch = batches.ptr + at + 1;
        const count: usize = @intCast(batch[2]);
        const logits = try allocate(f32, vocabulary * count);
        if (kernels.trilith_step(model, batch, logits) != 0) return error.CannotStep;
        try write(out, std.mem.sliceAsBytes(logits[0 .. vocabulary * count]));
        at += 1 + length;
    }
}
