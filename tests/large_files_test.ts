/**
 * Files of more than 4 GiB, which take no room as they are nearly all holes: formats whose tensors are
 * read, and models that run from a mapped file, although what matters of them lies beyond what 32 bits
 * can say.
 */
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { crc32 } from "node:zlib";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { type PackedPlan, planOf, regionOf } from "../codegen/plan.ts";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { loadModel, type LoadOptions } from "../runtime/mod.ts";
import { openSafetensors } from "../runtime/safetensors.ts";
import { SHAPES } from "../runtime/shapes.ts";
import { ggufFile } from "./gguf_builder.ts";
import { randomPacked } from "./random_model.ts";
import { rawFile, withFolder } from "./safetensors_file.ts";
import { type Piece, writeSparse, writeSparseModel } from "./sparse_model.ts";

const BASE: ModelSpec = {
  hiddenSize: 512,
  intermediateSize: 2048,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 128,
  vocabSize: 8,
  rmsNormEps: 1e-5,
  hiddenAct: "silu",
  subNorms: false,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "f32",
  headType: "f32",
  rowScales: true,
};

const IDS = [3, 7, 0, 7, 5];

/** A small model whose data is also in a large file, and where it lies there. */
interface Twin {
  spec: ModelSpec;
  large: ModelSpec;
  data: Uint8Array;
}

async function twinOf(spec: ModelSpec, large: ModelSpec): Promise<Twin> {
  return { spec, large, data: await randomPacked(spec, 5) };
}

/** The regions of the small model at their places in the large one, but those that are left out. */
function movedRegions({ spec, large, data }: Twin, left: readonly string[]): Piece[] {
  const [from, to] = [planOf(spec), planOf(large)];
  const pieces: Piece[] = [];
  const move = (name: string, at: number, bytes: number, target: number) => {
    if (!left.includes(name)) pieces.push([target, data.subarray(at, at + bytes)]);
  };
  for (const { name, offset, bytes } of from.globals) {
    move(name, offset, bytes, regionOf(to.globals, name).offset);
  }
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    const start = from.layersOffset + layer * from.layerBytes;
    const target = to.layersOffset + layer * to.layerBytes;
    for (const { name, offset, bytes } of from.layer) {
      move(name, start + offset, bytes, target + regionOf(to.layer, name).offset);
    }
  }
  return pieces;
}

/** Both files in a folder: what `run` gives of the small one by reference, of the large one natively. */
async function compareTwins(
  { spec, large, data }: Twin,
  pieces: readonly Piece[],
  run: (file: string, options: LoadOptions, which: "small" | "large") => Promise<Float32Array>,
): Promise<void> {
  await withFolder({}, async (folder) => {
    const files = { small: join(folder, "small.trilith"), large: join(folder, "large.trilith") };
    await writeSparseModel(files.small, spec, [[0, data]], { checksum: crc32(data) });
    await writeSparseModel(files.large, large, pieces);
    const size = statSync(files.large).size;
    assert.ok(size > 2 ** 32, String(size));
    const expected = await run(files.small, { kernels: "reference" }, "small");
    assert.ok(expected.some((value) => value !== 0) && expected.every(Number.isFinite));
    assert.deepEqual(await run(files.large, { contextSize: 64 }, "large"), expected);
  });
}

Deno.test("large files: rows of the embedding and all layers beyond 4 GiB", async () => {
  const large = { ...BASE, vocabSize: 2_200_000 };
  const twin = await twinOf(BASE, large);
  const { offset, bytes } = regionOf(planOf(BASE).globals, "embedding");
  const rowBytes = bytes / BASE.vocabSize;
  const shift = large.vocabSize - BASE.vocabSize;
  assert.ok(shift * rowBytes > 2 ** 32);
  const embedding: Piece = [
    regionOf(planOf(large).globals, "embedding").offset + shift * rowBytes,
    twin.data.subarray(offset, offset + bytes),
  ];
  const pieces = [...movedRegions(twin, ["embedding"]), embedding];
  await compareTwins(twin, pieces, async (file, options, which) => {
    await using model = await loadModel(file, options);
    const ids = which === "small" ? IDS : IDS.map((id) => id + shift);
    // No logits: those of millions of tokens would read the whole file.
    return (await model.embed(ids)).values;
  });
});

Deno.test("large files: an expert beyond 4 GiB of its layer, in a second layer beyond 8 GiB", async () => {
  const experts = {
    numExperts: 1,
    numExpertsPerTok: 1,
    routerType: "f32",
    swigluLimit: null,
  } as const;
  const spec: ModelSpec = { ...BASE, experts };
  const large = { ...spec, experts: { ...experts, numExperts: 5600 } };
  const twin = await twinOf(spec, large);
  await compareTwins(
    twin,
    [...movedRegions(twin, ["router", "experts"]), ...farExperts(twin)],
    async (file, options) => {
      await using model = await loadModel(file, options);
      for await (const { logits } of model.logits(IDS)) return logits;
      throw new Error("no logits");
    },
  );
});

/** Each layer's one expert twice, as the last two: whatever a token's score is, it picks one of them. */
function farExperts({ spec, large, data }: Twin): Piece[] {
  const [from, to] = [planOf(spec), planOf(large)];
  const { numExperts } = large.experts!;
  const pieces: Piece[] = [];
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    const region = (plan: PackedPlan, name: string) => {
      const { offset, bytes } = regionOf(plan.layer, name);
      return { offset: plan.layersOffset + layer * plan.layerBytes + offset, bytes };
    };
    const read = ({ offset, bytes }: { offset: number; bytes: number }) =>
      data.slice(offset, offset + bytes);
    const scores = read(region(from, "router"));
    const opposite = new Uint8Array(new Float32Array(scores.buffer).map((value) => -value).buffer);
    const expert = read(region(from, "experts"));
    for (const [i, row] of [scores, opposite].entries()) {
      const index = numExperts - 2 + i;
      const at = region(to, "experts").offset + index * to.expertBytes;
      assert.ok(at > (layer + 1) * 2 ** 32, `${at}`);
      pieces.push([region(to, "router").offset + index * row.length, row], [at, expert]);
    }
  }
  return pieces;
}

const MATRIX = Float32Array.from({ length: 64 * 64 }, (_, i) => i);
const TAIL = Uint8Array.of(1, 2, 3, 4, 5);

/** Bytes of a matrix, and of another one's end, that begins beyond 4 GiB. */
async function checkReads(
  read: (name: string) => Promise<Uint8Array>,
  readRange: (name: string, start: number, length: number) => Promise<Uint8Array>,
  { matrix, hole, holeBytes }: { matrix: string; hole: string; holeBytes: number },
): Promise<void> {
  assert.deepEqual(new Float32Array((await read(matrix)).buffer as ArrayBuffer), MATRIX);
  const end = await readRange(hole, holeBytes - 2 - TAIL.length, TAIL.length + 2);
  assert.deepEqual(end, Uint8Array.of(0, ...TAIL, 0));
  const rows = await readRange(matrix, 256 * 31, 512);
  assert.deepEqual(new Float32Array(rows.buffer as ArrayBuffer), MATRIX.subarray(64 * 31, 64 * 33));
}

Deno.test("large files: tensors of a safetensors file beyond 4 GiB", async () => {
  const [rows, columns] = [70_001, 2 ** 16];
  const holeBytes = rows * columns;
  const header = JSON.stringify({
    hole: { dtype: "U8", shape: [rows, columns], data_offsets: [0, holeBytes] },
    matrix: { dtype: "F32", shape: [64, 64], data_offsets: [holeBytes, holeBytes + 4 * 64 * 64] },
  });
  const head = rawFile(header, new Uint8Array());
  await withFolder({}, async (folder) => {
    const path = join(folder, "model.safetensors");
    const end = head.length + holeBytes;
    await writeSparse(path, end + 4 * MATRIX.length, [
      [0, head],
      [end - 1 - TAIL.length, TAIL],
      [end, new Uint8Array(MATRIX.buffer)],
    ]);
    const file = await openSafetensors(path);
    try {
      const read = (name: string) => file.read(name);
      const readRange = (...range: [string, number, number]) => file.readRange(...range);
      await checkReads(read, readRange, { matrix: "matrix", hole: "hole", holeBytes });
    } finally {
      await file.close();
    }
  });
});

/** Rows of heads of 32 as files of llama have them: the second half's between the first one's. */
function pairedRows(matrix: Float32Array<ArrayBuffer>): Uint8Array {
  const paired = new Float32Array(matrix.length);
  for (let row = 0; row < 64; row++) {
    const [head, inHead] = [row - row % 32, row % 32];
    const target = head + 2 * (inHead % 16) + Math.floor(inHead / 16);
    paired.set(matrix.subarray(64 * row, 64 * (row + 1)), 64 * target);
  }
  return new Uint8Array(paired.buffer);
}

Deno.test("large files: tensors of a GGUF file beyond 4 GiB, rows of heads in order", async () => {
  const vocabulary = 17_000_000;
  const holeBytes = 4 * 64 * vocabulary;
  const none = { type: 0, bytes: new Uint8Array() };
  const head = ggufFile({
    values: {
      "general.architecture": ["string", "llama"],
      "llama.block_count": ["u32", 1],
      "llama.embedding_length": ["u32", 64],
      "llama.feed_forward_length": ["u32", 128],
      "llama.attention.head_count": ["u32", 2],
      "llama.attention.layer_norm_rms_epsilon": ["f32", 1e-5],
    },
    tensors: {
      "token_embd.weight": { ...none, dims: [64, vocabulary], offset: 0 },
      "blk.0.attn_q.weight": { ...none, dims: [64, 64], offset: holeBytes },
    },
  });
  await withFolder({}, async (folder) => {
    const path = join(folder, "model.gguf");
    const end = head.length + holeBytes;
    await writeSparse(path, end + 4 * MATRIX.length, [
      [0, head],
      [end - 1 - TAIL.length, TAIL],
      [end, pairedRows(MATRIX)],
    ]);
    await using checkpoint = await openCheckpoint(path);
    const read = (name: string) => checkpoint.read(name);
    const readRange = (...range: [string, number, number]) => checkpoint.readRange(...range);
    const matrix = "model.layers.0.self_attn.q_proj.weight";
    await checkReads(read, readRange, { matrix, hole: "model.embed_tokens.weight", holeBytes });
  });
});

Deno.test({
  name: "large files: 100B answers from a mapped file (26 GB are read: TRILITH_TEST_100B=1)",
  ignore: process.env.TRILITH_TEST_100B !== "1",
  fn: () =>
    withFolder({}, async (folder) => {
      const file = join(folder, "100b.trilith");
      await writeSparseModel(file, SHAPES["100b"], []);
      assert.ok(statSync(file).size > 26e9);
      await using model = await loadModel(file, { contextSize: 64 });
      const { tokenIds } = await model.generate([1, 2, 3], { maxTokens: 2, temperature: 0 });
      // Norms that are zero make all logits zero: the first token is likeliest.
      assert.deepEqual(tokenIds, [0, 0]);
    }),
});
