//! What TypeScript can't do by itself: memory in large pages, mapped files, threads, and asking a CPU
//! whether it can do what it says. Exported with C's conventions.
const std = @import("std");
const builtin = @import("builtin");
const team_zig = @import("team.zig");

const Team = team_zig.Team;
const linux = std.os.linux;
const posix = std.posix;
const os = builtin.target.os.tag;
const page_allocator = std.heap.page_allocator;

// ---------------------------------------------------------------- memory

/// x86's and most of Arm's large page.
const large_page = 2 << 20;

fn alignmentOf(bytes: u64) std.mem.Alignment {
    return .fromByteUnits(if (bytes >= large_page) large_page else std.heap.page_size_min);
}

/// Zeroed pages that take memory only once they are touched; large ones where Linux has them, which
/// gives reads 10 to 17 % more bandwidth. Aligned to 2 MiB from that size on, else to a page. Null if
/// the system refuses.
pub export fn trilith_alloc(bytes: u64) ?*anyopaque {
    if (bytes == 0) return null;
    const memory = page_allocator.rawAlloc(bytes, alignmentOf(bytes), @returnAddress()) orelse return null;
    if (os == .linux and bytes >= large_page) _ = linux.madvise(memory, bytes, linux.MADV.HUGEPAGE);
    return memory;
}

/// Gives back what `trilith_alloc` gave, with the same size. Null is nothing.
pub export fn trilith_free(memory: ?*anyopaque, bytes: u64) void {
    const start: [*]u8 = @ptrCast(memory orelse return);
    page_allocator.rawFree(start[0..bytes], alignmentOf(bytes), @returnAddress());
}

/// Copies `count` bytes to `memory` + `offset`, so that callers need no view of native memory.
pub export fn trilith_write(memory: [*]u8, offset: u64, bytes: [*]const u8, count: u64) void {
    @memcpy(memory[offset..][0..count], bytes[0..count]);
}

/// Maps `bytes` bytes of a file from `offset` on, a multiple of 64 KiB (every system's page divides
/// it), for reading; its pages are shared with other processes, and large ones where Linux keeps the
/// file in such. Null if the file can't be opened or is
/// shorter (reading past its end would kill the process), and always on Windows, where the caller
/// reads the file instead.
pub export fn trilith_map_file(path: [*:0]const u8, bytes: u64, offset: u64) ?*anyopaque {
    if (os == .windows or bytes == 0) return null;
    const file = posix.openatZ(posix.AT.FDCWD, path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0) catch return null;
    defer _ = posix.system.close(file);
    const end = posix.system.lseek(file, 0, posix.SEEK.END);
    if (posix.errno(end) != .SUCCESS or end < offset +| bytes) return null;
    const memory = posix.mmap(null, bytes, .{ .READ = true }, .{ .TYPE = .SHARED }, file, offset) catch return null;
    if (os == .linux) _ = linux.madvise(memory.ptr, bytes, linux.MADV.HUGEPAGE);
    return memory.ptr;
}

/// Ends a mapping of `trilith_map_file`, with the same size. Null is nothing.
pub export fn trilith_unmap(memory: ?*anyopaque, bytes: u64) void {
    if (os == .windows) return;
    const start: [*]align(std.heap.page_size_min) const u8 = @ptrCast(@alignCast(memory orelse return));
    posix.munmap(start[0..bytes]);
}

// ---------------------------------------------------------------- threads

pub export fn trilith_team_create(threads: i32) ?*Team {
    return Team.create(std.math.cast(u32, threads) orelse return null);
}

pub export fn trilith_team_destroy(team: ?*Team) void {
    (team orelse return).destroy();
}

/// Runs `runs` runs of `barriers` barriers each. In every phase each thread writes its own counter and,
/// after the barrier, checks those of all others. Returns how many wrong counters were seen plus how
/// many visits to a phase are missing: 0 for a team that works. For tests and measurement.
pub export fn trilith_team_run_test(team: *Team, runs: i32, barriers: i32) i64 {
    const counters = page_allocator.alloc(Counter, team.threads) catch return -1;
    defer page_allocator.free(counters);
    @memset(counters, .{});
    var context: PhaseTest = .{ .counters = counters, .barriers = @intCast(barriers) };
    for (0..@intCast(runs)) |_| team.run(@ptrCast(&context), PhaseTest.body);
    var wrong: i64 = 0;
    const visits: u64 = @as(u64, @intCast(runs)) * @as(u64, @intCast(barriers));
    for (counters) |counter| wrong += counter.wrong + @as(i64, @intCast(visits - counter.value));
    return wrong;
}

/// Plain memory: only the barriers order it.
const Counter = struct {
    value: u64 align(std.atomic.cache_line) = 0,
    wrong: i64 = 0,
};

const PhaseTest = struct {
    counters: []Counter,
    barriers: u32,

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const phases: *PhaseTest = @ptrCast(@alignCast(context));
        const mine = &phases.counters[thread];
        for (0..phases.barriers) |_| {
            mine.value += 1;
            team.barrier();
            for (phases.counters) |other| {
                if (other.value != mine.value) mine.wrong += 1;
            }
            // Nobody counts on before all have looked.
            team.barrier();
        }
    }
};

// ---------------------------------------------------------------- memory peak

/// Nanoseconds of the quickest of `rounds` rounds in which the team reads the buffer once, each thread
/// its own contiguous part. `buffer` is aligned to 64 bytes; less than 1 KiB a thread is left out.
/// Divide the bytes by it for the machine's read bandwidth with these threads at this moment.
pub export fn trilith_read_peak(team: *Team, buffer: *const anyopaque, bytes: u64, rounds: i32) u64 {
    var read: ReadPeak = .{ .start = @ptrCast(@alignCast(buffer)), .blocks = bytes / @sizeOf(ReadPeak.Block) };
    var best: u64 = std.math.maxInt(u64);
    for (0..@intCast(@max(rounds, 1))) |_| {
        const start = team_zig.now();
        team.run(@ptrCast(&read), ReadPeak.body);
        best = @min(best, team_zig.now() - start);
    }
    return best;
}

const ReadPeak = struct {
    const Vector = @Vector(8, u64);
    /// As many accumulators, so that loads never wait for one another.
    const Block = [8]Vector;

    start: [*]const Block,
    blocks: u64,

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const read: *ReadPeak = @ptrCast(@alignCast(context));
        const from = read.blocks * thread / team.threads;
        const to = read.blocks * (thread + 1) / team.threads;
        // Two halves at a time: 4 to 7 % more than one after the other where this was measured.
        const half = (to - from) / 2;
        var sums: Block = @splat(@splat(0));
        for (read.start[from..][0..half], read.start[from + half ..][0..half]) |*low, *high| {
            inline for (0..sums.len) |i| sums[i] ^= low[i] ^ high[i];
        }
        std.mem.doNotOptimizeAway(&sums);
    }
};

// ---------------------------------------------------------------- probing

/// Runs `body` in a child process: 0 if it returns there, else the number of the signal that ended it,
/// such as SIGILL where a CPU (or a virtual machine) lacks an instruction that it claims to have.
/// Where no child can be made or watched, `body` runs in this process.
///
/// `body` must neither take locks nor call libc: the child has this one thread only.
pub fn survives(comptime body: fn () void) i32 {
    if (os == .linux or os == .macos) {
        if (survivesInChild(body)) |signal| return signal;
    }
    body();
    return 0;
}

fn survivesInChild(comptime body: fn () void) ?i32 {
    const child: isize = if (os == .linux) @bitCast(linux.fork()) else std.c.fork();
    if (child < 0) return null;
    if (child == 0) {
        dieQuietly();
        body();
        if (os == .linux) linux.exit_group(0) else std.c._exit(0);
    }
    const status = waitFor(@intCast(child)) orelse return null;
    if (posix.W.IFSIGNALED(status)) return @intCast(@backingInt(posix.W.TERMSIG(status)));
    return 0;
}

/// The runtime's handlers would print a crash report, and a core file would be left.
fn dieQuietly() void {
    const default: posix.Sigaction = .{ .handler = .{ .handler = posix.SIG.DFL }, .mask = posix.sigemptyset(), .flags = 0 };
    for ([_]posix.SIG{ .ILL, .SEGV, .BUS, .FPE, .TRAP }) |signal| posix.sigaction(signal, &default, null);
    posix.setrlimit(.CORE, .{ .cur = 0, .max = 0 }) catch {};
}

/// The status with which a child ended, or null if somebody else has taken it.
fn waitFor(child: posix.pid_t) ?u32 {
    while (true) {
        if (os == .linux) {
            var status: i32 = 0;
            switch (linux.errno(linux.waitpid(child, &status, 0))) {
                .SUCCESS => return @bitCast(status),
                .INTR => continue,
                else => return null,
            }
        } else {
            var status: c_int = 0;
            if (std.c.waitpid(child, &status, 0) == child) return @bitCast(status);
            if (posix.errno(@as(c_int, -1)) != .INTR) return null;
        }
    }
}
