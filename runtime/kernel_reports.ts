import fs from "node:fs";
import type { Isa } from "../codegen/isa.ts";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { ternaryKernel } from "../codegen/ternary_linear/spec.ts";
import { cacheDirectory } from "../kernels/cache.ts";
import { bestKernel, librarySources } from "../kernels/choose.ts";
import { assemble, clearLibraries, listLibraries, type Target } from "../kernels/compile.ts";
import { clearTunings } from "../kernels/tuning.ts";
import { ensureZig } from "../kernels/toolchain.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { readModelConfig } from "./config.ts";
import { embeddedModelFolder } from "./embedded.ts";
import type { CachedKernel, ClearedKernels, KernelSource, KernelSourceOptions } from "./reports.ts";
import { shapeOf } from "./shapes.ts";

/** Compiled libraries in the cache, newest first. */
export function listKernels(): Promise<CachedKernel[]> {
  return Promise.resolve(
    listLibraries().map(({ key, path, isa, bytes, compiledAt }) => ({
      type: "library",
      id: key,
      path,
      libraryBytes: bytes,
      compiledAt: compiledAt.toISOString(),
      isa,
    })),
  );
}

/**
 * Deletes compiled kernels; processes that have loaded them keep them. With `tunings` also what is
 * known of which are best: models then use the defaults, or are tuned anew.
 */
export function clearKernels(options: { tunings?: boolean } = {}): Promise<ClearedKernels> {
  const directory = cacheDirectory("kernels");
  const bytes = listLibraries().reduce((sum, library) => sum + library.bytes, 0);
  const removedTunings = options.tunings ? clearTunings() : 0;
  return Promise.resolve({ directory, removed: clearLibraries(), bytes, removedTunings });
}

/** The generated Zig of a model, or of a known shape, and its assembly when asked for. */
export async function kernelSources(options: KernelSourceOptions): Promise<KernelSource[]> {
  const { name, spec } = await specOf(options);
  const kernel = options.isa === undefined
    ? await bestKernel(options, spec.groups)
    : ternaryKernel(options.isa as Isa, spec.groups);
  const sources = librarySources(spec, kernel, "f32");
  const shown: KernelSource = { name, isa: kernel.isa, source: sources.get("kernels.zig")! };
  if (options.assembly) {
    const target = targetOf(kernel.isa);
    const zig = await ensureZig(options);
    shown.assembly = await assemble(zig, { sources, isa: kernel.isa, target }, options);
  }
  return [shown];
}

/** NEON can be shown on x86 and AVX on Arm: Zig compiles for both. */
function targetOf(isa: Isa): Target | undefined {
  if (isa === "portable") return undefined;
  return { arch: isa.startsWith("neon") ? "aarch64" : "x86_64", os: "linux" };
}

async function specOf(
  { model, shape }: KernelSourceOptions,
): Promise<{ name: string; spec: ModelSpec }> {
  if (shape !== undefined) return { name: shape, spec: shapeOf(shape) };
  await using checkpoint = await openCheckpoint(model ?? embeddedModelFolder());
  const { name, spec } = await readModelConfig(checkpoint);
  return { name, spec };
}

/** Bytes below a folder; 0 when there is none. */
export function folderBytes(folder: string): number {
  if (!fs.existsSync(folder)) return 0;
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  return entries.reduce((sum, entry) => {
    const path = `${folder}/${entry.name}`;
    return sum + (entry.isDirectory() ? folderBytes(path) : fs.statSync(path).size);
  }, 0);
}
