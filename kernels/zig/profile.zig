//! Where the time of steps goes: a stopwatch whose laps cost some 10 ns, as a step has hundreds.
const std = @import("std");
const builtin = @import("builtin");
const team_zig = @import("team.zig");

/// Adds up, for each of some phases, the time from one lap to the next. Used by one thread.
pub fn Stopwatch(comptime phases: usize) type {
    return struct {
        const Self = @This();

        running: bool = false,
        last: u64 = 0,
        ticks: [phases]u64 = @splat(0),
        /// Both clocks at the start, from which a tick's length follows.
        started_ticks: u64 = 0,
        started_ns: u64 = 0,

        /// All phases begin at 0.
        pub fn start(watch: *Self) void {
            watch.* = .{ .running = true, .started_ticks = counter(), .started_ns = team_zig.now() };
            watch.last = watch.started_ticks;
        }

        /// What passes until the next lap is that lap's; what passed since the last is nobody's.
        pub fn begin(watch: *Self) void {
            watch.last = counter();
        }

        pub inline fn lap(watch: *Self, phase: usize) void {
            const ticks = counter();
            watch.ticks[phase] +%= ticks -% watch.last;
            watch.last = ticks;
        }

        /// Ends the measurement: the seconds of each phase.
        pub fn stop(watch: *Self) [phases]f64 {
            const ticks: f64 = @floatFromInt(@max(counter() -% watch.started_ticks, 1));
            const ns: f64 = @floatFromInt(team_zig.now() - watch.started_ns);
            watch.running = false;
            var seconds: [phases]f64 = undefined;
            for (watch.ticks, &seconds) |phase_ticks, *out| {
                const count: f64 = @floatFromInt(phase_ticks);
                out.* = count * (ns / ticks) / std.time.ns_per_s;
            }
            return seconds;
        }
    };
}

/// A counter that runs at a constant rate on all CPUs that have the kernels' instruction sets, and is
/// read without asking the system.
inline fn counter() u64 {
    switch (builtin.target.cpu.arch) {
        .x86_64 => {
            var low: u32 = undefined;
            var high: u32 = undefined;
            asm volatile ("rdtsc"
                : [low] "={eax}" (low),
                  [high] "={edx}" (high),
            );
            return @as(u64, high) << 32 | low;
        },
        .aarch64 => return asm volatile ("mrs %[count], cntvct_el0"
            : [count] "=r" (-> u64),
        ),
        else => return team_zig.now(),
    }
}

test "laps add up to the whole, each to its phase" {
    var watch: Stopwatch(3) = .{};
    watch.start();
    const start = team_zig.now();
    for (0..100) |_| {
        watch.begin();
        while (team_zig.now() - start < 100_000) {}
        watch.lap(1);
        watch.lap(2);
    }
    const passed: f64 = @floatFromInt(team_zig.now() - start);
    const seconds = watch.stop();
    try std.testing.expectEqual(0, seconds[0]);
    try std.testing.expect(seconds[1] > 0);
    try std.testing.expect((seconds[1] + seconds[2]) * std.time.ns_per_s <= passed * 1.5 + 1000);
    try std.testing.expect(!watch.running);
}

test "starting anew forgets" {
    var watch: Stopwatch(1) = .{};
    watch.start();
    watch.lap(0);
    watch.start();
    try std.testing.expectEqual(0, watch.ticks[0]);
}
