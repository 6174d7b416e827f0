//! Files and memory by Linux's system calls alone, for programs without libc.
const std = @import("std");
const host = @import("host.zig");

const linux = std.os.linux;

pub const Failure = error{ WrongUsage, CannotRead, CannotAllocate, CannotStep, CannotWrite };

/// A file's descriptor, or null if the system refuses.
fn descriptorOf(result: usize) ?i32 {
    return if (linux.errno(result) == .SUCCESS) @intCast(result) else null;
}

/// The file in memory, aligned to a page.
pub fn read(path: [*:0]const u8) Failure![]align(4096) u8 {
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

/// Zeroed, and never given back: the program ends soon.
pub fn allocate(comptime T: type, count: usize) Failure![*]T {
    return @ptrCast(@alignCast(host.trilith_alloc(@sizeOf(T) * count) orelse return error.CannotAllocate));
}

/// A new, empty file's descriptor.
pub fn create(path: [*:0]const u8) Failure!i32 {
    const flags: linux.O = .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true };
    return descriptorOf(linux.open(path, flags, 0o600)) orelse error.CannotWrite;
}

pub fn write(file: i32, bytes: []const u8) Failure!void {
    var rest = bytes;
    while (rest.len > 0) {
        const count = linux.write(file, rest.ptr, rest.len);
        if (linux.errno(count) != .SUCCESS) return error.CannotWrite;
        rest = rest[count..];
    }
}
