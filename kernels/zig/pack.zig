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
};

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
    };
}

/// The codes of features `from` .. `from + count` of a row go to `out`; what is left of the last line
/// becomes zero weights. Not 0 if one of the codes is 3, which is none.
fn readRow(comptime kind: Kind, matrix: Matrix, row: usize, from: usize, count: usize, out: [*]u8) u8 {
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
    }
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
                .codes, .quarters => 0,
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
