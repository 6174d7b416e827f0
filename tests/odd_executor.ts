/** Odd models on native kernels. */
import { headOf } from "../codegen/plan.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { librarySources } from "../kernels/choose.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { type NativeExecutor, openPacked } from "../runtime/native_executor.ts";
import { ZIG } from "./machine.ts";
import { CONTEXT, KV_BLOCKS, type OddModel, packedOf, ropeOf } from "./odd_models.ts";

/** Compiles a model for a kernel and packs it in the kernel's layout. */
export async function openOddModel(
  model: OddModel,
  kernel: TernaryKernel,
  { threads, maxBatchTokens }: { threads: number; maxBatchTokens: number },
): Promise<NativeExecutor> {
  const { spec, kvType } = model;
  const sources = librarySources(spec, kernel, kvType);
  const { path } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
  const packed = await packedOf(model, kernel.scheme.layout);
  return openPacked(path, packed, {
    kernels: kernelName(kernel),
    head: headOf(spec),
    threads,
    vocabSize: spec.vocabSize,
    hiddenSize: spec.hiddenSize,
    maxBatchTokens,
    contextSize: CONTEXT,
    kvBlocks: KV_BLOCKS,
    rope: ropeOf(model).both,
  });
}
