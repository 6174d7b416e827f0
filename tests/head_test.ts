/**
 * The two-stage head against the full one and its reference: native kernels of this CPU, on random
 * models whose packed data has a sketch, and the embedded model's own hidden states.
 */
import assert from "node:assert/strict";
import { sketchDither } from "../codegen/head/sketch.ts";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { SKETCH_ROWS } from "../codegen/model_spec.ts";
import type { Batch } from "../codegen/step/batch.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { compilePacker } from "../kernels/choose.ts";
import type { NativeExecutor } from "../runtime/native_executor.ts";
import { openPacker, referencePacker } from "../runtime/ternary_packer.ts";
import { prefillBatch } from "./batches.ts";
import { KERNELS_OF_ARCH, kernelsOfArch, lackingFor } from "./machine.ts";
import { CONTEXT, ODD_MODELS, type OddModel } from "./odd_models.ts";
import { openOddModel } from "./odd_executor.ts";
import { testUnless } from "./tools.ts";

/** A vocabulary that is no multiple of anything. */
const VOCABULARY = 1237;

/** An odd model with a sketch. */
function sketched(model: OddModel): OddModel {
  const spec = { ...model.spec, vocabSize: VOCABULARY, headSketch: true };
  return { ...model, name: "with a sketch", spec };
}

const MODEL = sketched(ODD_MODELS[0]);
const GROUPED = sketched(
  ODD_MODELS.find(({ spec }) => spec.groups?.weightScales === false)!,
);

function openExecutor(
  kernel: TernaryKernel,
  threads: number,
  model = MODEL,
): Promise<NativeExecutor> {
  return openOddModel(model, kernel, { threads, maxBatchTokens: CONTEXT });
}

/** Logits of all tokens of one prompt, `candidates` of each row exact. */
async function logitsOf(executor: NativeExecutor, candidates: number): Promise<Float32Array> {
  const ids = Array.from({ length: 40 }, (_, i) => i * 97 % VOCABULARY);
  const batch: Batch = prefillBatch(ids);
  batch.logitCandidates.fill(candidates);
  return Float32Array.from(await executor.step(batch));
}

/** Checks that the largest logits are exact, and the others exact or left out. @returns How many were left out. */
function checkRow(actual: Float32Array, full: Float32Array, candidates: number, what: string) {
  const least = full.toSorted((a, b) => b - a)[candidates - 1];
  let left = 0;
  for (let r = 0; r < full.length; r++) {
    if (actual[r] === -Infinity && full[r] < least) left++;
    else assert.equal(actual[r], full[r], `${what}: logit ${r}`);
  }
  return left;
}

async function checkTwoStages(kernel: TernaryKernel, model: OddModel): Promise<void> {
  for (const threads of [1, 3]) {
    await using executor = await openExecutor(kernel, threads, model);
    const full = await logitsOf(executor, 0);
    assert.ok(full.every(Number.isFinite));
    assert.equal(executor.rescoredRows, 0, "the full head uses no sketch");
    for (const candidates of [1, 3, 40, 256]) {
      const some = await logitsOf(executor, candidates);
      let left = 0;
      for (let l = 0; l < full.length / VOCABULARY; l++) {
        const row = (logits: Float32Array) => logits.subarray(l * VOCABULARY, (l + 1) * VOCABULARY);
        left += checkRow(row(some), row(full), candidates, `${threads} threads, row ${l}`);
      }
      assert.ok(left > full.length / 10, `only ${left} of ${full.length} logits were left out`);
    }
    assert.ok(executor.rescoredRows > 0);
  }
}

/** What is fetched ahead changes no value, and other tests run it. */
const isOther = (kernel: TernaryKernel) => !kernelName(kernel).endsWith("-prefetch");

for (const kernel of KERNELS_OF_ARCH.filter(isOther)) {
  const name = `head: two stages of ${kernelName(kernel)} give the full head's largest logits`;
  testUnless(lackingFor(kernel.isa), name, () => checkTwoStages(kernel, MODEL));
}

for (const kernel of kernelsOfArch(GROUPED.spec.groups)) {
  const name = `head: two stages of ${kernelName(kernel)}, inputs by groups`;
  testUnless(lackingFor(kernel.isa), name, () => checkTwoStages(kernel, GROUPED));
}

Deno.test("head: more rows or candidates than the sketch is for get all logits", async () => {
  const kernel = KERNELS_OF_ARCH.find(({ isa }) => lackingFor(isa) === null)!;
  await using executor = await openExecutor(kernel, 1);
  assert.ok((await logitsOf(executor, 257)).every(Number.isFinite));
  const mixed = prefillBatch([1, 2, 3]);
  mixed.logitCandidates.set([1, 0, 1]);
  assert.ok((await executor.step(mixed)).every(Number.isFinite));
});

for (const kernel of uniqueLayouts(KERNELS_OF_ARCH)) {
  const { layout } = kernel.scheme;
  testUnless(
    lackingFor(kernel.isa),
    `head: the native sketch in ${layout.name} has the reference's bytes`,
    async () => {
      const path = await compilePacker(layout, kernel.isa);
      using native = openPacker(path, layout, 2);
      const reference = referencePacker(layout);
      const k = MODEL.spec.hiddenSize;
      const dither = sketchDither(k);
      for (const [kind, bytes] of [["f32", 4], ["bf16", 2], ["f16", 2]] as const) {
        for (const n of [1, 37, SKETCH_ROWS]) {
          const rows = { kind, bytes: someFloats(kind, n * k, bytes), n, k };
          const size = layout.packedBytes(2 * SKETCH_ROWS, k);
          const [a, b] = [new Uint8Array(size), new Uint8Array(size)];
          assert.deepEqual(
            await native.sketch(rows, dither, a),
            await reference.sketch(rows, dither, b),
          );
          assert.deepEqual(a, b, `${kind}, ${n} rows`);
          await assert.rejects(native.sketch(rows, dither, a.subarray(64)), /there is room for/);
        }
      }
    },
  );
}

function uniqueLayouts(kernels: readonly TernaryKernel[]): TernaryKernel[] {
  const byLayout = new Map<TernaryLayout, TernaryKernel>();
  for (const kernel of kernels) {
    if (lackingFor(kernel.isa) === null) byLayout.set(kernel.scheme.layout, kernel);
  }
  return [...byLayout.values()];
}

/** Normal floats, one row of zeros among them; read as another type they are other numbers. */
function someFloats(kind: string, count: number, bytes: number): Uint8Array<ArrayBuffer> {
  const values = Float32Array.from(
    { length: count },
    (_, i) => i % 11 === 0 ? 0 : Math.sin(i * 12.9898) * 3,
  );
  if (bytes === 4) return new Uint8Array(values.buffer);
  const words = new Uint32Array(values.buffer);
  if (kind === "bf16") return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
  // Halves of moderate size: sign, exponents 12 to 15, any fraction.
  const halves = Uint16Array.from(words, (word) => (word >>> 16 & 0x8fff) | 0x3000);
  return new Uint8Array(halves.buffer);
}
