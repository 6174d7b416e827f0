import { exp } from "../float_reference.ts";
import type { HiddenAct } from "../model_spec.ts";

/** act(gate) * up, elementwise, in doubles: relu2 is max(x, 0)^2, silu is x / (1 + exp(-x)). */
export function gatedActivation(
  act: HiddenAct,
  gate: Float32Array,
  up: Float32Array,
): Float64Array {
  const activate = act === "relu2" ? relu2 : silu;
  return Float64Array.from(gate, (g, i) => activate(g) * up[i]);
}

function relu2(x: number): number {
  const positive = Math.max(x, 0);
  return positive * positive;
}

function silu(x: number): number {
  return x / (1 + exp(-x));
}
