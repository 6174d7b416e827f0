import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import type { Groups, KvType, ModelSpec } from "../codegen/model_spec.ts";
import type { Isa } from "../codegen/isa.ts";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { floatsSource } from "../codegen/dense/template.ts";
import { packerSource } from "../codegen/pack/template.ts";
import { stepSource } from "../codegen/step/template.ts";
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { defaultFor } from "./autotune.ts";
import { publishFile } from "./cache.ts";
import { compileLibrary } from "./compile.ts";
import { type Cpu, detectCpu, detectCpuWithZig, supportedIsas } from "./cpu.ts";
import { type ModelLibrary, openModelLibrary } from "./native_model.ts";
import { ProofError, proveLinears } from "./proof.ts";
import { type KernelsOf, type Selected, selectKernels } from "./selection.ts";
import { ensureZig, type Zig } from "./toolchain.ts";
import { VOCABULARY } from "./vocabulary.ts";

/** What choosing reports; structurally one of `runtime/types.ts`'s Progress. */
export interface ChooseProgress {
  phase: "toolchain" | "compile" | "prove" | "tune";
  message: string;
  done?: number;
  total?: number;
  unit?: "bytes";
}

export interface ChooseOptions {
  onProgress?: (progress: ChooseProgress) => void;
  signal?: AbortSignal;
  /** Ends a tuning at first use, and nothing else. */
  tuneSignal?: AbortSignal;
}

/** Kernels that are compiled, loaded and proved on this machine. */
export interface OpenedKernels {
  library: ModelLibrary;
  /** The library that packs in the kernel's layout. */
  packerPath: string;
  kernel: TernaryKernel;
  /** Why these, in words. */
  reason: string;
  cpu: Cpu;
  /** 0 when the library was in the cache. */
  compileMs: number;
}

/** These kernels do not work on this machine, whatever its features say. */
export class KernelRejectedError extends Error {
  override readonly name = "KernelRejectedError";
}

/** The sources of a model's library: the generated file and the vocabulary it imports. */
export function librarySources(
  spec: ModelSpec,
  kernel: TernaryKernel,
  kvType: KvType,
): Map<string, string> {
  return sourcesOf(stepSource(spec, { kernel, kvType }), []);
}

/** Files of the vocabulary that not all libraries import: changing one must not compile the others anew. */
const OWN = ["floats.zig", "pack.zig", "sketch.zig"];

function sourcesOf(kernels: string, own: readonly string[]): Map<string, string> {
  const vocabulary = [...VOCABULARY].filter(([name]) => !OWN.includes(name) || own.includes(name));
  return new Map([...vocabulary, ["kernels.zig", kernels]]);
}

/** The sources of a library that packs in a layout: one for all models. */
export function packerSources(layout: TernaryLayout): Map<string, string> {
  return sourcesOf(packerSource(layout), ["pack.zig", "sketch.zig"]);
}

/**
 * Compiles the packer of a layout for this machine, or finds it in the cache.
 *
 * @returns The library's path.
 */
export async function compilePacker(
  layout: TernaryLayout,
  isa: Isa,
  options: ChooseOptions = {},
): Promise<string> {
  const zig = await ensureZig(options);
  return (await compileLibrary(zig, { sources: packerSources(layout), isa }, options)).path;
}

/**
 * Compiles what multiplies float matrices for this machine, or finds it in the cache.
 *
 * @returns The library's path.
 */
export async function compileFloats(isa: Isa, options: ChooseOptions = {}): Promise<string> {
  const zig = await ensureZig(options);
  const sources = sourcesOf(floatsSource(), ["floats.zig"]);
  return (await compileLibrary(zig, { sources, isa }, options)).path;
}

/**
 * The best kernels of this CPU, or those asked for: compiled at first use, then proved once. With
 * "auto", kernels that fail their proof give way to the next best, with a message.
 *
 * @throws {RangeError} If the CPU lacks what was asked for.
 * @throws {KernelRejectedError} If no kernels work here.
 */
export async function openKernels(
  of: KernelsOf,
  options: ChooseOptions = {},
): Promise<OpenedKernels> {
  const zig = await ensureZig(options);
  const cpu = await detectCpuWithZig(zig.path, options.signal);
  const rejected: string[] = [];
  for (const selected of await selectKernels(zig, cpu, of, options)) {
    try {
      return await openSelected(zig, cpu, of, selected, options);
    } catch (error) {
      if (!(error instanceof KernelRejectedError)) throw error;
      rejected.push(error.message);
      options.onProgress?.({ phase: "prove", message: `${error.message}; trying the next best` });
    }
  }
  throw new KernelRejectedError(
    `Cannot run native kernels on this machine (${
      rejected.join("; ")
    }): use --kernels reference, and report this`,
  );
}

/** The kernel that "auto" tries first on this machine, for a model's groups; nothing is compiled. */
export async function bestKernel(
  options: ChooseOptions = {},
  groups?: Groups,
): Promise<TernaryKernel> {
  const detected = detectCpu();
  const cpu = detected.features.size > 0
    ? detected
    : await detectCpuWithZig((await ensureZig(options)).path, options.signal);
  return defaultFor(supportedIsas(cpu)[0], cpu, groups);
}

async function openSelected(
  zig: Zig,
  cpu: Cpu,
  { spec, kvType }: KernelsOf,
  { kernel, reason }: Selected,
  options: ChooseOptions,
): Promise<OpenedKernels> {
  const sources = librarySources(spec, kernel, kvType);
  const { isa } = kernel;
  // Side by side, as a first run waits for both.
  const [{ path: file, compileMs }, packerPath] = await Promise.all([
    compileLibrary(zig, { sources, isa }, options),
    compilePacker(kernel.scheme.layout, isa, { signal: options.signal }),
  ]);
  const library = openModelLibrary(file);
  try {
    await proveOnce(library, file, { spec, kernel, cpu }, options);
  } catch (error) {
    library.close();
    throw error;
  }
  return { library, packerPath, kernel, reason, cpu, compileMs };
}

interface ProofOf {
  spec: ModelSpec;
  kernel: TernaryKernel;
  cpu: Cpu;
}

/** The proof is kept beside the library, by CPU: a cache that moves to another one proves anew. */
async function proveOnce(
  library: ModelLibrary,
  file: string,
  { spec, kernel, cpu }: ProofOf,
  options: ChooseOptions,
): Promise<void> {
  const record = `proof-${cpuKey(cpu)}.json`;
  if (fs.existsSync(path.join(path.dirname(file), record))) return;
  options.onProgress?.({ phase: "prove", message: `Proving ${kernel.isa} kernels on this CPU` });
  const sums = prove(library, file, spec, kernel);
  const text = JSON.stringify({ isa: kernel.isa, cpu: cpu.modelName, comparedSums: sums });
  await publishFile(path.dirname(file), record, async (handle) => {
    await handle.writeFile(text);
  });
}

function cpuKey(cpu: Cpu): string {
  const facts = [cpu.arch, cpu.modelName, ...[...cpu.features].sort()];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex").slice(0, 16);
}

function prove(
  library: ModelLibrary,
  file: string,
  spec: ModelSpec,
  kernel: TernaryKernel,
): number {
  const signal = library.symbols.trilith_probe();
  if (signal !== 0) {
    throw new KernelRejectedError(
      `${kernel.isa} kernels stop with signal ${signal} although the CPU claims the features`,
    );
  }
  try {
    return proveLinears(file, spec, kernel);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    throw new KernelRejectedError(error.message, { cause: error });
  }
}
