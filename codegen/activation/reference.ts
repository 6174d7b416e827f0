import { exp } from "../float_reference.ts";
import type { HiddenAct } from "../model_spec.ts";

const f = Math.fround;

/** GELU's polynomial: the share of x^3, and -2 sqrt(2 / pi). */
export const GELU_CUBIC = 0.044715;
export const GELU_FACTOR = -2 * Math.sqrt(2 / Math.PI);

/**
 * act(gate) * up, elementwise, in doubles; see `HiddenAct`.
 *
 * @param limit The gate is at most this, up within +/- this; null: as they are.
 */
export function gatedActivation(
  act: HiddenAct,
  gate: Float32Array,
  up: Float32Array,
  limit: number | null = null,
): Float64Array {
  const activate = ACTIVATIONS[act];
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

/** x / 2 * (1 + tanh(u)) is x / (1 + exp(-2 u)). Source: arXiv 1606.08415, section 2. */
function geluTanh(x: number): number {
  return x / (1 + exp(f((x + x * x * x * GELU_CUBIC) * GELU_FACTOR)));
}

const ACTIVATIONS: Readonly<Record<HiddenAct, (x: number) => number>> = { relu2, silu, geluTanh };
