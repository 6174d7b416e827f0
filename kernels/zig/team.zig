//! A team of native threads that runs one function on all of them at a time, with barriers inside.
//! Waiting spins for up to 100 microseconds, which is how long the parts of a decoder step differ, and
//! then sleeps in the kernel, so that a busy machine loses little.
const std = @import("std");
const builtin = @import("builtin");

const linux = std.os.linux;
const on_linux = builtin.target.os.tag == .linux;

/// How long a waiting thread spins before it sleeps. A wake-up costs 20 to 100 us in a virtual
/// machine, a barrier that finds everybody awake less than 1 us: spinning as long as a wake-up takes
/// loses at most twice what is best. 100 us in place of 20: decode of the 2B4T shape with 2 threads
/// reads at 74 % of the memory peak in place of 69 %.
const spin_ns = 100_000;

/// Kernel code keeps its buffers elsewhere; the default of 16 MiB would only reserve address space.
const stack_bytes = 1 << 20;

pub const max_threads = 1024;

pub const Team = struct {
    pub const Body = fn (context: *anyopaque, team: *Team, thread: u32) void;

    /// Threads that a run has, the caller's among them.
    threads: u32,
    /// Turns of the spin loop in `spin_ns`; 0 if there are more threads than CPUs to run them.
    spins: u32,
    /// A CPU for each thread, if there are as many as threads: see `Place`.
    places: ?Place,
    workers: []std.Thread,

    /// Set before `work` is increased and read after that was seen.
    body: *const Body = undefined,
    context: *anyopaque = undefined,
    stopping: bool = false,

    // Each on a cache line of its own: they are written by different threads at different times.
    /// Generation of the run that workers are to take part in.
    work: Event align(std.atomic.cache_line) = .{},
    /// Threads that have come to the current barrier.
    arrived: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),
    /// Generation of the barrier.
    phase: Event align(std.atomic.cache_line) = .{},

    /// A team of `threads` threads: the caller of `run` and `threads - 1` workers. Null if the system
    /// gives no more memory or threads.
    pub fn create(threads: u32) ?*Team {
        if (threads == 0 or threads > max_threads) return null;
        const memory = std.heap.page_allocator;
        const team = memory.create(Team) catch return null;
        const workers = memory.alloc(std.Thread, threads - 1) catch {
            memory.destroy(team);
            return null;
        };
        const cpus = allowedCpus();
        team.* = .{
            .threads = threads,
            .spins = if (threads > cpus) 0 else measureSpins(),
            .places = if (threads == cpus) Place.current() else null,
            .workers = workers[0..0],
        };
        for (workers, 1..) |*worker, index| {
            const config: std.Thread.SpawnConfig = .{ .stack_size = stack_bytes, .allocator = memory };
            worker.* = std.Thread.spawn(config, work_loop, .{ team, @as(u32, @intCast(index)) }) catch {
                team.stop();
                memory.free(workers);
                memory.destroy(team);
                return null;
            };
            team.workers = workers[0..index];
        }
        return team;
    }

    /// Ends the workers. No run may be under way.
    pub fn destroy(team: *Team) void {
        team.stop();
        std.heap.page_allocator.free(team.workers);
        std.heap.page_allocator.destroy(team);
    }

    fn stop(team: *Team) void {
        team.stopping = true;
        team.work.advance();
        for (team.workers) |worker| worker.join();
    }

    /// Calls body(context, team, thread) for each thread number, 0 on the caller's own thread, and
    /// returns when all have returned. One run at a time; it may be called from different threads.
    ///
    /// What the caller wrote before is seen by all of them, and what they wrote by the caller
    /// afterwards: `advance` releases and the workers' `wait` acquires, then the barrier at the end
    /// does the same the other way.
    pub fn run(team: *Team, context: *anyopaque, comptime body: Body) void {
        if (team.threads == 1) return body(context, team, 0);
        const before = if (team.places) |places| places.enter(0) else null;
        defer if (before) |place| place.restore();
        team.body = body;
        team.context = context;
        team.work.advance();
        body(context, team, 0);
        team.barrier();
    }

    fn work_loop(team: *Team, thread: u32) void {
        if (team.places) |places| _ = places.enter(thread);
        var seen: u32 = 0;
        while (true) {
            team.work.wait(seen, team.spins);
            // One run ends before the next begins, so that no generation is ever missed.
            seen +%= 1;
            if (team.stopping) return;
            team.body(team.context, team, thread);
            team.barrier();
        }
    }

    /// Waits until all threads of the run have come here. All must call it equally often.
    ///
    /// What any thread wrote before it is seen by every thread after it: each arrival is a release and
    /// an acquire on `arrived`, so that the last one has seen the writes of all, and its `advance`
    /// hands them on to those who wait. `arrived` is set back before `advance`, hence before anyone
    /// can come to the next barrier. `phase` cannot move on between its load and our arrival, as that
    /// takes our arrival.
    pub fn barrier(team: *Team) void {
        if (team.threads == 1) return;
        const phase = team.phase.generation.load(.monotonic);
        if (team.arrived.fetchAdd(1, .acq_rel) + 1 == team.threads) {
            team.arrived.store(0, .monotonic);
            team.phase.advance();
        } else {
            team.phase.wait(phase, team.spins);
        }
    }
};

/// A generation that one thread advances while the others wait for it.
const Event = struct {
    generation: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),

    /// Releases what was written before. A sleeper is never missed: it counts itself before it looks
    /// at the generation for the last time, and we set the generation before we look at the count.
    /// All four are sequentially consistent, so that one of the two sees the other; and the kernel
    /// compares the generation again before it lets anyone sleep.
    fn advance(event: *Event) void {
        _ = event.generation.fetchAdd(1, .seq_cst);
        if (event.sleepers.load(.seq_cst) != 0) wakeAll(&event.generation);
    }

    /// Returns once the generation is no longer `old`, and acquires what came before.
    fn wait(event: *Event, old: u32, spins: u32) void {
        for (0..spins) |_| {
            if (event.generation.load(.acquire) != old) return;
            std.atomic.spinLoopHint();
        }
        _ = event.sleepers.fetchAdd(1, .seq_cst);
        while (event.generation.load(.seq_cst) == old) sleepWhile(&event.generation, old);
        _ = event.sleepers.fetchSub(1, .seq_cst);
    }
};

/// Sleeps if `word` is still `expected`. May return at any time.
fn sleepWhile(word: *std.atomic.Value(u32), expected: u32) void {
    if (on_linux) {
        _ = linux.futex_4arg(&word.raw, .{ .cmd = .WAIT, .private = true }, expected, null);
    } else {
        otherIo().futexWaitUncancelable(u32, &word.raw, expected);
    }
}

fn wakeAll(word: *std.atomic.Value(u32)) void {
    if (on_linux) {
        _ = linux.futex_3arg(&word.raw, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32));
    } else {
        otherIo().futexWake(u32, &word.raw, std.math.maxInt(u32));
    }
}

/// Nanoseconds of a clock that only goes forward.
pub fn now() u64 {
    if (on_linux) {
        var time: linux.timespec = undefined;
        _ = linux.clock_gettime(.MONOTONIC, &time);
        return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
    }
    return @intCast(std.Io.Clock.now(.awake, otherIo()).nanoseconds);
}

/// Zig's own wrapper of the system calls of macOS and Windows. Linux does without, which keeps its
/// libraries small.
fn otherIo() std.Io {
    return std.Io.Threaded.global_single_threaded.io();
}

/// The pause instruction takes from 4 to 140 cycles on different CPUs. The quickest of five short
/// measurements, as other processes can only lengthen one.
fn measureSpins() u32 {
    const turns = 200;
    var dummy: Event = .{};
    var best: u64 = std.math.maxInt(u64);
    for (0..5) |_| {
        const start = now();
        for (0..turns) |_| {
            if (dummy.generation.load(.acquire) != 0) return 0;
            std.atomic.spinLoopHint();
        }
        best = @min(best, now() - start);
    }
    std.mem.doNotOptimizeAway(&dummy);
    return @intCast(@min(spin_ns * turns / @max(best, 1), 1 << 20));
}

/// CPUs that this process may run on; 0 is unknown.
fn allowedCpus() u32 {
    const place = Place.current() orelse return @intCast(std.Thread.getCpuCount() catch 0);
    var count: u32 = 0;
    for (place.cpus) |word| count += @popCount(word);
    return count;
}

/// The CPUs that a thread may run on. A team with a thread for every CPU keeps each on its own: on a
/// busy machine Linux otherwise wakes two on the same CPU, where one spins while the other could work
/// (measured with 2 threads: no gain over 1). A smaller team does better where the scheduler finds
/// room.
const Place = struct {
    cpus: linux.cpu_set_t,

    /// Null where the system does not say.
    fn current() ?Place {
        if (!on_linux) return null;
        var place: Place = .{ .cpus = @splat(0) };
        const code = linux.sched_getaffinity(0, @sizeOf(linux.cpu_set_t), &place.cpus);
        return if (linux.errno(code) == .SUCCESS) place else null;
    }

    /// Moves the calling thread to the CPU of its number. Returns where it was, as thread 0 is the
    /// runtime's and goes back after each run.
    fn enter(allowed: Place, thread: u32) ?Place {
        const before = current() orelse return null;
        allowed.only(thread).restore();
        return before;
    }

    fn restore(place: Place) void {
        // Refused in some containers: then the scheduler decides.
        if (on_linux) linux.sched_setaffinity(0, &place.cpus) catch {};
    }

    /// The `index`th of the CPUs.
    fn only(place: Place, index: u32) Place {
        var left = index;
        var one: Place = .{ .cpus = @splat(0) };
        for (place.cpus, 0..) |word, at| {
            var bits = word;
            while (bits != 0) : (bits &= bits - 1) {
                if (left == 0) {
                    one.cpus[at] = bits & (~bits + 1);
                    return one;
                }
                left -= 1;
            }
        }
        return place;
    }
};
