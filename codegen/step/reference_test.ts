import assert from "node:assert/strict";
import type { TernaryLayout } from "../layouts/layout.ts";
import { packMatrix } from "../layouts/layout.ts";
import {
  expertShapes,
  KV_TYPES,
  type LinearName,
  linearShape,
  type ModelSpec,
} from "../model_spec.ts";
import { planOf } from "../plan.ts";
import { LAYOUTS } from "../ternary_linear/spec.ts";
import {
  EXPERTS_SPEC,
  ODD_SPEC,
  randomCodes,
  randomFloats,
  randomOf,
  SMALL_SPEC,
} from "../test_helpers.ts";
import type { Batch } from "./batch.ts";
import { ReferenceStep, type RopeTables } from "./reference.ts";

/** Packed data with random codes, and random bytes of small floats everywhere else. */
function randomModel(spec: ModelSpec, layout: TernaryLayout): Uint8Array {
  const plan = planOf(spec, layout);
  const data = new Uint8Array(plan.totalBytes);
  const random = randomOf(1);
  const [gateUp, down] = expertShapes(spec);
  const fill = (name: string, offset: number, bytes: number) => {
    const linear = /^(.*)_codes$/.exec(name)?.[1];
    if (name === "experts") {
      for (let at = offset; at < offset + bytes; at += plan.expertBytes) {
        for (const region of plan.expert) {
          fill(`expert_${region.name}`, at + region.offset, region.bytes);
        }
      }
    } else if (linear !== undefined) {
      const { n, k } = { expert_gate_up: gateUp, expert_down: down }[linear] ??
        linearShape(spec, linear as LinearName);
      data.set(packMatrix(layout, randomCodes(random, n * k), n, k), offset);
    } else if (name === "embedding" || name === "head" || name === "router") {
      const types = { embedding: spec.embeddingType, head: spec.headType };
      const type = name === "router" ? spec.experts!.routerType : types[name];
      data.set(matrixBytes(randomFloats(random, bytes), type).subarray(0, bytes), offset);
    } else {
      data.set(new Uint8Array(randomFloats(random, bytes / 4).buffer), offset);
    }
  };
  for (const { name, offset, bytes } of plan.globals) fill(name, offset, bytes);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    const start = plan.layersOffset + layer * plan.layerBytes;
    for (const { name, offset, bytes } of plan.layer) fill(name, start + offset, bytes);
  }
  return data;
}

function matrixBytes(values: Float32Array, type: ModelSpec["headType"]): Uint8Array {
  if (type === "f32") return new Uint8Array(values.buffer);
  if (type === "f16") return new Uint8Array(Float16Array.from(values).buffer);
  const words = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

function ropeOf(spec: ModelSpec, positions: number): RopeTables {
  const half = spec.headDim / 2;
  const angle = (i: number) => Math.floor(i / half) / 100 ** (i % half / half);
  return {
    cos: Float32Array.from({ length: positions * half }, (_, i) => Math.cos(angle(i))),
    sin: Float32Array.from({ length: positions * half }, (_, i) => Math.sin(angle(i))),
  };
}

/** Tokens of one sequence from a position on, whose logits are all wanted. */
function chunk(ids: number[], from: number, table: number[]): Batch {
  return {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(ids, (_, i) => from + i),
    tablesOf: new Int32Array(ids.length),
    logitRows: Int32Array.from(ids, (_, i) => i),
    logitCandidates: new Int32Array(ids.length),
    tables: Int32Array.from(table),
    tableStride: table.length,
  };
}

const SPECS = [["small", SMALL_SPEC], ["odd", ODD_SPEC], ["experts", EXPERTS_SPEC]] as const;
const IDS = Array.from({ length: 18 }, (_, i) => i * 7 % 50);

for (const [name, spec] of SPECS) {
  for (const kvType of KV_TYPES) {
    Deno.test(`reference step of the ${name} spec, ${kvType}: prefill equals decodes`, () => {
      const stepOf = () =>
        new ReferenceStep(spec, randomModel(spec, LAYOUTS[0]), ropeOf(spec, 32), kvType);
      const whole = stepOf().step(chunk(IDS, 0, [0, 1]));
      const single = stepOf();
      const rows = IDS.map((id, i) => [...single.step(chunk([id], i, [1, 0]))]);
      assert.deepEqual([...whole], rows.flat());
      assert.ok(whole.every(Number.isFinite));
    });
  }

  Deno.test(`reference step of the ${name} spec: all layouts give the same logits`, () => {
    const [first, ...others] = LAYOUTS.map((layout) => {
      const step = new ReferenceStep(
        spec,
        randomModel(spec, layout),
        ropeOf(spec, 32),
        "f32",
        layout,
      );
      return step.step(chunk(IDS.slice(0, 3), 0, [0]));
    });
    for (const other of others) assert.deepEqual(other, first);
  });
}

Deno.test("reference step: sequences of one batch do not see each other", () => {
  const model = randomModel(SMALL_SPEC, LAYOUTS[0]);
  const stepOf = () => new ReferenceStep(SMALL_SPEC, model, ropeOf(SMALL_SPEC, 32), "f32");
  const both = stepOf().step({
    ids: Int32Array.of(4, 9, 5),
    positions: Int32Array.of(0, 0, 1),
    tablesOf: Int32Array.of(0, 1, 0),
    logitRows: Int32Array.of(1, 2),
    logitCandidates: Int32Array.of(0, 0),
    tables: Int32Array.of(2, 3),
    tableStride: 1,
  });
  const apart = [stepOf().step(chunk([9], 0, [0])), stepOf().step(chunk([4, 5], 0, [0]))];
  const vocabulary = SMALL_SPEC.vocabSize;
  assert.deepEqual(both.subarray(0, vocabulary), apart[0]);
  assert.deepEqual(both.subarray(vocabulary), apart[1].subarray(vocabulary));
});
