import { exp } from "../float_reference.ts";
import type { HiddenAct } from "../model_spec.ts";

const f = Math.fround;

/** act(gate) * up, elementwise: relu2 is max(x, 0)^2, silu is x / (1 + exp(-x)). */
export function gatedActivation(
  act: HiddenAct,
  gate: Float32Array,
  up: Float32Array,
): Float32Array {
  const activate = act === "relu2" ? relu2 : silu;
  return gate.map((g, i) => f(activate(g) * up[i]));
}

function relu2(x: number): number {
  const positive = Math.max(x, 0);
  return f(positive * positive);
}

function silu(x: number): number {
  return f(x / f(1 + exp(-x)));
}
