import { LANES } from "../float_reference.ts";
import { STEP_FEATURES, stepsOf } from "../layouts/rows32.ts";
import { zig } from "../writer.ts";

/** Float rows are padded to whole vectors; the padding is zero and stays zero. */
export function paddedFloats(k: number): number {
  return Math.ceil(k / LANES) * LANES;
}

/**
 * Bytes from one token's int8 activations to the next: whole steps, and one cache line more so
 * that rows of 4096 bytes do not fall into the same cache set.
 */
export function activationStride(k: number): number {
  return stepsOf(k) * STEP_FEATURES + 64;
}

/** Literal of a float32 that Zig reads back to the same bits. */
export function floatLiteral(value: number): string {
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

export function normSymbol(k: number, eps: number): string {
  return `rmsNorm_k${k}_eps${String(eps).replace(/[^0-9]/g, "_")}`;
}

/** RMSNorm over k features. Returns the lane-wise maxima of |out|, which quantisation needs next. */
export function rmsNorm(k: number, eps: number): string {
  const padded = paddedFloats(k);
  return zig`
    /// out = x / sqrt(mean(x^2) + ${eps}) * weight over ${k} features; returns max |out| by lane.
    fn ${normSymbol(k, eps)}(x: [*]const f32, weight: [*]const f32, out: [*]f32) math.F {
        const mean = math.dot(${padded}, x, x) / ${floatLiteral(k)};
        const scale = math.splat(1.0 / @sqrt(mean + @as(f32, ${floatLiteral(eps)})));
        var largest: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const v = math.load(x + i) * scale * math.load(weight + i);
            largest = @max(largest, @abs(v));
            math.store(out + i, v);
        }
        return largest;
    }
  `;
}

export function quantizeSymbol(k: number): string {
  return `quantize_k${k}`;
}

/** int8 activations with one scale a token. */
export function quantize(k: number): string {
  const padded = paddedFloats(k);
  return zig`
    /// max |x| by lane over ${k} features.
    fn largest_k${k}(x: [*]const f32) math.F {
        var largest: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
        return largest;
    }

    /// Row t of out: round(x * 127 / max |x|) over ${k} features, their sum, and max |x| / 127.
    fn ${quantizeSymbol(k)}(x: [*]const f32, largest: math.F, out: Quantized, t: usize) void {
        const codes = out.codes + t * ${activationStride(k)};
        const scale = 127.0 / @max(@reduce(.Max, largest), @as(f32, 1e-5));
        var sums: math.I = @splat(0);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const rounded = math.roundToInt(math.load(x + i) * math.splat(scale));
            const code = @min(@max(rounded, @as(math.I, @splat(-128))), @as(math.I, @splat(127)));
            sums += code;
            codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
        }
        out.sums[t] = @reduce(.Add, sums);
        out.inverse[t] = 1.0 / scale;
    }
  `;
}
