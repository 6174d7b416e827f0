import { LANES } from "../float_reference.ts";
import type { Groups } from "../model_spec.ts";
import { groupCount } from "../ternary_linear/groups.ts";
import { prepareSymbol } from "../ternary_linear/scheme.ts";
import { zig } from "../writer.ts";

/** Float rows are padded to whole vectors; the padding is zero and stays zero. */
export function paddedFloats(k: number): number {
  return Math.ceil(k / LANES) * LANES;
}

/**
 * Bytes from one token's int8 activations to the next: whole vectors, and one cache line more so
 * that rows of 4096 bytes do not fall into the same cache set. Codes are zero up to
 * `paddedFloats(k)`; what follows may be of an earlier input with more features.
 */
export function activationStride(k: number): number {
  return paddedFloats(k) + 64;
}

export function normSymbol(k: number, eps: number): string {
  return `rmsNorm_k${k}_eps${String(eps).replace(/[^0-9]/g, "_")}`;
}

/** RMSNorm over k features in doubles. Returns max |out|, which quantisation needs next. */
export function rmsNorm(k: number, eps: number): string {
  const padded = paddedFloats(k);
  return zig`
    /// out = x / sqrt(mean(x^2) + ${eps}) * weight over ${k} features, in doubles; returns max |out|.
    fn ${
    normSymbol(k, eps)
  }(comptime T: type, x: [*]const T, weight: [*]const f32, out: [*]f64) f64 {
        const mean = math.dotWide(${padded}, T, x, T, x) / ${k}.0;
        const scale: math.D = @splat(1.0 / @sqrt(mean + ${eps}));
        var largest: math.D = @splat(0);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const v = math.wide(T, x + i) * scale * math.wide(f32, weight + i);
            largest = @max(largest, @abs(v));
            out[i..][0..math.lanes].* = v;
        }
        return @reduce(.Max, largest);
    }
  `;
}

export function quantizeSymbol(k: number): string {
  return `quantize_k${k}`;
}

/** int8 activations with one scale a token, or one a group. */
export function quantize(k: number, groups?: Groups): string {
  return zig`
    /// max |x| over ${k} features.
    fn largest_k${k}(x: [*]const f32) f64 {
        var largest: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${
    paddedFloats(k)
  }) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
        return @reduce(.Max, largest);
    }

    ${groups === undefined ? quantizeToken(k) : quantizeGroups(k, groups)}
  `;
}

function quantizeGroups(k: number, groups: Groups): string {
  const padded = paddedFloats(k);
  const count = groupCount(groups, k);
  return zig`
    /// Row t of out: each group of ${groups.size} of ${k} features by itself, round(x * 127 / max |x|) and
    /// max |x| / 127; and what linears read.
    fn ${
    quantizeSymbol(k)
  }(comptime T: type, x: [*]const T, _: f64, out: Quantized, t: usize) void {
        const codes = out.codes + t * ${activationStride(k)};
        for (0..${count}) |g| {
            const last: usize = @min((g + 1) * ${groups.size}, ${padded});
            var sizes: math.D = @splat(0);
            var i: usize = g * ${groups.size};
            while (i < last) : (i += math.lanes) sizes = @max(sizes, @abs(math.wide(T, x + i)));
            const scale = 127.0 / @max(@reduce(.Max, sizes), 1e-5);
            i = g * ${groups.size};
            while (i < last) : (i += math.lanes) {
                const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
                const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
                codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
            }
            out.inverse[t * ${count} + g] = @floatCast(1.0 / scale);
        }
        ${prepareSymbol(k)}(out, t);
    }
  `;
}

function quantizeToken(k: number): string {
  const padded = paddedFloats(k);
  return zig`
    /// Row t of out: round(x * 127 / max |x|) over ${k} features, max |x| / 127, and what linears read.
    fn ${
    quantizeSymbol(k)
  }(comptime T: type, x: [*]const T, largest: f64, out: Quantized, t: usize) void {
        const codes = out.codes + t * ${activationStride(k)};
        const scale = 127.0 / @max(largest, 1e-5);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const rounded = math.roundToIntWide(math.wide(T, x + i) * @as(math.D, @splat(scale)));
            const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
            codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
        }
        out.inverse[t] = 1.0 / scale;
        ${prepareSymbol(k)}(out, t);
    }
  `;
}
