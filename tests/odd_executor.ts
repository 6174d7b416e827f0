/** Odd models on native kernels. */
import { headOf } from "../codegen/plan.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { librarySources } from "../kernels/choose.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { allocate, openModelLibrary, writeBytes } from "../kernels/native_model.ts";
import { NativeExecutor } from "../runtime/native_executor.ts";
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
  const library = openModelLibrary(path);
  const packed = await packedOf(model, kernel.scheme.layout);
  const weights = allocate(library, packed.length);
  writeBytes(library, weights, packed);
  return new NativeExecutor({
    library,
    kernels: kernelName(kernel),
    head: headOf(spec),
    threads,
    weights,
    vocabSize: spec.vocabSize,
    maxBatchTokens,
    contextSize: CONTEXT,
    kvBlocks: KV_BLOCKS,
    rope: ropeOf(model).both,
  });
}
