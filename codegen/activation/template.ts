import type { HiddenAct } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";

const ACTIVATIONS: Record<HiddenAct, string> = {
  relu2: zig`
    /// max(x, 0)^2
    inline fn activate(x: [*]const f32) math.D {
        const positive = @max(math.wide(f32, x), @as(math.D, @splat(0)));
        return positive * positive;
    }
  `,
  silu: zig`
    /// x / (1 + exp(-x))
    inline fn activate(x: [*]const f32) math.D {
        const e: math.D = @floatCast(math.exp(-math.load(x)));
        return math.wide(f32, x) / (@as(math.D, @splat(1)) + e);
    }
  `,
};

/** out = act(gate) * up over one token's features. */
export function activation(act: HiddenAct, features: number): string {
  return zig`
    ${ACTIVATIONS[act]}

    /// out = act(gate) * up over ${features} features, in doubles; returns max |out|.
    fn gatedActivation(gate: [*]const f32, up: [*]const f32, out: [*]f64) f64 {
        var largest: math.D = @splat(0);
        var i: usize = 0;
        while (i < ${paddedFloats(features)}) : (i += math.lanes) {
            const v = activate(gate + i) * math.wide(f32, up + i);
            largest = @max(largest, @abs(v));
            out[i..][0..math.lanes].* = v;
        }
        return @reduce(.Max, largest);
    }
  `;
}
