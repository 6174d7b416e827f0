import type { HiddenAct } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";

const ACTIVATIONS: Record<HiddenAct, string> = {
  relu2: zig`
    /// max(x, 0)^2
    inline fn activate(x: math.F) math.F {
        const positive = @max(x, math.splat(0));
        return positive * positive;
    }
  `,
  silu: zig`
    /// x / (1 + exp(-x))
    inline fn activate(x: math.F) math.F {
        return x / (math.splat(1) + math.exp(-x));
    }
  `,
};

/** gate = act(gate) * up over one token's features. */
export function activation(act: HiddenAct, features: number): string {
  return zig`
    ${ACTIVATIONS[act]}

    /// gate = act(gate) * up over ${features} features; returns max |gate|.
    fn gatedActivation(gate: [*]f32, up: [*]const f32) f64 {
        var largest: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${paddedFloats(features)}) : (i += math.lanes) {
            const v = activate(math.load(gate + i)) * math.load(up + i);
            largest = @max(largest, @abs(v));
            math.store(gate + i, v);
        }
        return @reduce(.Max, largest);
    }
  `;
}
