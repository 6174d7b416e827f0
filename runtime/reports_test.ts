import assert from "node:assert/strict";
import { inFolder, withEnvironment } from "../kernels/test_helpers.ts";
import { ISAS } from "../codegen/isa.ts";
import { LAYOUTS } from "../codegen/ternary_linear/spec.ts";
import { linearShape, type ModelSpec, ternaryWeights } from "../codegen/model_spec.ts";
import { planOf, regionOf } from "../codegen/plan.ts";
import { runBench } from "./bench.ts";
import { doctorReport } from "./doctor.ts";
import { inspectModel } from "./inspect.ts";
import { clearKernels, kernelSources, listKernels } from "./kernel_reports.ts";
import { shapeOf, SHAPES } from "./shapes.ts";
import { fillSynthetic } from "./synthetic.ts";
import { referencePacker } from "./ternary_packer.ts";

const TINY: ModelSpec = {
  ...shapeOf("bitnet-2b-4t"),
  hiddenSize: 96,
  intermediateSize: 144,
  numHiddenLayers: 2,
  numAttentionHeads: 3,
  numKeyValueHeads: 1,
  headDim: 32,
  vocabSize: 50,
};

/**
 * Published numbers of ternary weights, in billions: 2B4T's from its report, Bonsai's as Qwen3's cards say
 * without embeddings, others from their names.
 */
const TERNARY_WEIGHTS: Record<string, number> = {
  "bitnet-2b-4t": 2.084,
  "bitnet-700m": 0.68,
  "bitnet-3b": 3.2,
  "llama3-8b": 7.0,
  "falcon3-10b": 9.5,
  "maple-20b-a1b": 19.6,
  "bonsai-1.7b": 1.4,
  "bonsai-4b": 3.6,
  "bonsai-8b": 6.95,
  "trilm-3.9b": 3.68,
  "100b": 100,
};

Deno.test("shapes have the published numbers of weights", () => {
  assert.deepEqual(Object.keys(TERNARY_WEIGHTS).sort(), Object.keys(SHAPES).sort());
  for (const [name, billions] of Object.entries(TERNARY_WEIGHTS)) {
    const spec = shapeOf(name);
    const share = ternaryWeights(spec) / 1e9 / billions;
    assert.ok(Math.abs(share - 1) < 0.02, `${name}: ${share}`);
  }
  assert.throws(() => shapeOf("toString"), /give one of bitnet-2b-4t/);
});

Deno.test("synthetic weights fill every region with valid codes", async () => {
  for (const layout of LAYOUTS) {
    const plan = planOf(TINY, layout);
    const data = new Uint8Array(plan.totalBytes);
    await fillSynthetic(TINY, referencePacker(layout), (bytes, at) => data.set(bytes, at));
    const { offset, bytes } = regionOf(plan.layer, "down_codes");
    const { n, k } = linearShape(TINY, "down");
    const start = plan.layersOffset + plan.layerBytes + offset;
    const counts = [0, 0, 0, 0];
    for (let row = 0; row < n; row++) {
      const codes = layout.unpackRow(data.subarray(start, start + bytes), n, k, row);
      for (const code of codes) counts[code]++;
    }
    assert.equal(counts[3], 0, layout.name);
    for (const count of counts.slice(0, 3)) assert.ok(count > n * k / 4, layout.name);
  }
});

Deno.test("synthetic experts are all alike, and their rows of the router are not", async () => {
  const experts = {
    numExperts: 5,
    numExpertsPerTok: 2,
    routerType: "f32",
    swigluLimit: null,
  } as const;
  const spec: ModelSpec = { ...TINY, subNorms: false, rowScales: true, experts };
  for (const layout of LAYOUTS) {
    const plan = planOf(spec, layout);
    const data = new Uint8Array(plan.totalBytes);
    await fillSynthetic(spec, referencePacker(layout), (bytes, at) => data.set(bytes, at));
    const start = plan.layersOffset + plan.layerBytes;
    const parts = (name: string) => {
      const { offset, bytes } = regionOf(plan.layer, name);
      const size = bytes / experts.numExperts;
      return Array.from(
        { length: experts.numExperts },
        (_, i) => data.subarray(start + offset + i * size, start + offset + (i + 1) * size),
      );
    };
    const [first, ...others] = parts("experts");
    for (const other of others) assert.deepEqual(other, first);
    assert.equal(new Set(parts("router").map(String)).size, experts.numExperts);
    const down = regionOf(plan.expert, "down_codes");
    const { n, k } = linearShape(spec, "down");
    const packed = first.subarray(down.offset, down.offset + down.bytes);
    const counts = [0, 0, 0, 0];
    for (let row = 0; row < n; row++) {
      for (const code of layout.unpackRow(packed, n, k, row)) counts[code]++;
    }
    assert.ok(Math.min(...counts.slice(0, 3)) > n * k / 4 && counts[3] === 0, layout.name);
  }
});

Deno.test("kernel listings show what bench has compiled, and clearing removes it", async () => {
  // In a cache of its own: other tests compile into theirs at the same time.
  await inFolder((folder) =>
    withEnvironment({ TRILITH_CACHE: folder }, async () => {
      await runBench({ promptTokens: 1, genTokens: 1, repeat: 1, threads: 1 });
      const listed = await listKernels();
      assert.ok(listed.length > 0);
      assert.ok(listed.every(({ libraryBytes, id }) => libraryBytes > 0 && /^[0-9a-f]+$/.test(id)));
      const cleared = await clearKernels();
      assert.ok(cleared.removed >= listed.length);
      assert.deepEqual(await listKernels(), []);
    })
  );
});

Deno.test("kernel sources exist for every instruction set", async () => {
  for (const isa of ISAS) {
    const [{ source, name }] = await kernelSources({ shape: "bitnet-3b", isa });
    assert.equal(name, "bitnet-3b");
    assert.match(source, /pub export fn trilith_step\(/);
    assert.match(source, /8640/);
  }
  const [{ assembly }] = await kernelSources({ isa: "portable", assembly: true });
  assert.match(assembly!, /trilith_step/);
});

Deno.test("inspect tells the embedded model's shape and memory", async () => {
  const report = await inspectModel();
  assert.equal(report.shapes.hiddenSize, 256);
  assert.equal(report.tokenizer.vocabSize, 2048);
  assert.ok(report.chatTemplate !== null);
  const packed = report.tensorTypes.find(({ type }) => type === "U8")!;
  assert.equal(packed.weights, 4 * packed.bytes);
  const { memory } = report;
  assert.equal(memory.contextSize, 512);
  assert.equal(memory.kvBytes, 512 * 8192);
  const parts = [memory.weightBytes, memory.kvBytes, memory.bufferBytes, memory.runtimeBytes];
  assert.equal(memory.totalBytes, parts.reduce((a, b) => a + b));
  const narrow = await inspectModel(undefined, { contextSize: 256, kvType: "f16", threads: 4 });
  assert.equal(narrow.memory.kvBytes, 256 * 4096);
  assert.ok(narrow.memory.bufferBytes > 0);
});

Deno.test("doctor finds nothing that keeps Trilith from working", async () => {
  const { checks, facts } = await doctorReport();
  assert.deepEqual(checks.filter(({ status }) => status === "problem"), []);
  const subjects = checks.map(({ subject }) => subject);
  for (const subject of ["runtime", "cpu", "kernels", "cores", "memory", "compiler", "cache"]) {
    assert.ok(subjects.includes(subject), subject);
  }
  assert.ok(Number(facts.threads) >= 1);
});
