import assert from "node:assert/strict";
import { randomFloats, randomOf } from "../test_helpers.ts";
import { gatedActivation } from "./reference.ts";

const gate = Float32Array.of(-90, -3, -0.5, 0, 0.25, 2, 80, ...randomFloats(randomOf(1), 100, 9));
const up = randomFloats(randomOf(2), gate.length, 5);

Deno.test("relu2 is the square of what is positive", () => {
  gatedActivation("relu2", gate, up).forEach((y, i) => {
    // A square of a float is an exact double, so only the last product rounds.
    assert.equal(y + 0, (gate[i] > 0 ? gate[i] ** 2 * up[i] : 0) + 0);
  });
});

Deno.test("a limit holds the gate below, and up within", () => {
  const limited = gatedActivation("silu", gate, up, 1.5);
  const clamp = (v: number, least: number) => Math.min(Math.max(v, least), 1.5);
  const expected = gatedActivation(
    "silu",
    gate.map((g) => clamp(g, -Infinity)),
    up.map((u) => clamp(u, -1.5)),
  );
  assert.deepEqual(limited, expected);
  assert.notDeepEqual(limited, gatedActivation("silu", gate, up));
});

Deno.test("silu is x / (1 + exp(-x)) within the error of exp", () => {
  gatedActivation("silu", gate, up).forEach((y, i) => {
    const expected = gate[i] / (1 + Math.exp(-gate[i])) * up[i];
    // exp is within 2 ulp of float32; below -87.3 it is clamped, where all is nearly zero.
    const bound = 2 * 2 ** -23 * Math.abs(expected) + 1e-35;
    assert.ok(Math.abs(y - expected) <= bound, `${y} and ${expected}`);
  });
});

Deno.test("geluTanh is x / 2 * (1 + tanh(u)) within the error of exp", () => {
  gatedActivation("geluTanh", gate, up).forEach((y, i) => {
    const g = gate[i];
    const u = Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3);
    const expected = g / 2 * (1 + Math.tanh(u)) * up[i];
    // Rounding the exponent to float32 moves exp by as much as its size in ulp.
    const bound = 2 ** -22 * (1 + Math.abs(2 * u)) * Math.abs(g * up[i]) * (1 - Math.tanh(u) ** 2) +
      2 ** -22 * Math.abs(expected) + 1e-15;
    assert.ok(Math.abs(y - expected) <= bound, `${y} and ${expected}`);
  });
});
