import { zig } from "../writer.ts";

/** Rotation of one head; scalar source that the compiler vectorises, as no sum crosses lanes. */
export function rope(headDim: number, rotaryDim: number): string {
  const half = rotaryDim / 2;
  const rest = rotaryDim === headDim
    ? ""
    : `@memcpy(out[${rotaryDim}..${headDim}], head[${rotaryDim}..${headDim}]);`;
  return zig`
    /// out = head turned to its position; features i and i + ${half} form a pair.
    inline fn rotate(head: [*]const f32, cos: [*]const f32, sin: [*]const f32, out: [*]f32) void {
        for (0..${half}) |i| {
            const a = head[i];
            const b = head[i + ${half}];
            out[i] = a * cos[i] - b * sin[i];
            out[i + ${half}] = b * cos[i] + a * sin[i];
        }
        ${rest}
    }
  `;
}
