import { exp } from "../float_reference.ts";
import type { HiddenAct } from "../model_spec.ts";

const f = Math.fround;

/**
 * act(gate) * up, elementwise, in doubles: relu2 is max(x, 0)^2, silu is x / (1 + exp(-x)).
 *
 * @param limit The gate is at most this, up within +/- this; null: as they are.
 */
export function gatedActivation(
  act: HiddenAct,
  gate: Float32Array,
  up: Float32Array,
  limit: number | null = null,
): Float64Array {
  const activate = act === "relu2" ? relu2 : silu;
  const most = limit === null ? Infinity : f(limit);
  return Float64Array.from(
    gate,
    (g, i) => activate(Math.min(g, most)) * Math.min(Math.max(up[i], -most), most),
  );
}

function relu2(x: number): number {
  const positive = Math.max(x, 0);
  return positive * positive;
}

function silu(x: number): number {
  return x / (1 + exp(-x));
}
