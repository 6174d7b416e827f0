import assert from "node:assert/strict";
import { LOOKUP10 } from "../codegen/layouts/lookup.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import { planOf, regionOf } from "../codegen/plan.ts";
import { detectCpu, supportedIsas } from "../kernels/cpu.ts";
import { memoryNeeded, unreadEmbeddingBytes } from "./memory_needed.ts";
import { SHAPES } from "./shapes.ts";

const configOf = (shape: string) => ({ spec: SHAPES[shape], maxPositionEmbeddings: 4096 });

Deno.test("memory needed: weights that are packed already are as large as their layout says", () => {
  const { spec } = configOf("100b");
  const said = (layout?: string) => memoryNeeded(configOf("100b"), { layout }).weightBytes;
  assert.equal(said("rows32"), planOf(spec, ROWS32).totalBytes);
  const reads = supportedIsas(detectCpu()).includes("avx512") ? LOOKUP10 : null;
  if (reads !== null) assert.equal(said("lookup10"), planOf(spec, LOOKUP10).totalBytes);
});

Deno.test("memory needed: the cache is of whole chunks, at the model's length unless told otherwise", () => {
  const tokenBytes = 2 * 4 * 30 * 5 * 128;
  const config = configOf("bitnet-2b-4t");
  for (const [contextSize, tokens] of [[1, 256], [256, 256], [257, 512], [4096, 4096]]) {
    assert.equal(memoryNeeded(config, { contextSize }).kvBytes, tokens * tokenBytes);
  }
  const { contextSize, kvBytes, kvType } = memoryNeeded(config, { kvType: "f16" });
  assert.deepEqual([contextSize, kvBytes, kvType], [4096, 4096 * tokenBytes / 2, "f16"]);
});

Deno.test("memory needed: what is said together is the sum", () => {
  for (const shape of ["bitnet-2b-4t", "llama3-8b", "maple-20b-a1b"]) {
    const { weightBytes, unreadBytes, kvBytes, bufferBytes, runtimeBytes, totalBytes } =
      memoryNeeded(configOf(shape), { contextSize: 512, threads: 3 });
    assert.equal(totalBytes, weightBytes - unreadBytes + kvBytes + bufferBytes + runtimeBytes);
  }
});

Deno.test("memory needed: of an embedding that is no head only rows of the context's tokens are read", () => {
  const { spec } = configOf("llama3-8b");
  const plan = planOf(spec);
  const unread = (tokens: number) => unreadEmbeddingBytes(spec, plan, tokens);
  const { bytes } = regionOf(plan.globals, "embedding");
  assert.equal(unread(0), bytes);
  // A row of 8 KiB, and what Linux maps around it.
  assert.equal(bytes - unread(1), 8192 + 65536);
  assert.ok(unread(1000) > bytes * 0.92 && unread(1000) < bytes * 0.94);
  assert.ok(unread(1e9) < bytes / 1000);
  assert.equal(unreadEmbeddingBytes({ ...spec, tieWordEmbeddings: true }, plan, 1), 0);
});

Deno.test("memory needed: rows of a ternary embedding lie in blocks", () => {
  const spec = SHAPES["bonsai-8b"];
  const plan = planOf(spec);
  const bytes = ["embedding_codes", "embedding_factors"]
    .reduce((sum, name) => sum + regionOf(plan.globals, name).bytes, 0);
  const read = bytes - unreadEmbeddingBytes(spec, plan, 1);
  const block = 32 * bytes / spec.vocabSize;
  assert.ok(Math.abs(read - block - 65536) <= 1, `${read}`);
});
