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

Deno.test("memory needed: of an embedding that is no head a text reads some pages", () => {
  const { spec } = configOf("llama3-8b");
  const plan = planOf(spec);
  const pages = (tokens: number) => {
    const { bytes } = regionOf(plan.globals, "embedding");
    return (bytes - unreadEmbeddingBytes(spec, plan, tokens)) / 2 ** 21;
  };
  // Counted in books, of 501.
  for (const [tokens, counted] of [[0, 0], [128, 46], [512, 97], [2048, 173], [8192, 280]]) {
    assert.ok(Math.abs(pages(tokens) - counted) < 8, `${tokens} tokens: ${pages(tokens)}`);
  }
  assert.equal(unreadEmbeddingBytes({ ...spec, tieWordEmbeddings: true }, plan, 1), 0);
});

Deno.test("memory needed: an embedding of less than a page is read", () => {
  const spec = { ...SHAPES["bonsai-8b"], vocabSize: 1024 };
  assert.equal(unreadEmbeddingBytes(spec, planOf(spec), 1), 0);
  const large = SHAPES["bonsai-8b"];
  const { bytes } = regionOf(planOf(large).globals, "embedding_codes");
  assert.ok(unreadEmbeddingBytes(large, planOf(large), 0) > bytes, "codes and factors");
});
