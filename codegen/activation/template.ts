import type { HiddenAct } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { GELU_CUBIC, GELU_FACTOR } from "./reference.ts";

const ACTIVATIONS: Record<HiddenAct, string> = {
  relu2: zig`
    /// max(x, 0)^2
    inline fn activate(x: math.F) math.D {
        const positive: math.D = @floatCast(@max(x, math.splat(0)));
        return positive * positive;
    }
  `,
  silu: zig`
    /// x / (1 + exp(-x))
    inline fn activate(x: math.F) math.D {
        const e: math.D = @floatCast(math.exp(-x));
        return @as(math.D, @floatCast(x)) / (@as(math.D, @splat(1)) + e);
    }
  `,
  geluTanh: zig`
    /// x / (1 + exp(-2 u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3): x / 2 * (1 + tanh(u)).
    inline fn activate(x: math.F) math.D {
        const wide: math.D = @floatCast(x);
        const cubed = wide * wide * wide * @as(math.D, @splat(${GELU_CUBIC}));
        const exponent: math.F = @floatCast((wide + cubed) * @as(math.D, @splat(${GELU_FACTOR})));
        const e: math.D = @floatCast(math.exp(exponent));
        return wide / (@as(math.D, @splat(1)) + e);
    }
  `,
};

/**
 * out = act(gate) * up over one token's features.
 *
 * @param limit The gate is at most this, up within +/- this; null: as they are.
 */
export function activation(
  act: HiddenAct,
  features: number,
  limit: number | null = null,
): string {
  const clamps = limit === null ? NO_CLAMPS : CLAMPS;
  return zig`
    ${ACTIVATIONS[act]}

    /// out = act(gate) * up over ${features} features, in doubles; returns max |out|.
    fn gatedActivation(gate: [*]const f32, up: [*]const f32, out: [*]f64) f64 {
        ${limit === null ? "" : `const limit = math.splat(${limit});`}
        var largest: math.D = @splat(0);
        var i: usize = 0;
        while (i < ${paddedFloats(features)}) : (i += math.lanes) {
            const v = activate(${clamps.gate}) * ${clamps.up};
            largest = @max(largest, @abs(v));
            out[i..][0..math.lanes].* = v;
        }
        return @reduce(.Max, largest);
    }
  `;
}

const NO_CLAMPS = { gate: "math.load(gate + i)", up: "math.wide(f32, up + i)" };
const CLAMPS = {
  gate: "@min(math.load(gate + i), limit)",
  up: "@as(math.D, @floatCast(@min(@max(math.load(up + i), -limit), limit)))",
};
