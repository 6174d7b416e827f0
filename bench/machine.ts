/** What the benchmarks of this folder run on, and how much of them. */
import process from "node:process";
import { TERNARY_KERNELS, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { defaultThreads, detectCpuWithZig, missingFeatures } from "../kernels/cpu.ts";
import { ensureZig } from "../kernels/toolchain.ts";

export const ZIG = await ensureZig();
export const CPU = await detectCpuWithZig(ZIG.path);

/** Every kernel that this CPU runs, best first. A new row of the registry is measured by itself. */
export const KERNELS: readonly TernaryKernel[] = TERNARY_KERNELS.filter(({ isa }) =>
  missingFeatures(CPU, isa).length === 0
);

/** TRILITH_BENCH_SMALL=1: everything once, on small shapes, so that a test can see that it runs. */
export const IS_SMALL = process.env.TRILITH_BENCH_SMALL === "1";

/** TRILITH_BENCH_THREADS, else what Trilith takes by itself. */
export const THREADS = Number(process.env.TRILITH_BENCH_THREADS) || defaultThreads(CPU);

/** How often Deno runs a benchmark; without it Deno decides. */
export const RUNS: Pick<Deno.BenchDefinition, "n" | "warmup"> = IS_SMALL ? { n: 1, warmup: 0 } : {};
