/** What `inspect` says a model takes, against what a process took that filled the model's context. */
import assert from "node:assert/strict";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { cacheDirectory } from "../kernels/cache.ts";
import { bestKernel } from "../kernels/choose.ts";
import { inspectModel, loadModel } from "../runtime/mod.ts";
import { HEADER_BYTES } from "../runtime/packed_file.ts";
import { fillSynthetic } from "../runtime/synthetic.ts";
import { referencePacker } from "../runtime/ternary_packer.ts";
import { runCli } from "./cli_process.ts";
import type { ResidentBytes } from "./peak_memory.ts";
import { withFolder } from "./safetensors_file.ts";
import { writeSparseModel } from "./sparse_model.ts";
import { testUnless } from "./tools.ts";

/**
 * 1.09 G ternary weights, 220 to 280 MB as kernels want them, in small matrices that are soon made. The
 * vocabulary is too small for a sketch, of whose head one does not know what is read.
 */
const SPEC: ModelSpec = {
  hiddenSize: 1024,
  intermediateSize: 3072,
  numHiddenLayers: 80,
  numAttentionHeads: 8,
  numKeyValueHeads: 4,
  headDim: 128,
  vocabSize: 4096,
  rmsNormEps: 1e-5,
  hiddenAct: "silu",
  subNorms: true,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "bf16",
  headType: "bf16",
};

/** Tokens, of which the prompt leaves so many to be written. */
const CONTEXTS = [{ contextSize: 256, written: 32 }, { contextSize: 512, written: 8 }];

/** The model in the layout that `auto` takes here. */
async function writeModel(file: string): Promise<void> {
  const { scheme: { layout } } = await bestKernel();
  await writeSparseModel(file, SPEC, [], { layout });
  const handle = openSync(file, "r+");
  const put = (bytes: Uint8Array, at: number) => {
    for (let done = 0; done < bytes.length;) {
      done += writeSync(handle, bytes, done, bytes.length - done, HEADER_BYTES + at + done);
    }
  };
  try {
    await fillSynthetic(SPEC, referencePacker(layout), put);
  } finally {
    closeSync(handle);
  }
}

testUnless(
  process.platform === "linux" ? null : "Linux alone says what was resident",
  "memory: a process that fills a context takes what inspect says, within 5 %",
  () =>
    withFolder({}, async (folder) => {
      const file = join(folder, "model.trilith");
      await writeModel(file);
      // Compiles and proves, which takes memory that later runs do not.
      await (await loadModel(file, { contextSize: 16 }))[Symbol.asyncDispose]();
      for (const { contextSize, written } of CONTEXTS) {
        const { memory } = await inspectModel(file, { contextSize, threads: 2 });
        assert.ok(memory.weightBytes > 200e6);
        const { peak } = await measured(file, contextSize, written);
        const off = memory.totalBytes / peak - 1;
        const text = `${memory.totalBytes} bytes are said, ${peak} were taken`;
        assert.ok(
          Math.abs(off) < 0.05,
          `${contextSize} tokens: ${text}: ${(100 * off).toFixed(1)} %`,
        );
      }
    }),
);

/** Runs `generate` until the context is full. */
async function measured(
  file: string,
  contextSize: number,
  written: number,
): Promise<ResidentBytes> {
  const length = contextSize - written;
  const ids = Array.from({ length }, (_, i) => i * 37 % SPEC.vocabSize).join();
  const model = ["--model", file, "--ctx", `${contextSize}`, "--threads", "2"];
  const { code, stdout, stderr } = await runCli(
    ["generate", ...model, "--prompt-ids", ids, "--max-tokens", `${written}`, "--json"],
    { cache: cacheDirectory(), file: PROGRAM },
  );
  assert.equal(code, 0, stderr);
  assert.equal(JSON.parse(stdout).completionTokens, written);
  return JSON.parse(stderr.trimEnd().split("\n").at(-1)!);
}

const PROGRAM = fileURLToPath(new URL("peak_memory.ts", import.meta.url));
