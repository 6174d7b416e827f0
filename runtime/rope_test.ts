import assert from "node:assert/strict";
import fc from "fast-check";
import { createHash } from "node:crypto";
import { ConfigReader } from "./config_reader.ts";
import type { JsonObject } from "./json.ts";
import { inverseFrequencies, joinedTables, type RopeConfig, ropeTables } from "./rope.ts";
import { readRopeScaling } from "./rope_scaling.ts";

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

/** Frequencies of transformers 5.24's modeling_rope_utils.py, heads of 16. */
const PUBLISHED: readonly (readonly [string, number, RopeConfig["ropeScaling"], number[]])[] = [
  [
    "yarn",
    1e6,
    {
      ropeType: "yarn",
      factor: 4,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
      originalMaxPositionEmbeddings: 16384,
      attentionFactor: 1,
    },
    [
      1,
      0.17782793939113617,
      0.03162277862429619,
      0.004217559937387705,
      0.0005000000237487257,
      4.4456985051510856e-05,
      7.905693564680405e-06,
      1.405853367941745e-06,
    ],
  ],
  [
    "yarn with other borders",
    1e4,
    {
      ropeType: "yarn",
      factor: 8,
      betaFast: 16,
      betaSlow: 2,
      truncate: false,
      originalMaxPositionEmbeddings: 512,
      attentionFactor: 1,
    },
    [
      1,
      0.3162277638912201,
      0.07160846143960953,
      0.007324998266994953,
      0.0012499999720603228,
      0.00039528473280370235,
      0.0001250000059371814,
      3.9528473280370235e-05,
    ],
  ],
  [
    "longrope",
    1e4,
    {
      ropeType: "longrope",
      shortFactor: [1, 1.1, 1.2, 1.5, 2, 3, 5, 7.7],
      originalMaxPositionEmbeddings: 1024,
      attentionFactor: 1,
    },
    [
      1,
      0.2874797582626343,
      0.0833333358168602,
      0.021081849932670593,
      0.004999999888241291,
      0.0010540926596149802,
      0.00019999999494757503,
      4.106854248675518e-05,
    ],
  ],
];

for (const [name, ropeTheta, ropeScaling, expected] of PUBLISHED) {
  Deno.test(`${name}: frequencies are transformers' to two last bits`, () => {
    const frequencies = inverseFrequencies({ ropeTheta, ropeScaling, spec: { headDim: 16 } });
    frequencies.forEach((frequency, i) => {
      assert.ok(Math.abs(frequency - expected[i]) <= 2 * ulp(expected[i]), `pair ${i}`);
    });
  });
}

Deno.test("yarn's attention factor multiplies cosines and sines", () => {
  const section = (json: JsonObject) =>
    readRopeScaling(new ConfigReader({ rope_type: "yarn", factor: 8, ...json }, "a test"), 4096);
  const factorOf = (json: JsonObject) => {
    const scaling = section(json);
    return scaling?.ropeType === "yarn" ? scaling.attentionFactor : null;
  };
  // From transformers 5.24, as the frequencies above.
  assert.ok(Math.abs(factorOf({ factor: 4 })! - 1.138629436111989) < 1e-14);
  const weights = { mscale: 0.7, mscale_all_dim: 1.2 };
  assert.ok(Math.abs(factorOf(weights)! - 0.9167912505456107) < 1e-14);
  assert.equal(factorOf({ ...weights, attention_factor: 0.5 }), 0.5);
  const config = { ...plain(8, 10000), ropeScaling: section({ attention_factor: 0.5 }) };
  const { cos, sin } = ropeTables(config, 3);
  assert.deepEqual([cos[0], sin[0]], [0.5, 0]);
  assert.equal(cos[4], f(f(Math.cos(1)) * 0.5));
});

Deno.test("sliding layers have a table of their own where they turn by another base", () => {
  const sliding = { window: 4, layers: [true], fullLayersTurn: true, localRope: true };
  const spec = { headDim: 8, sliding };
  const localRope = { ropeTheta: 100, ropeScaling: null };
  const { cos, sin, local } = ropeTables({ ...plain(8, 10000), localRope, spec }, 5);
  assert.deepEqual({ cos, sin }, ropeTables(plain(8, 10000), 5));
  assert.deepEqual(local, ropeTables(plain(8, 100), 5));
  assert.deepEqual([...joinedTables({ cos, sin, local })].length, 4 * 20);
});

Deno.test("longrope's tables end with the context that its factors are for", () => {
  const [, ropeTheta, ropeScaling] = PUBLISHED[2];
  const config = { ropeTheta, ropeScaling, spec: { headDim: 16 } };
  assert.equal(ropeTables(config, 1024).cos.length, 1024 * 8);
  assert.throws(() => ropeTables(config, 1025), /are for 1024 positions: .* 1025.*--ctx/);
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
