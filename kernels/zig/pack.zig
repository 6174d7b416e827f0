//! Ternary matrices from the form in which a checkpoint has them to the layout that kernels read.
//! `runtime/ternary.ts` and `codegen/layouts` say the same, a weight at a time.
const std = @import("std");
const math = @import("math.zig");
const Team = @import("team.zig").Team;

/// Rows of a block.
pub const rows = 32;
/// The same feature of all rows of a block: codes 0, 1, 2 for weights -1, 0, +1.
pub const Codes = @Vector(rows, u8);
pub const Words = @Vector(rows, u16);

/// Codes of neighbouring features of one row.
const line_codes = 64;
const Line = @Vector(line_codes, u8);
const zero_code = 1;

/// How a matrix (n, k) is given, row-major.
pub const Kind = enum(i32) {
    /// One byte a code.
    codes = 0,
    /// Transformers' packing: byte (r, c) holds the codes of rows r, r + R, r + 2R, r + 3R in bits 0-1,
    /// 2-3, 4-5, 6-7, with R = ceil(n / 4).
    quarters = 1,
    /// Floats, to be ternarised by `Matrix.factor`.
    f32 = 2,
    f16 = 3,
    bf16 = 4,
    /// Ternary types of GGUF files: blocks of codes, and but for I2_S the factor of each in half precision.
    i2s = 5,
    tq1 = 6,
    tq2 = 7,
    q2 = 8,
    pq2 = 9,
    ptq1 = 10,
    /// Q2_0 with factors in bfloat16, whose zeros are those of half precision.
    q2b = 11,
};

/// How a type lies that has blocks.
const Block = struct {
    /// 64 weights each.
    lines: usize,
    bytes: usize,
    /// Where the factor is; null if it is not in the block.
    factor: ?usize,
};

fn blockOf(kind: Kind) ?Block {
    return switch (kind) {
        .i2s => .{ .lines = 2, .bytes = 32, .factor = null },
        .tq1 => .{ .lines = 4, .bytes = 54, .factor = 52 },
        .tq2 => .{ .lines = 4, .bytes = 66, .factor = 64 },
        .q2, .q2b => .{ .lines = 1, .bytes = 18, .factor = 0 },
        .pq2 => .{ .lines = 2, .bytes = 34, .factor = 0 },
        .ptq1 => .{ .lines = 2, .bytes = 28, .factor = 26 },
        .codes, .quarters, .f32, .f16, .bf16 => null,
    };
}

pub const Matrix = struct {
    bytes: [*]const u8,
    n: usize,
    k: usize,
    /// What floats are multiplied by before they are rounded and clamped to -1 .. 1.
    factor: f32,
};

// ---------------------------------------------------------------- reading a row

fn elementBytes(kind: Kind) usize {
    return switch (kind) {
        .codes, .quarters => 1,
        .f16, .bf16 => 2,
        .f32 => 4,
        .i2s, .tq1, .tq2, .q2, .pq2, .ptq1, .q2b => unreachable,
    };
}

/// The codes of features `from` .. `from + count` of a row go to `out`; what is left of the last line
/// becomes zero weights. Not 0 if one of the codes is 3, which is none.
fn readRow(comptime kind: Kind, matrix: Matrix, row: usize, from: usize, count: usize, out: [*]u8) u8 {
    if (comptime blockOf(kind)) |block| return readBlocks(kind, block, matrix, row, from, count, out);
    const quarter = (matrix.n + 3) / 4;
    const stored = if (kind == .quarters) row % quarter else row;
    const shift: u3 = if (kind == .quarters) @intCast(2 * (row / quarter)) else 0;
    const size = comptime elementBytes(kind);
    const source = matrix.bytes + (stored * matrix.k + from) * size;
    var seen: Line = @splat(0);
    var at: usize = 0;
    while (at + line_codes <= count) : (at += line_codes) {
        const line = decode(kind, source + at * size, shift, matrix.factor);
        seen |= line & (line >> @splat(1));
        out[at..][0..line_codes].* = line;
    }
    if (at < count) {
        // Not read past the matrix's end.
        var rest: [line_codes * size]u8 align(64) = @splat(0);
        @memcpy(rest[0 .. (count - at) * size], source[at * size .. count * size]);
        const line = decode(kind, &rest, shift, matrix.factor);
        const wanted = std.simd.iota(u8, line_codes) < @as(Line, @splat(@intCast(count - at)));
        const codes = @select(u8, wanted, line, @as(Line, @splat(zero_code)));
        seen |= codes & (codes >> @splat(1));
        out[at..][0..line_codes].* = codes;
    }
    return @reduce(.Or, seen) & 1;
}

inline fn decode(comptime kind: Kind, p: [*]const u8, shift: u3, factor: f32) Line {
    switch (kind) {
        .codes => return p[0..line_codes].*,
        .quarters => {
            const line: Line = p[0..line_codes].*;
            return (line >> @splat(shift)) & @as(Line, @splat(3));
        },
        .f32 => return ternarise(f32, p, factor),
        .f16 => return ternarise(f16, p, factor),
        .bf16 => return ternarise(u16, p, factor),
        .i2s, .tq1, .tq2, .q2, .pq2, .ptq1, .q2b => unreachable,
    }
}

/// As readRow; features divide into blocks, and `from` and `count` into lines.
fn readBlocks(comptime kind: Kind, comptime block: Block, matrix: Matrix, row: usize, from: usize, count: usize, out: [*]u8) u8 {
    const row_bytes = matrix.k / (block.lines * line_codes) * block.bytes;
    const source = matrix.bytes + row * row_bytes;
    var seen: Line = @splat(0);
    for (from / line_codes..(from + count) / line_codes) |line| {
        const codes = decodeBlock(kind, block, source + line / block.lines * block.bytes, line % block.lines);
        seen |= codes & (codes >> @splat(1));
        out[line * line_codes - from ..][0..line_codes].* = codes;
    }
    return @reduce(.Or, seen) & 1;
}

/// A line of a block. Where the factor is 0 so are the weights, whatever their codes.
inline fn decodeBlock(comptime kind: Kind, comptime block: Block, p: [*]const u8, line: usize) Line {
    if (block.factor) |at| {
        // -0 is a 0 too.
        if (std.mem.readInt(u16, p[at..][0..2], .little) << 1 == 0) return @splat(zero_code);
    }
    switch (kind) {
        .i2s => return twoShifts(p, @intCast(4 - 4 * line), true),
        .tq2 => return twoShifts(p + line / 2 * 32, @intCast(line % 2 * 4), false),
        .q2, .q2b, .pq2 => return fourFold(p + 2 + line * 16),
        .tq1 => switch (@as(u2, @intCast(line))) {
            inline else => |at| return tritLine(tq1_segments[4 * @as(usize, at) ..][0..4], p),
        },
        .ptq1 => switch (@as(u1, @intCast(line))) {
            inline else => |at| return tritLine(ptq1_segments[4 * @as(usize, at) ..][0..4], p),
        },
        .codes, .quarters, .f32, .f16, .bf16 => unreachable,
    }
}

/// 32 codes at bits `shift` of 32 bytes and 32 two bits above; in the other order if `high_first`.
inline fn twoShifts(p: [*]const u8, shift: u3, comptime high_first: bool) Line {
    const bytes: @Vector(32, u8) = p[0..32].*;
    const mask: @Vector(32, u8) = @splat(3);
    const low = (bytes >> @splat(shift)) & mask;
    const high = (bytes >> @splat(shift + 2)) & mask;
    return if (high_first) std.simd.join(high, low) else std.simd.join(low, high);
}

/// Four neighbouring codes in each of 16 bytes, the first in the lowest bits.
inline fn fourFold(p: [*]const u8) Line {
    const bytes: @Vector(16, u8) = p[0..16].*;
    const sources: @Vector(line_codes, i32) = comptime blk: {
        var mask: [line_codes]i32 = undefined;
        for (&mask, 0..) |*lane, i| lane.* = i / 4;
        break :blk mask;
    };
    const shifts: @Vector(line_codes, u3) = comptime blk: {
        var each: [line_codes]u3 = undefined;
        for (&each, 0..) |*lane, i| lane.* = 2 * (i % 4);
        break :blk each;
    };
    const codes = @shuffle(u8, bytes, undefined, sources) >> shifts;
    return codes & @as(Line, @splat(3));
}

/// 16 weights that are trits of bytes: the byte of each in the block, and 3 to the power of its place.
const Segment = struct { bytes: [16]u8, powers: [16]u8 };

/// Weight i of a part is trit i / width of byte i % width.
fn segment(comptime from: usize, comptime width: usize, comptime first: usize) Segment {
    var found: Segment = undefined;
    for (0..16) |lane| part(&found, lane, from, width, first + lane);
    return found;
}

fn part(found: *Segment, lane: usize, from: usize, width: usize, i: usize) void {
    found.bytes[lane] = @intCast(from + i % width);
    found.powers[lane] = std.math.pow(u8, 3, @intCast(i / width));
}

/// Five trits in each of 32 bytes, then of 16; then four in each of 4.
const tq1_segments = blk: {
    @setEvalBranchQuota(10000);
    var all: [16]Segment = undefined;
    for (0..10) |i| all[i] = segment(0, 32, 16 * i);
    for (0..5) |i| all[10 + i] = segment(32, 16, 16 * i);
    all[15] = segment(48, 4, 0);
    break :blk all;
};

/// Five trits in each of 16 bytes, then of 8; then four in each of 2.
const ptq1_segments = blk: {
    @setEvalBranchQuota(10000);
    var all: [8]Segment = undefined;
    for (0..5) |i| all[i] = segment(0, 16, 16 * i);
    for (0..3) |i| all[5 + i] = segment(16, 8, 16 * i);
    for (8..16) |lane| part(&all[7], lane, 24, 2, lane - 8);
    break :blk all;
};

inline fn tritLine(comptime segments: *const [4]Segment, p: [*]const u8) Line {
    var codes: [line_codes]u8 = undefined;
    inline for (segments, 0..) |each, i| codes[16 * i ..][0..16].* = trits(each, p);
    return codes;
}

/// A byte is ceil(v * 256 / 243) of its trits v in base 3: times 3^i mod 256, its next trit is on top.
inline fn trits(comptime each: Segment, p: [*]const u8) @Vector(16, u8) {
    var bytes: [16]u8 = undefined;
    inline for (each.bytes, 0..) |at, lane| bytes[lane] = p[at];
    const shifted = @as(@Vector(16, u8), bytes) *% @as(@Vector(16, u8), each.powers);
    const wide: @Vector(16, u16) = shifted;
    return @truncate((wide * @as(@Vector(16, u16), @splat(3))) >> @splat(8));
}

/// round(w * factor) clamped to -1 .. 1, plus 1. Ties go to even: 0.5 becomes 0.
inline fn ternarise(comptime T: type, p: [*]const u8, factor: f32) Line {
    const elements: [*]const T = @ptrCast(@alignCast(p));
    var codes: [line_codes]u8 = undefined;
    inline for (0..line_codes / math.lanes) |i| {
        const scaled = math.widen(T, elements + i * math.lanes) * math.splat(factor);
        const one: @Vector(math.lanes, u8) = @splat(1);
        const none: @Vector(math.lanes, u8) = @splat(0);
        const up = @select(u8, scaled > math.splat(0.5), one, none);
        const down = @select(u8, scaled < math.splat(-0.5), one, none);
        codes[i * math.lanes ..][0..math.lanes].* = one + up - down;
    }
    return codes;
}

// ---------------------------------------------------------------- packing

/// Packs in the layout that `Layout` describes, as `codegen/pack/template.ts` emits it:
///
///     Word            u8, u16 or u32: the element of one row
///     group_features  features of a group, which is encoded as a whole
///     group_words     words of a group
///     slice_groups    groups of a slice; 0 if the whole matrix is one
///     unit_blocks     blocks of a unit
///     lane_rows       the row of a block that each lane of a word holds
///     encode          fn (codes: *const [group_features]Codes) [group_words]@Vector(rows, Word)
///
/// Words lie in the order [slice][unit][word][block][lane], slices and units short at the end.
pub fn Packer(comptime Layout: type) type {
    return struct {
        /// Features that are transposed at a time: whole groups and whole lines, about 600.
        const chunk_groups = blk: {
            const step = line_codes / std.math.gcd(line_codes, Layout.group_features);
            break :blk step * (std.math.divCeil(comptime_int, 512, step * Layout.group_features) catch unreachable);
        };
        const chunk_features = chunk_groups * Layout.group_features;
        const Vector = @Vector(rows, Layout.Word);

        const Run = struct {
            matrix: Matrix,
            kind: Kind,
            out: [*]u8,
            blocks: usize,
            groups: usize,
            /// The next item of work, a chunk of a unit: any thread takes it.
            next: std.atomic.Value(usize) align(std.atomic.cache_line) = .init(0),
            fault: std.atomic.Value(u8) align(std.atomic.cache_line) = .init(0),
        };

        /// Fills all of a packed matrix, padding too. False if a code is 3.
        pub fn pack(team: *Team, kind: Kind, matrix: Matrix, out: [*]u8) bool {
            var run: Run = .{
                .matrix = matrix,
                .kind = kind,
                .out = out,
                .blocks = ceilDiv(matrix.n, rows),
                .groups = ceilDiv(matrix.k, Layout.group_features),
            };
            team.run(@ptrCast(&run), body);
            return run.fault.load(.monotonic) == 0;
        }

        /// Chunks of neighbouring units follow each other, so that what rows of different quarters
        /// share is still in the cache, and what is written lies together.
        fn body(context: *anyopaque, _: *Team, _: u32) void {
            const run: *Run = @ptrCast(@alignCast(context));
            const units = ceilDiv(run.blocks, Layout.unit_blocks);
            const chunks = ceilDiv(run.groups, chunk_groups);
            while (true) {
                const item = run.next.fetchAdd(1, .monotonic);
                if (item >= units * chunks) return;
                const first = item % units * Layout.unit_blocks;
                for (first..@min(first + Layout.unit_blocks, run.blocks)) |block| {
                    packChunk(run, block, item / units * chunk_groups);
                }
            }
        }

        fn packChunk(run: *Run, block: usize, first: usize) void {
            var lines: [rows][chunk_features]u8 align(64) = undefined;
            var columns: [chunk_features]Codes align(64) = undefined;
            const groups: usize = @min(chunk_groups, run.groups - first);
            const fault = switch (run.kind) {
                inline else => |kind| readLines(kind, run.matrix, block, first * Layout.group_features, &lines),
            };
            if (fault != 0) run.fault.store(1, .monotonic);
            var at: usize = 0;
            while (at < groups * Layout.group_features) : (at += rows) transpose(&lines, at, &columns);
            for (0..groups) |group| {
                const words = Layout.encode(columns[group * Layout.group_features ..][0..Layout.group_features]);
                store(run, block, first + group, words);
            }
        }

        /// A chunk of all rows of a block; those behind the last are zero weights.
        fn readLines(comptime kind: Kind, matrix: Matrix, block: usize, from: usize, lines: *[rows][chunk_features]u8) u8 {
            const count: usize = @min(chunk_features, matrix.k - from);
            const read = std.mem.alignForward(usize, count, line_codes);
            var fault: u8 = 0;
            for (lines, block * rows..) |*line, row| {
                if (row < matrix.n) {
                    fault |= readRow(kind, matrix, row, from, count, line);
                    @memset(line[read..], zero_code);
                } else @memset(line, zero_code);
            }
            return fault;
        }

        /// Features at .. at + 32 of all rows.
        fn transpose(lines: *const [rows][chunk_features]u8, at: usize, columns: *[chunk_features]Codes) void {
            var square: [rows]Codes = undefined;
            inline for (0..rows) |row| square[row] = lines[row][at..][0..rows].*;
            // Each round interleaves rows i and i + 16: five of them turn rows into columns.
            inline for (0..5) |_| {
                var next: [rows]Codes = undefined;
                inline for (0..rows / 2) |i| {
                    next[2 * i] = @shuffle(u8, square[i], square[i + rows / 2], zip_low);
                    next[2 * i + 1] = @shuffle(u8, square[i], square[i + rows / 2], zip_high);
                }
                square = next;
            }
            columns[at..][0..rows].* = square;
        }

        fn store(run: *Run, block: usize, group: usize, words: [Layout.group_words]Vector) void {
            const slice_groups = if (Layout.slice_groups == 0) run.groups else Layout.slice_groups;
            const first = group - group % slice_groups;
            const count: usize = @min(slice_groups, run.groups - first);
            const unit = block - block % Layout.unit_blocks;
            const width: usize = @min(Layout.unit_blocks, run.blocks - unit);
            const start = (first * run.blocks + unit * count) * Layout.group_words + block - unit;
            const vectors: [*]align(1) Vector = @ptrCast(run.out);
            inline for (words, 0..) |vector, i| {
                vectors[start + ((group - first) * Layout.group_words + i) * width] = @shuffle(Layout.Word, vector, undefined, Layout.lane_rows);
            }
        }
    };
}

/// Masks of @shuffle(a, b): a[from], b[from], a[from + 1], b[from + 1], ...: half of each.
const zip_low = zipFrom(0);
const zip_high = zipFrom(rows / 2);

fn zipFrom(comptime from: i32) [rows]i32 {
    var mask: [rows]i32 = undefined;
    for (0..rows / 2) |i| {
        mask[2 * i] = from + @as(i32, i);
        mask[2 * i + 1] = ~mask[2 * i];
    }
    return mask;
}

fn ceilDiv(a: usize, b: usize) usize {
    return (a + b - 1) / b;
}

// ---------------------------------------------------------------- what layouts encode with

/// Three codes as digits in base 3, the first lowest: 0 .. 26.
pub inline fn index(codes: [*]const Codes) Codes {
    return codes[0] + codes[1] * @as(Codes, @splat(3)) + codes[2] * @as(Codes, @splat(9));
}

/// Three indices in bits 0-4, 5-9, 10-14.
pub inline fn threeIndices(codes: [*]const Codes) Words {
    const a: Words = index(codes);
    const b: Words = index(codes + 3);
    const c: Words = index(codes + 6);
    return a | b << @splat(5) | c << @splat(10);
}

// ---------------------------------------------------------------- absmean

const Sums = struct {
    matrix: Matrix,
    kind: Kind,
    out: [*]f64,

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const sums: *Sums = @ptrCast(@alignCast(context));
        const mine = math.share(sums.matrix.n, thread, team.threads);
        for (mine[0]..mine[1]) |row| {
            sums.out[row] = switch (sums.kind) {
                .f32 => rowSum(f32, sums.matrix, row),
                .f16 => rowSum(f16, sums.matrix, row),
                .bf16 => rowSum(u16, sums.matrix, row),
                .codes, .quarters, .i2s, .tq1, .tq2, .q2, .pq2, .ptq1, .q2b => 0,
            };
        }
    }
};

/// Sum of |w| of a row in doubles: lane i % 16 adds its elements in order, then the lanes as a tree.
fn rowSum(comptime T: type, matrix: Matrix, row: usize) f64 {
    const elements: [*]const T = @ptrCast(@alignCast(matrix.bytes));
    const p = elements + row * matrix.k;
    var sum: math.D = @splat(0);
    var i: usize = 0;
    while (i + math.lanes <= matrix.k) : (i += math.lanes) sum += sizes(T, p + i);
    if (i < matrix.k) {
        var rest: [math.lanes]T = @splat(0);
        @memcpy(rest[0 .. matrix.k - i], p[i..matrix.k]);
        sum += sizes(T, &rest);
    }
    return math.sumWide(sum);
}

inline fn sizes(comptime T: type, p: [*]const T) math.D {
    return @abs(@as(math.D, @floatCast(math.widen(T, p))));
}

/// Sums of |w| of each row of a float matrix.
pub export fn trilith_row_sums(team: *Team, kind: i32, bytes: [*]const u8, n: i32, k: i32, out: [*]f64) void {
    var sums: Sums = .{
        .matrix = .{ .bytes = bytes, .n = @intCast(n), .k = @intCast(k), .factor = 0 },
        .kind = @fromBackingInt(kind),
        .out = out,
    };
    team.run(@ptrCast(&sums), Sums.body);
}

// ---------------------------------------------------------------- floats that are ternary as they stand

const Magnitudes = struct {
    matrix: Matrix,
    kind: Kind,
    /// Features that share a magnitude.
    size: usize,
    /// (n, ceil(k / size)).
    out: [*]f32,
    fault: std.atomic.Value(u8) = .init(0),

    fn body(context: *anyopaque, team: *Team, thread: u32) void {
        const self: *Magnitudes = @ptrCast(@alignCast(context));
        const mine = math.share(self.matrix.n, thread, team.threads);
        const good = switch (self.kind) {
            .f32 => self.rows(f32, u32, mine),
            .f16 => self.rows(f16, u16, mine),
            .bf16 => self.rows(u16, u16, mine),
            else => false,
        };
        if (!good) self.fault.store(1, .monotonic);
    }

    fn rows(self: *const Magnitudes, comptime T: type, comptime Bits: type, mine: [2]usize) bool {
        const elements: [*]const Bits = @ptrCast(@alignCast(self.matrix.bytes));
        const groups = ceilDiv(self.matrix.k, self.size);
        for (mine[0]..mine[1]) |row| {
            const values = elements[row * self.matrix.k ..][0..self.matrix.k];
            for (0..groups) |g| {
                const last: usize = @min((g + 1) * self.size, self.matrix.k);
                const magnitude = magnitudeOf(Bits, values[g * self.size .. last]) orelse return false;
                self.out[row * groups + g] = finite(T, magnitude) orelse return false;
            }
        }
        return true;
    }
};

/// The bits of the one magnitude that all values have that are not 0; null if they have several.
fn magnitudeOf(comptime Bits: type, values: []const Bits) ?Bits {
    const lanes = 64 / @sizeOf(Bits);
    const V = @Vector(lanes, Bits);
    const sizes_of: V = @splat(std.math.maxInt(Bits) >> 1);
    var largest: V = @splat(0);
    var i: usize = 0;
    while (i + lanes <= values.len) : (i += lanes) largest = @max(largest, @as(V, values[i..][0..lanes].*) & sizes_of);
    var magnitude = @reduce(.Max, largest);
    for (values[i..]) |value| magnitude = @max(magnitude, value & (std.math.maxInt(Bits) >> 1));
    var others: V = @splat(0);
    i = 0;
    while (i + lanes <= values.len) : (i += lanes) {
        const size = @as(V, values[i..][0..lanes].*) & sizes_of;
        others |= @select(Bits, size == @as(V, @splat(magnitude)), @as(V, @splat(0)), size);
    }
    var rest = @reduce(.Or, others);
    for (values[i..]) |value| {
        const size = value & (std.math.maxInt(Bits) >> 1);
        if (size != magnitude) rest |= size;
    }
    return if (rest == 0) magnitude else null;
}

/// A value of its bits, or null if it is infinite or none. bf16 is kept as u16.
fn finite(comptime T: type, bits: anytype) ?f32 {
    const value: f32 = if (T == u16) @bitCast(@as(u32, bits) << 16) else @as(T, @bitCast(bits));
    return if (std.math.isFinite(value)) value else null;
}

/// The magnitude of each group of `size` features of each row of a float matrix that is ternary as it
/// stands, see runtime/exact_ternary.ts. Returns 1 if it is not, else 0.
pub export fn trilith_magnitudes(team: *Team, kind: i32, bytes: [*]const u8, n: i32, k: i32, size: i32, out: [*]f32) i32 {
    var magnitudes: Magnitudes = .{
        .matrix = .{ .bytes = bytes, .n = @intCast(n), .k = @intCast(k), .factor = 0 },
        .kind = @fromBackingInt(kind),
        .size = @intCast(size),
        .out = out,
    };
    team.run(@ptrCast(&magnitudes), Magnitudes.body);
    return magnitudes.fault.load(.monotonic);
}
