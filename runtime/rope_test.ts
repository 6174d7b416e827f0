import assert from "node:assert/strict";
import fc from "fast-check";
import { createHash } from "node:crypto";
import { inverseFrequencies, type RopeConfig, ropeTables } from "./rope.ts";

const f = Math.fround;
const plain = (headDim: number, ropeTheta: number): RopeConfig => ({
  ropeTheta,
  ropeScaling: null,
  spec: { headDim },
});

/** A float32's distance to the next. */
function ulp(x: number): number {
  return 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x) || 1e-38))) - 23);
}

Deno.test("inverse frequencies are theta^(-2i / d), rounded as PyTorch rounds", () => {
  for (const [headDim, theta] of [[128, 500000], [64, 1000042], [256, 1e6], [100, 10000]]) {
    const frequencies = inverseFrequencies(plain(headDim, theta));
    assert.equal(frequencies[0], 1);
    frequencies.forEach((frequency, i) => {
      const power = f(Math.pow(theta, f(2 * i / headDim)));
      assert.ok(Math.abs(frequency - f(1 / power)) <= ulp(frequency), `${headDim} ${i}`);
    });
  }
});

Deno.test("tables are the cosine and sine of the float32 angle, to a float32's last bit", () => {
  const config = plain(64, 500000);
  const frequencies = inverseFrequencies(config);
  const { cos, sin } = ropeTables(config, 600);
  assert.equal(cos.length, 600 * 32);
  for (let position = 0; position < 600; position++) {
    for (let i = 0; i < 32; i++) {
      const angle = f(frequencies[i] * position);
      const at = position * 32 + i;
      assert.ok(Math.abs(cos[at] - Math.cos(angle)) <= ulp(cos[at]) * 0.5000001);
      assert.ok(Math.abs(sin[at] - Math.sin(angle)) <= ulp(sin[at]) * 0.5000001);
    }
  }
});

Deno.test("tables reach to position 131,072", () => {
  const config = plain(4, 10000);
  const { cos, sin } = ropeTables(config, 131072);
  const angle = f(inverseFrequencies(config)[1] * 131071);
  assert.equal(cos.at(-1), f(Math.cos(angle)));
  assert.equal(sin.at(-1), f(Math.sin(angle)));
  assert.equal(cos.at(-2), f(Math.cos(131071)));
});

Deno.test("the tables' bits are the same on every engine", () => {
  const { cos, sin } = ropeTables(plain(128, 500000), 256);
  const hash = createHash("sha256").update(new Uint8Array(cos.buffer));
  const digest = hash.update(new Uint8Array(sin.buffer)).digest("hex");
  // From V8 and JavaScriptCore alike; a change here changes every model's output.
  assert.equal(digest, "25c4f47808231ceafad4706de16c1b87bb1d65256de84a2ac34b21e75ab439d5");
});

const LLAMA31: RopeConfig["ropeScaling"] = {
  ropeType: "llama3",
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxPositionEmbeddings: 8192,
};

/** The published formula, in double precision. */
function llama31(frequency: number): number {
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < 8192 / 4) return frequency;
  if (wavelength > 8192) return frequency / 8;
  const smooth = (8192 / wavelength - 1) / 3;
  return (1 - smooth) * frequency / 8 + smooth * frequency;
}

Deno.test("llama3 scaling stretches long waves and keeps short ones", () => {
  const base = inverseFrequencies(plain(128, 500000));
  const scaled = inverseFrequencies({ ...plain(128, 500000), ropeScaling: LLAMA31 });
  const kept = base.filter((frequency, i) => frequency === scaled[i]).length;
  const stretched = base.filter((frequency, i) => f(frequency / 8) === scaled[i]).length;
  // Of 64 pairs; the rest lies between.
  assert.deepEqual([kept, stretched], [29, 29]);
  scaled.forEach((frequency, i) => {
    const expected = llama31(base[i]);
    assert.ok(Math.abs(frequency - expected) <= 4e-7 * expected, `pair ${i}`);
  });
});

Deno.test("linear scaling divides", () => {
  const base = inverseFrequencies(plain(64, 10000));
  const scaled = inverseFrequencies({
    ...plain(64, 10000),
    ropeScaling: { ropeType: "linear", factor: 4 },
  });
  scaled.forEach((frequency, i) => assert.equal(frequency, base[i] / 4));
});

Deno.test("every pair lies on the unit circle, and position 0 turns nothing", () => {
  const anyConfig = fc.record({
    ropeTheta: fc.double({ min: 1, max: 1e9, noNaN: true }),
    ropeScaling: fc.constantFrom(null, LLAMA31),
    spec: fc.record({ headDim: fc.integer({ min: 1, max: 40 }).map((half) => 2 * half) }),
  });
  fc.assert(
    fc.property(anyConfig, (config) => {
      const { cos, sin } = ropeTables(config, 5);
      cos.forEach((c, i) => assert.ok(Math.abs(c * c + sin[i] * sin[i] - 1) < 2e-7));
      assert.ok(cos.subarray(0, config.spec.headDim / 2).every((c) => c === 1));
    }),
    { numRuns: 100 },
  );
});

Deno.test("positions that are no count or beyond 2^20 are refused", () => {
  for (const positions of [-1, 1.5, NaN, 2 ** 20 + 1]) {
    assert.throws(() => ropeTables(plain(2, 10000), positions), RangeError);
  }
});
