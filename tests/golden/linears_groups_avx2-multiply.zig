/// Type of a factor; bf16 is kept as its bits.
const Factor = f16;

/// One ternary matrix: packed weights, the factors of their groups, [block][group][row], and a bias of
/// one f32 a row.
const Linear = struct { codes: [*]const u8, factors: [*]const Factor, bias: ?[*]const f32 };

/// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
const Quantized = struct {
    codes: [*]i8,
    inverse: [*]f32,
    starts: [*]i32,
};

/// Factors of rows and biases of a block, for tokens first .. last.
inline fn finishRows(linear: Linear, tokens: [2]usize, row: usize, y: [*]f32, y_stride: usize) void {
    if (linear.bias == null) return;
    for (tokens[0]..tokens[1]) |t| {
        inline for (.{ 0, 16 }) |half| {
            const rows = y + t * y_stride + row + half;
            var out = math.load(rows);
            if (linear.bias) |bias| out += math.load(bias + row + half);
            math.store(rows, out);
        }
    }
}

const vector_rows = 8;
const block_vectors = 4;
const Sums = @Vector(8, i32);
const Codes = @Vector(32, u8);
const Activations = @Vector(32, i8);

const Partial = @Vector(16, i16);
extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Codes, Activations) callconv(.{ .x86_64_sysv = .{} }) Partial;
extern fn @"llvm.x86.avx2.pmadd.wd"(Partial, Partial) callconv(.{ .x86_64_sysv = .{} }) Sums;

/// Lane l: partial + codes[2l] * x[2l] + codes[2l + 1] * x[2l + 1]: vpmaddubsw, which can't saturate here.
inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
    return partial +% @"llvm.x86.avx2.pmadd.ub.sw"(codes, x);
}

/// Adds neighbouring 16-bit lanes into 32-bit ones.
inline fn widen(partial: Partial) Sums {
    return @"llvm.x86.avx2.pmadd.wd"(partial, @splat(1));
}

/// Activations 4i .. 4i + 3 of 16, for each row.
inline fn broadcastFour(x: [*]const i8, comptime i: usize) Activations {
    const four: i32 = @bitCast(x[4 * i ..][0..4].*);
    return @bitCast(@as(Sums, @splat(four)));
}

const Floats = @Vector(vector_rows, f32);

/// Takes the sums of code * x of each group, for some tokens and a block's rows.
const GroupSums = struct {
    y: [*]f32,
    y_stride: usize,
    /// Of each group, by token: what sums start from, and the factor of the input.
    starts: [*]const i32,
    inverses: [*]const f32,
    groups: usize,
    /// Of the block: 32 a group.
    factors: [*]const Factor,

    inline fn start(out: GroupSums, t: usize, g: usize, _: usize) Sums {
        return @splat(out.starts[t * out.groups + g]);
    }

    /// Factors of neighbouring rows.
    inline fn factorsOf(out: GroupSums, g: usize, row: usize) Floats {
        return math.widenTo(vector_rows, Factor, out.factors + g * 32 + row);
    }

    inline fn put(out: GroupSums, t: usize, g: usize, row: usize, exact: Sums, factors: Floats) void {
        const sums: Floats = @floatFromInt(exact);
        const inverse: Floats = @splat(out.inverses[t * out.groups + g]);
        const term = sums * inverse * factors;
        const y = out.y[t * out.y_stride + row ..][0..vector_rows];
        const before: Floats = if (g == 0) @splat(0) else y.*;
        y.* = before + term;
    }
};

/// The place of a block's rows for tokens from t on.
inline fn groupOut(comptime groups: usize, linear: Linear, x: Quantized, t: usize, block: usize, y: [*]f32, y_stride: usize) GroupSums {
    return .{
        .y = y + t * y_stride + block * 32,
        .y_stride = y_stride,
        .starts = x.starts + t * groups,
        .inverses = x.inverse + t * groups,
        .groups = groups,
        .factors = linear.factors + block * groups * 32,
    };
}

/// The codes in bits 2i, 2i + 1 of every byte.
inline fn plane(packed_codes: Codes, comptime i: u4) Codes {
    const Words = @Vector(@typeInfo(Codes).vector.len / 2, u16);
    const words: Words = @bitCast(packed_codes);
    const shifted: Codes = @bitCast(words >> @splat(2 * i));
    return shifted & @as(Codes, @splat(3));
}

/// Steps of 16 features of a group.
const group_steps = 8;

/// Sums of code * x for a block of 32 rows and m tokens. A code is 0, 1 or 2 for weight -1, 0, +1, so
/// that they are larger than those of weights by the sum of x.
fn packedTile(comptime m: usize, comptime vectors: usize, comptime steps: usize, comptime x_stride: usize, w: [*]const u8, fresh: bool, x: [*]const i8, out: anytype) void {
    const partial_steps = @min(16, group_steps, steps);
    inline for (0..block_vectors / vectors) |part| {
        var g: usize = 0;
        while (g * group_steps < steps) : (g += 1) {
            const last: usize = @min((g + 1) * group_steps, steps);
            var sums: [m][vectors]Sums = undefined;
            inline for (0..m) |t| {
                inline for (0..vectors) |v| sums[t][v] = out.start(t, g, (part * vectors + v) * vector_rows);
            }
            var first = g * group_steps;
            while (first < last) : (first += partial_steps) {
                // Partial sums that need no widening go on where the sums are.
                var acc: [m][vectors]Partial = if (Partial == Sums) sums else @splat(@splat(@splat(0)));
                for (first..@min(first + partial_steps, last)) |step| {
                    const from = w + step * 128 + part * vectors * vector_rows * 4;
                    if (fresh) {
                        inline for (0..(vectors * vector_rows * 4 + 63) / 64) |line| @prefetch(from + 6144 + 64 * line, .{ .locality = 3 });
                    }
                    inline for (0..4) |i| {
                        var codes: [vectors]Codes = undefined;
                        inline for (0..vectors) |v| codes[v] = plane(from[v * vector_rows * 4 ..][0 .. vector_rows * 4].*, i);
                        inline for (0..m) |t| {
                            const x_t = broadcastFour(x + t * x_stride + step * 16, i);
                            inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[v], x_t);
                        }
                    }
                }
                inline for (0..m) |t| {
                    inline for (0..vectors) |v| sums[t][v] = if (Partial == Sums) acc[t][v] else sums[t][v] + widen(acc[t][v]);
                }
            }
            inline for (0..vectors) |v| {
                const row = (part * vectors + v) * vector_rows;
                const factors = out.factorsOf(g, row);
                inline for (0..m) |t| out.put(t, g, row, sums[t][v], factors);
            }
        }
    }
}

/// Shape of a matrix and how its input lies: bytes from one token's activations to the next, and
/// tokens that share an unpacking.
const Matrix = struct { features: usize, blocks: usize, x_stride: usize, token_group: usize };

const slice_features = 128;

/// Codes of a block, [group of four features][register].
const Slice = [slice_features / 4][4]Codes;

/// Puts registers v of groups g and g + 1.
inline fn putCodes(out: *Slice, g: usize, comptime v: usize, even: Codes, odd: Codes) void {
    out[g][v] = even;
    out[g + 1][v] = odd;
}

/// Sums of codes * x of slice g for a block and m tokens.
fn unpackedTile(comptime m: usize, comptime vectors: usize, codes: *const Slice, steps: usize, x: [*]const i8, comptime x_stride: usize, g: usize, out: anytype) void {
    inline for (0..block_vectors / vectors) |part| {
        var acc: [m][vectors]Partial = @splat(@splat(@splat(0)));
        inline for (0..m) |t| @prefetch(out.y + t * out.y_stride + part * vectors * vector_rows, .{ .rw = .write });
        for (0..steps) |step| {
            inline for (0..4) |i| {
                inline for (0..m) |t| {
                    const x_t = broadcastFour(x + t * x_stride + step * 16, i);
                    inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[step * 4 + i][part * vectors + v], x_t);
                }
            }
        }
        inline for (0..vectors) |v| {
            const row = (part * vectors + v) * vector_rows;
            const factors = out.factorsOf(g, row);
            inline for (0..m) |t| out.put(t, g, row, out.start(t, g, row) + widen(acc[t][v]), factors);
        }
    }
}

/// All tokens, a group of features after the other.
inline fn unpackedLinear(comptime matrix: Matrix, linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    const slices = (matrix.features + slice_features - 1) / slice_features;
    // Up to the end of the last step activations are zero, whatever the codes are.
    var codes: Slice align(64) = @splat(@splat(@splat(0)));
    var t_0: usize = 0;
    while (t_0 < tokens) : (t_0 += matrix.token_group) {
        const t_1 = @min(t_0 + matrix.token_group, tokens);
        for (blocks[0]..blocks[1]) |block| {
            const row = block * 32;
            for (0..slices) |slice| {
                const steps = unpackSlice(matrix, linear.codes, block, slice, &codes);
                const x_slice = x.codes + slice * slice_features;
                var t = t_0;
                while (t + 4 <= t_1) : (t += 4) unpackedTile(4, 2, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, groupOut(slices, linear, x, t, block, y, y_stride));
                while (t + 2 <= t_1) : (t += 2) unpackedTile(2, 4, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, groupOut(slices, linear, x, t, block, y, y_stride));
                while (t + 1 <= t_1) : (t += 1) unpackedTile(1, 4, &codes, steps, x_slice + t * matrix.x_stride, matrix.x_stride, slice, groupOut(slices, linear, x, t, block, y, y_stride));
            }
            finishRows(linear, .{ t_0, t_1 }, row, y, y_stride);
        }
    }
}

/// Codes of a slice of a block. Returns the number of its steps of 16 features.
fn unpackSlice(comptime matrix: Matrix, codes: [*]const u8, block: usize, slice: usize, out: *Slice) usize {
    const slice_steps = slice_features / 16;
    const steps = (matrix.features + 15) / 16;
    const first = slice * slice_steps;
    const from = codes + (block * steps + first) * 128;
    const count: usize = @min(slice_steps, steps - first);
    for (0..count) |step| {
        inline for (0..2) |line| @prefetch(from + step * 128 + 8192 + 64 * line, .{ .locality = 2 });
        inline for (0..block_vectors) |v| {
            const all: Codes = from[step * 128 + v * vector_rows * 4 ..][0 .. vector_rows * 4].*;
            putCodes(out, step * 4, v, plane(all, 0), plane(all, 1));
            putCodes(out, step * 4 + 2, v, plane(all, 2), plane(all, 3));
        }
    }
    return count;
}

/// From the codes of token t, what linears of 300 features read.
fn prepare_k300(x: Quantized, t: usize) void {
    const codes = x.codes + t * 368;
    for (0..3) |g| {
        var sums: math.I = @splat(0);
        const last: usize = @min((g + 1) * 8, 19);
        for (g * 8..last) |i| {
            const some: @Vector(16, i8) = codes[i * 16 ..][0..16].*;
            sums += @as(math.I, some);
        }
        x.starts[t * 3 + g] = -@reduce(.Add, sums);
    }
}

/// Inputs of 300 features, each array in its part of tokens * 512 bytes.
fn inputIn_k300(memory: [*]u8, tokens: usize) Quantized {
    return .{
        .codes = @ptrCast(@alignCast(memory + tokens * 0)),
        .inverse = @ptrCast(@alignCast(memory + tokens * 384)),
        .starts = @ptrCast(@alignCast(memory + tokens * 448)),
    };
}

/// y[t, row] = scale * sum over k of W[row, k] * x[t, k], groups of 128 scaled for the rows of blocks first .. last.
/// W: (33, 300) ternary. x: (tokens, 300) int8. y: (tokens, y_stride).
fn linear_33x300(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
    if (tokens >= 16) {
        const matrix: Matrix = .{ .features = 300, .blocks = 2, .x_stride = 368, .token_group = 1308 };
        return unpackedLinear(matrix, linear, x, tokens, y, y_stride, blocks);
    }
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * 2432;
        const row = block * 32;
        var t: usize = 0;
        while (t + 6 <= tokens) : (t += 6) packedTile(6, 1, 19, 368, w, t == 0, x.codes + t * 368, groupOut(3, linear, x, t, block, y, y_stride));
        while (t + 2 <= tokens) : (t += 2) packedTile(2, 4, 19, 368, w, t == 0, x.codes + t * 368, groupOut(3, linear, x, t, block, y, y_stride));
        while (t + 1 <= tokens) : (t += 1) packedTile(1, 4, 19, 368, w, t == 0, x.codes + t * 368, groupOut(3, linear, x, t, block, y, y_stride));
        finishRows(linear, .{ 0, tokens }, row, y, y_stride);
    }
}

/// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
/// codes: (tokens, 300) int8, then from the next multiple of 64 bytes on float32 of its groups; those of weights follow theirs. y: (tokens, 64). Returns 1 if memory is short, else 0.
pub export fn trilith_linear_33x300(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
    const count: usize = @intCast(tokens);
    const bytes = count * 512;
    const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
    defer host.trilith_free(memory, bytes);
    // As in a step, where what follows the codes and their padding is of an earlier input.
    @memset(memory[0..bytes], 0x55);
    const x = inputIn_k300(memory, count);
    for (0..count) |t| {
        @memset(x.codes[t * 368 ..][0..304], 0);
        @memcpy(x.codes[t * 368 ..][0..300], codes[t * 300 ..][0..300]);
        const inverses: [*]const f32 = @ptrCast(@alignCast(codes + std.mem.alignForward(usize, count * 300, 64)));
        @memcpy(x.inverse[t * 3 ..][0..3], inverses[t * 3 ..][0..3]);
        prepare_k300(x, t);
    }
    const plain: Linear = .{ .codes = weights, .factors = @ptrCast(@alignCast(weights + 4864)), .bias = null };
    linear_33x300(plain, x, count, y, 64, .{ @intCast(first), @intCast(last) });
    return 0;
}
