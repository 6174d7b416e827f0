/// One ternary matrix: packed weights, the factor of a weight, and a bias of one f32 a row.
const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f64,
    tables: [*]i16,
};

/// y = exact * (scale * inverse), rounded once, + bias for 16 rows of a token.
inline fn finish(exact: math.I, linear: Linear, inverse: f64, row: usize, y: [*]f32) void {
    const wide: math.D = @floatFromInt(exact);
    const factor: math.D = @splat(linear.scale * inverse);
    var out: math.F = @floatCast(wide * factor);
    if (linear.bias) |bias| out += math.load(bias + row);
    math.store(y + row, out);
}

const Indices = @Vector(32, u16);
const Lanes = @Vector(32, i16);
const Bytes = @Vector(64, i8);
extern fn @"llvm.x86.avx512.vpdpbusd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
extern fn @"llvm.x86.avx512.vpdpwssd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
extern fn @"llvm.x86.avx512.packssdw.512"(math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) Lanes;
extern fn @"llvm.x86.avx512.pmulhu.w.512"(Indices, Indices) callconv(.{ .x86_64_sysv = .{} }) Indices;

/// The weights that a table's lane names: digits in base 3, digit 0, 1, 2 for weight -1, 0, +1.
fn weightOf(lane: usize, digit: usize, comptime trits: usize) i8 {
    const place = [3]usize{ 1, 3, 9 };
    return if (lane < 27 and digit < trits) @as(i8, @intCast(lane / place[digit] % 3)) - 1 else 0;
}

/// vpackssdw takes four lanes of one half, then four of the other: lane l of a half is this one.
fn tableLane(l: usize, half: usize) usize {
    return l / 4 * 8 + half * 4 + l % 4;
}

fn weightsOf(half: usize, comptime trits: usize) Bytes {
    var weights: [64]i8 = @splat(0);
    for (0..16) |l| {
        for (0..3) |digit| weights[4 * l + digit] = weightOf(tableLane(l, half), digit, trits);
    }
    return weights;
}

fn startOf(half: usize, comptime trits: usize) math.I {
    var start: [16]i32 = @splat(0);
    for (0..16) |l| {
        for (0..3) |digit| start[l] -= 128 * @as(i32, weightOf(tableLane(l, half), digit, trits));
    }
    return start;
}

/// First feature in its group of each table, and the group's end.
const table_features = [_]usize{ 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45, 48 };
const group_tables = 16;

/// A group's table j, lane v: the sum of the activations of its features times the weights that v names.
fn buildTables(comptime groups: usize, codes: [*]const i8, tables: [*]i16) void {
    @setEvalBranchQuota(100_000);
    for (0..groups) |group| {
        inline for (0..group_tables) |j| {
            const trits = table_features[j + 1] - table_features[j];
            const weights = comptime [2]math.I{ @bitCast(weightsOf(0, trits)), @bitCast(weightsOf(1, trits)) };
            const starts = comptime [2]math.I{ startOf(0, trits), startOf(1, trits) };
            const four: i32 = @bitCast(codes[group * 48 + table_features[j] ..][0..4].*);
            const shifted = @as(math.I, @splat(four)) ^ @as(math.I, @bitCast(@as(Bytes, @splat(-128))));
            const low = @"llvm.x86.avx512.vpdpbusd.512"(starts[0], shifted, weights[0]);
            const high = @"llvm.x86.avx512.vpdpbusd.512"(starts[1], shifted, weights[1]);
            tables[(group * group_tables + j) * 32 ..][0..32].* = @"llvm.x86.avx512.packssdw.512"(low, high);
        }
    }
}

const group_words = 5;
const slice_words = 25;

/// A matrix in 16-bit words and blocks of 32 rows.
const Grid = struct { words: usize, blocks: usize };

/// Packed weights, wherever the caller has them: unaligned loads cost nothing when they are aligned.
const Words = [*]align(1) const Indices;

/// vpermw: lane r is the table's lane that index r names by its five lower bits.
inline fn lookUp(table: Indices, indices: Indices) Lanes {
    return asm volatile ("vpermw %[table], %[indices], %[found]"
        : [found] "=v" (-> Lanes),
        : [table] "v" (table),
          [indices] "v" (indices),
    );
}

inline fn addTo(acc: Lanes, found: Lanes) Lanes {
    return asm volatile ("vpaddw %[found], %[acc], %[sum]"
        : [sum] "=v" (-> Lanes),
        : [acc] "0" (acc),
          [found] "v" (found),
    );
}

/// bits | indices & 32, now: the compiler would put it off until all words of a group are at hand.
inline fn withBit(bits: Indices, indices: Indices) Indices {
    return asm volatile ("vpternlogd $0xf8, %[mask], %[indices], %[all]"
        : [all] "=v" (-> Indices),
        : [bits] "0" (bits),
          [indices] "v" (indices),
          [mask] "v" (@as(Indices, @splat(32))),
    );
}

/// Word j of a group, for each block.
inline fn take(comptime width: usize, w: Words, w_stride: usize, comptime j: usize) [width]Indices {
    var indices: [width]Indices = undefined;
    inline for (0..width) |b| indices[b] = w[j * w_stride + b];
    return indices;
}

/// Adds what table i of a group holds at the indices, for each token and block: first all blocks'
/// lookups, then their sums. Volatile assembly keeps this order. The compiler's own needs more registers
/// than there are (207 G MAC/s of four tokens), and a sum straight after its lookup makes Zen 4 hold up
/// the lookups, which only half of its pipes can do (228; in this order 250).
inline fn add(comptime m: usize, comptime width: usize, acc: *[m][width]Lanes, tables: [*]const Indices, table_stride: usize, comptime i: usize, indices: [width]Indices) void {
    inline for (0..m) |t| {
        const table = tables[t * table_stride + i];
        var found: [width]Lanes = undefined;
        inline for (0..width) |b| found[b] = lookUp(table, indices[b]);
        inline for (0..width) |b| acc[t][b] = addTo(acc[t][b], found[b]);
    }
}

/// Looks up all indices of a group of 5 word(s).
inline fn lookUpGroup(comptime m: usize, comptime width: usize, acc: *[m][width]Lanes, w: Words, w_stride: usize, tables: [*]const Indices, table_stride: usize) void {
    // Bits 15 of the words, of which the sixteenth index is made: in bits 5 to 9, as there they come by.
    var bits: [width]Indices = @splat(@splat(0));
    inline for (0..5) |j| {
        var indices = take(width, w, w_stride, j);
        add(m, width, acc, tables, table_stride, 3 * j, indices);
        inline for (&indices) |*index| index.* >>= @splat(5);
        add(m, width, acc, tables, table_stride, 3 * j + 1, indices);
        inline for (&indices) |*index| index.* >>= @splat(5);
        add(m, width, acc, tables, table_stride, 3 * j + 2, indices);
        inline for (0..width) |b| bits[b] = withBit(bits[b] +% bits[b], indices[b]);
    }
    inline for (&bits) |*last| last.* >>= @splat(5);
    add(m, width, acc, tables, table_stride, 15, bits);
}

/// Sums of m tokens for width blocks over the words of a slice. Words of a block are w_stride vectors
/// apart. In int16, which a slice can't overflow; added to y, or stored if the slice is the first.
/// The weights at \`ahead\` are fetched meanwhile.
inline fn lookUpTile(comptime m: usize, comptime width: usize, table_stride: usize, w: Words, w_stride: usize, ahead: ?Words, count: usize, tables: [*]const Indices, first: bool, y: [*]i32, y_stride: usize) void {
    var acc: [m][width]Lanes = @splat(@splat(@splat(0)));
    var word: usize = 0;
    while (word < count) : (word += group_words) {
        if (ahead) |next| {
            inline for (0..group_words * width) |i| @prefetch(next + (word + i / width) * w_stride + i % width, .{ .locality = 2 });
        }
        lookUpGroup(m, width, &acc, w + word * w_stride, w_stride, tables + word / group_words * group_tables, table_stride);
    }
    inline for (0..m) |t| {
        inline for (0..width) |b| addLanes(acc[t][b], first, y + t * y_stride + b * 32);
    }
}

/// A pair of lanes that is multiplied by the one or the other gives its even or its odd lane.
const even: math.I = @splat(1);
const odd: math.I = @splat(1 << 16);

/// Adds a block's sums: its first 16 rows are in even lanes, the others in odd ones.
inline fn addLanes(lanes: Lanes, first: bool, y: [*]i32) void {
    inline for (.{ even, odd }, 0..) |ones, half| {
        const y_half = y[half * 16 ..][0..16];
        const before: math.I = if (first) @splat(0) else y_half.*;
        y_half.* = @"llvm.x86.avx512.vpdpwssd.512"(before, @bitCast(lanes), ones);
    }
}

/// One slice of m tokens from t on, for blocks first .. last: whole units at once, else single blocks.
/// Fresh weights, which no tokens before have read, come from memory. The hardware sees them coming in
/// decode; where several tokens make each line last, it loses its thread, and they are fetched ahead.
fn lookUpSlice(comptime m: usize, grid: Grid, slice: usize, w: Words, fresh: bool, tables: [*]const Indices, t: usize, y: [*]i32, y_stride: usize, blocks: [2]usize) void {
    @setEvalBranchQuota(100_000);
    const table_stride = grid.words / group_words * group_tables;
    const from = slice * slice_words;
    // A usize by name, as the type of @min with a constant is only as wide as the constant.
    const count: usize = @min(slice_words, grid.words - from);
    const tables_t = tables + t * table_stride + from / group_words * group_tables;
    const slice_w = w + from * grid.blocks;
    // Where this thread's part of the next slice begins.
    const next_count: usize = @min(grid.words - from - count, slice_words);
    const next_w = slice_w + grid.blocks * count + blocks[0] * next_count;
    var block = blocks[0];
    while (block < blocks[1]) {
        const unit = block - block % 4;
        const width: usize = @min(4, grid.blocks - unit);
        const whole = block == unit and unit + 4 <= blocks[1];
        const unit_w = slice_w + unit * count + (block - unit);
        const step: usize = if (whole) 4 else 1;
        const next = if (block + step < blocks[1]) unit_w + step * count else next_w;
        const ahead: ?Words = if (m > 1 and fresh) next else null;
        const y_t = y + t * y_stride + block * 32;
        if (whole) {
            lookUpTile(m, 4, table_stride, unit_w, 4, ahead, count, tables_t, slice == 0, y_t, y_stride);
        } else {
            lookUpTile(m, 1, table_stride, unit_w, width, ahead, count, tables_t, slice == 0, y_t, y_stride);
        }
        block += step;
    }
}

/// All slices, then the scale; y holds the integer sums until then.
inline fn lookUpLinear(grid: Grid, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    const w: Words = @ptrCast(@alignCast(linear.codes));
    const tables: [*]const Indices = @ptrCast(@alignCast(x.tables));
    const sums: [*]i32 = @ptrCast(y);
    var t_0: usize = 0;
    while (t_0 < tokens) : (t_0 += 32) {
        const t_1 = @min(t_0 + 32, tokens);
        for (0..(grid.words + slice_words - 1) / slice_words) |slice| {
            var t = t_0;
            while (t + 4 <= t_1) : (t += 4) lookUpSlice(4, grid, slice, w, t == t_0, tables, t, sums, y_stride, blocks);
            while (t + 2 <= t_1) : (t += 2) lookUpSlice(2, grid, slice, w, t == t_0, tables, t, sums, y_stride, blocks);
            while (t + 1 <= t_1) : (t += 1) lookUpSlice(1, grid, slice, w, t == t_0, tables, t, sums, y_stride, blocks);
        }
        for (t_0..t_1) |t| {
            for (blocks[0] * 2..blocks[1] * 2) |half| {
                const exact: math.I = sums[t * y_stride + half * 16 ..][0..16].*;
                finish(exact, linear, x.inverse[t], half * 16, y + t * y_stride);
            }
        }
    }
}

/// From the codes of token t, what linears of 64 features read.
fn prepare_k64(x: Quantized, t: usize) void {
    buildTables(2, x.codes + t * 128, x.tables + t * 1024);
}

/// Inputs of 64 features, each array in its part of tokens * 2240 bytes.
fn inputIn_k64(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 128)),
        .tables = @ptrCast(@alignCast(memory + tokens * 192)),
    };
}

/// From the codes of token t, what linears of 96 features read.
fn prepare_k96(x: Quantized, t: usize) void {
    buildTables(2, x.codes + t * 160, x.tables + t * 1024);
}

/// Inputs of 96 features, each array in its part of tokens * 2304 bytes.
fn inputIn_k96(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 192)),
        .tables = @ptrCast(@alignCast(memory + tokens * 256)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (96, 64) ternary. x: (tokens, 64) int8. y: (tokens, y_stride).
fn linear_96x64(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    lookUpLinear(.{ .words = 10, .blocks = 3 }, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 64) int8. y: (tokens, 96). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_96x64(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 2240;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k64(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 128 ..][0..64], 0);
        @memcpy(x.codes[t * 128 ..][0..64], codes[t * 64 ..][0..64]);
        x.inverse[t] = 1;
        prepare_k64(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_96x64(plain, x, count, y, 96, .{ @intCast(first), @intCast(last) });
    return 0;
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k] for the rows of blocks first .. last.
/// W: (64, 96) ternary. x: (tokens, 96) int8. y: (tokens, y_stride).
fn linear_64x96(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    lookUpLinear(.{ .words = 10, .blocks = 2 }, linear, x, tokens, y, y_stride, blocks);
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 96) int8. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_64x96(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 2304;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k96(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 160 ..][0..96], 0);
        @memcpy(x.codes[t * 160 ..][0..96], codes[t * 96 ..][0..96]);
        x.inverse[t] = 1;
        prepare_k96(x, t);
    }
    const plain: Linear = .{ .codes = weights, .scale = 1, .bias = null };
    linear_64x96(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}
