/**
 * NEON kernels with and without dot products give the reference's bits: generated here, compiled for
 * 64-bit ARM, and run as a program by qemu where this CPU is another one.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { blocksOf, paddedRows } from "../codegen/layouts/layout.ts";
import { linearSymbol, type Shape } from "../codegen/ternary_linear/scheme.ts";
import {
  kernelName,
  kernelsFor,
  TERNARY_KERNELS,
  type TernaryKernel,
} from "../codegen/ternary_linear/spec.ts";
import { type Batch, encodeBatch } from "../codegen/step/batch.ts";
import { ReferenceStep } from "../codegen/step/reference.ts";
import { librarySources } from "../kernels/choose.ts";
import { compileExecutable } from "../kernels/compile.ts";
import { type BareCase, bareCases } from "../kernels/proof.ts";
import { linearsSources } from "../kernels/timing.ts";
import filesSource from "./emulated/files.zig" with { type: "text" };
import linearsSource from "./emulated/linears.zig" with { type: "text" };
import mainSource from "./emulated/main.zig" with { type: "text" };
import { prefillBatch } from "./batches.ts";
import { EDGE_SHAPES, GROUP_SHAPES, GROUPS } from "./edge_linears.ts";

import { ZIG } from "./machine.ts";
import {
  CONTEXT,
  FEW_ODD_MODELS,
  firstDifference,
  kernelFor,
  KV_BLOCKS,
  ODD_MODELS,
  type OddModel,
  packedOf,
  ropeOf,
  sequencesOf,
} from "./odd_models.ts";
import { withFolder } from "./safetensors_file.ts";
import { aarch64Runner, testWith } from "./tools.ts";

const TARGET = { arch: "aarch64", os: "linux" } as const;

/** Most tokens of a step; prompts are given in chunks. */
const CHUNK = 19;

/** Two sequences in blocks of the cache that are not in order: chunks of one, then both decode. */
function batchesOf(model: OddModel): Batch[] {
  const [long, , short] = sequencesOf(model);
  const [longBlocks, shortBlocks] = [[5, 0, 3], [1, 4, 2]];
  const chunk = (ids: number[], from: number, blocks: number[]) =>
    prefillBatch(ids, { from, blocks });
  return [
    chunk(long.slice(0, CHUNK), 0, longBlocks),
    chunk(short, 0, shortBlocks),
    chunk(long.slice(CHUNK), CHUNK, longBlocks),
    {
      ids: Int32Array.of(1, 2),
      positions: Int32Array.of(long.length, short.length),
      tablesOf: Int32Array.of(1, 0),
      logitRows: Int32Array.of(0, 1),
      logitCandidates: Int32Array.of(0, 0),
      tables: Int32Array.of(...shortBlocks, ...longBlocks),
      tableStride: 3,
    },
  ];
}

async function reference(model: OddModel, batches: readonly Batch[]): Promise<Float32Array> {
  const step = new ReferenceStep(model.spec, await packedOf(model), ropeOf(model), model.kvType);
  return Float32Array.from(batches.flatMap((batch) => [...step.step(batch)]));
}

function compile(model: OddModel, kernel: TernaryKernel) {
  const sources = librarySources(model.spec, kernel, model.kvType)
    .set("main.zig", mainSource).set("files.zig", filesSource);
  return compileExecutable(ZIG, { sources, root: "main.zig", isa: kernel.isa, target: TARGET });
}

/** The program's words: each batch preceded by its length. */
function encoded(batches: readonly Batch[]): Uint8Array {
  const words = batches.map(encodeBatch).flatMap((batch) => [batch.length, ...batch]);
  return new Uint8Array(Int32Array.from(words).buffer);
}

async function emulated(
  runner: readonly string[],
  model: OddModel,
  kernel: TernaryKernel,
  { batches, threads }: { batches: readonly Batch[]; threads: number },
): Promise<Float32Array> {
  const { path: program } = await compile(model, kernel);
  const files = {
    weights: await packedOf(model, kernel.scheme.layout),
    rope: new Uint8Array(ropeOf(model).both.buffer),
    batches: encoded(batches),
  };
  return await withFolder(files, (folder) => {
    const logits = path.join(folder, "logits");
    const inputs = Object.keys(files).map((name) => path.join(folder, name));
    const sizes = [CHUNK, CONTEXT, KV_BLOCKS, threads, model.spec.vocabSize].map(String);
    const [command, ...args] = [...runner, program, ...inputs, logits, ...sizes];
    execFileSync(command, args, { timeout: 120_000 });
    return Promise.resolve(new Float32Array(Uint8Array.from(fs.readFileSync(logits)).buffer));
  });
}

for (const kernel of TERNARY_KERNELS.filter(({ isa }) => isa.startsWith("neon"))) {
  const name = `bit-exact: ${kernelName(kernel)} under emulation, odd shapes`;
  testWith(aarch64Runner(), name, async (runner) => {
    // The one that most CPUs have is emulated whole.
    const models = kernel.isa === "neon-dotprod" ? ODD_MODELS : FEW_ODD_MODELS;
    for (const model of models) {
      const own = kernelFor(model, kernel);
      if (own === undefined) continue;
      const batches = batchesOf(model);
      const expected = await reference(model, batches);
      for (const threads of [1, 2]) {
        const actual = await emulated(runner, model, own, { batches, threads });
        const index = firstDifference(actual, expected);
        assert.equal(index, -1, `${model.name}, ${threads} threads: logit ${index} differs`);
      }
    }
  });
}

// ---------------------------------------------------------------- single linears

interface LinearCase extends BareCase {
  shape: Shape;
  index: number;
}

function linearCases(kernel: TernaryKernel, shapes: readonly Shape[]): LinearCase[] {
  return shapes.flatMap((shape, index) =>
    bareCases(kernel, shape).map((one) => ({ ...one, shape, index }))
  );
}

/** A record as `linears.zig` reads it. */
function encodedCase({ shape, index, tokens, matrix, input }: LinearCase) {
  const { n } = shape;
  const floats = tokens * paddedRows(n);
  const words = [index, tokens, blocksOf(n), matrix.length, input.length, floats];
  const parts = [
    new Uint8Array(Int32Array.from(words).buffer),
    matrix,
    new Uint8Array(input.buffer),
  ];
  return Buffer.concat(parts.flatMap((part) => [part, new Uint8Array(-part.length & 63)]));
}

function checkSums({ shape, tokens, expected }: LinearCase, sums: Float32Array): void {
  const { n } = shape;
  for (let t = 0; t < tokens; t++) {
    for (let row = 0; row < n; row++) {
      const what = `${linearSymbol(shape)}: row ${row} of token ${t}`;
      assert.equal(sums[t * paddedRows(n) + row], expected(row, t), what);
    }
  }
}

/** The big ones take too long under emulation. */
const EMULATED_SHAPES = EDGE_SHAPES.filter(({ n, k }) => n * k < 100_000);

for (
  const kernel of [undefined, GROUPS[0]].flatMap(kernelsFor).filter(({ isa }) =>
    isa.startsWith("neon")
  )
) {
  const isGrouped = kernel.scheme.groups !== undefined;
  const shapes = isGrouped ? GROUP_SHAPES : EMULATED_SHAPES;
  const kind = isGrouped ? "edge shapes with groups" : "edge shapes";
  const name = `kernels: ${kernelName(kernel)} equals the reference on ${kind} under emulation`;
  testWith(aarch64Runner(), name, async (runner) => {
    const names = shapes.map((shape) => `kernels.trilith_${linearSymbol(shape)},`);
    const table = [
      `const kernels = @import("kernels.zig");`,
      `pub const linears = .{ ${names.join(" ")} };`,
    ];
    const sources = linearsSources(kernel, shapes).set("files.zig", filesSource)
      .set("linears.zig", linearsSource).set("linears_table.zig", table.join("\n"));
    const request = { sources, root: "linears.zig", isa: kernel.isa, target: TARGET };
    const { path: program } = await compileExecutable(ZIG, request);
    const cases = linearCases(kernel, shapes);
    const bytes = Buffer.concat(cases.map((one) => encodedCase(one)));
    await withFolder({ cases: bytes }, (folder) => {
      const [input, output] = ["cases", "sums"].map((file) => path.join(folder, file));
      const [command, ...args] = [...runner, program, input, output];
      execFileSync(command, args, { timeout: 120_000 });
      const sums = new Float32Array(Uint8Array.from(fs.readFileSync(output)).buffer);
      let at = 0;
      for (const one of cases) {
        const count = one.tokens * paddedRows(one.shape.n);
        checkSums(one, sums.subarray(at, at += count));
      }
      assert.equal(at, sums.length);
      return Promise.resolve();
    });
  });
}
