import { BLOCK_ROWS } from "../layouts/layout.ts";
import { zig } from "../writer.ts";

/**
 * Arm's int8 matrix instruction: smmla multiplies 2 rows by 2 tokens, 8 features of each, and adds
 * the 4 sums to a register: twice what sdot does.
 *
 * @returns `Slice`, `putCodes` and `unpackedTile`, as `unpackedLinear` expects them.
 */
export function smmlaTile(): string {
  return zig`
    extern fn @"llvm.aarch64.neon.smmla.v4i32.v16i8"(Sums, Activations, Activations) Sums;

    /// Codes of a block, [group of eight features][pair of rows], the rows' codes one after the other.
    const Slice = [slice_features / 8][${BLOCK_ROWS / 2}]Codes;

    /// Puts four rows of groups g and g + 1, as two pairs of rows.
    inline fn putCodes(out: *Slice, g: usize, comptime v: usize, even: Codes, odd: Codes) void {
        const first: Sums = @bitCast(even);
        const second: Sums = @bitCast(odd);
        out[g / 2][2 * v] = @bitCast(@shuffle(i32, first, second, [4]i32{ 0, -1, 1, -2 }));
        out[g / 2][2 * v + 1] = @bitCast(@shuffle(i32, first, second, [4]i32{ 2, -3, 3, -4 }));
    }

    /// Eight activations of one token, then eight of another.
    inline fn twoTokens(x: [*]const i8, other: [*]const i8) Activations {
        const a: @Vector(8, i8) = x[0..8].*;
        const b: @Vector(8, i8) = other[0..8].*;
        return @shuffle(i8, a, b, [16]i32{ 0, 1, 2, 3, 4, 5, 6, 7, -1, -2, -3, -4, -5, -6, -7, -8 });
    }

    /// Sums of codes * x of slice g for a block and m tokens. A single token is multiplied twice.
    fn unpackedTile(comptime m: usize, comptime vectors: usize, codes: *const Slice, steps: usize, x: [*]const i8, comptime x_stride: usize, g: usize, out: anytype) void {
        const couples = (m + 1) / 2;
        inline for (0..block_vectors / vectors) |part| {
            var acc: [couples][2 * vectors]Sums = @splat(@splat(@splat(0)));
            for (0..steps) |step| {
                inline for (0..2) |half| {
                    inline for (0..couples) |c| {
                        const from = x + 2 * c * x_stride + step * 16 + half * 8;
                        const x_c = twoTokens(from, if (m == 1) from else from + x_stride);
                        inline for (0..2 * vectors) |pair| {
                            const codes_p: Activations = @bitCast(codes[step * 2 + half][part * 2 * vectors + pair]);
                            acc[c][pair] = @"llvm.aarch64.neon.smmla.v4i32.v16i8"(acc[c][pair], codes_p, x_c);
                        }
                    }
                }
            }
            inline for (0..vectors) |v| {
                const row = (part * vectors + v) * 4;
                const factors = out.factorsOf(g, row);
                inline for (0..couples) |c| {
                    // Rows 0 and 1, then 2 and 3; of each, one token and the other.
                    const low = acc[c][2 * v];
                    const high = acc[c][2 * v + 1];
                    const first = @shuffle(i32, low, high, [4]i32{ 0, 2, -1, -3 });
                    const second = @shuffle(i32, low, high, [4]i32{ 1, 3, -2, -4 });
                    out.put(2 * c, g, row, out.start(2 * c, g, row) + first, factors);
                    if (m > 1) out.put(2 * c + 1, g, row, out.start(2 * c + 1, g, row) + second, factors);
                }
            }
        }
    }
  `;
}
