/** The Zig that would be compiled for a made-up model: `deno run examples/zig.ts` */
import { defaultKernel, kernelName, type ModelSpec, planOf, stepSource } from "../codegen/mod.ts";

const spec: ModelSpec = {
  hiddenSize: 256,
  intermediateSize: 768,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 64,
  vocabSize: 1000,
  rmsNormEps: 1e-5,
  hiddenAct: "silu",
  subNorms: false,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "bf16",
  headType: "bf16",
};
const kernel = defaultKernel("avx2");
const source = stepSource(spec, { kernel, kvType: "f16" });
console.log(`${kernelName(kernel)}: ${source.split("\n").length} lines of Zig`);
console.log(`${planOf(spec, kernel.scheme.layout).totalBytes} bytes of packed weights`);
