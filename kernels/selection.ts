/** Which kernels are tried for a model, in which order, and why. */
import type { Isa, KernelChoice } from "../codegen/isa.ts";
import type { Groups, KvType, ModelSpec } from "../codegen/model_spec.ts";
import { kernelName, kernelsFor, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { linearWork } from "../codegen/ternary_linear/work.ts";
import {
  defaultFor,
  FIRST_USE_BUDGET_MS,
  isUpToDate,
  reasonNotToTune,
  subjectOf,
  tuneMachine,
  type TuneOptions,
  type TuneProgress,
  type TuneRequest,
} from "./autotune.ts";
import { type Cpu, defaultThreads, missingFeatures, supportedIsas } from "./cpu.ts";
import { isAllGranted } from "./permissions.ts";
import type { Zig } from "./toolchain.ts";
import { PROMPT_TOKENS_PER_TOKEN } from "./tuner.ts";
import { findTuning, nearestTuning, type Tuning, tuningKey, type TuningSubject } from "./tuning.ts";

export interface KernelsOf {
  spec: ModelSpec;
  kvType: KvType;
  choice: Exclude<KernelChoice, "reference">;
  /** Name of a scheme of the registry; absent: the tuned one, or the default. */
  scheme?: string;
  /** Layout of weights that are packed already: kernels that read them as they lie come first. */
  layout?: string;
  /** Name of the model or shape, for people. */
  model?: string;
  /** Threads that will run them; absent: the default. */
  threads?: number;
  /** Whether a model that was never tuned on this CPU is tuned now, where that is wanted. */
  tuneAtFirstUse?: boolean;
}

export interface SelectOptions extends TuneOptions {
  /** Ends a tuning at first use, and nothing else. */
  tuneSignal?: AbortSignal;
}

/** A kernel to try, and why. */
export interface Selected {
  kernel: TernaryKernel;
  reason: string;
}

/**
 * Kernels to try, best first. With "auto" the tuned one comes first, then each instruction set's
 * default.
 *
 * @throws {RangeError} If the CPU lacks what was asked for, or there is no such scheme for it.
 */
export async function selectKernels(
  zig: Zig,
  cpu: Cpu,
  of: KernelsOf,
  options: SelectOptions = {},
): Promise<Selected[]> {
  const isas = isasFor(cpu, of.choice);
  const { groups } = of.spec;
  if (of.scheme !== undefined) return schemeOf(of.scheme, isas, groups);
  const readers = of.layout === undefined ? [] : readersOf(of.layout, isas, groups);
  if (readers.length > 0) return readers;
  const defaults = (why: string) => defaultsOf(isas, cpu, groups, why);
  const tuned = await tunedKernel(zig, cpu, of, options);
  if (typeof tuned === "string") return defaults(tuned);
  if (!isas.includes(tuned.kernel.isa)) return defaults("not tuned");
  const others = defaults(`${kernelName(tuned.kernel)}, which was tuned, does not work`);
  return [tuned, ...others.filter(({ kernel }) => kernel !== tuned.kernel)];
}

/**
 * The kernel that "auto" comes to where all goes well, as far as is known without a compiler: nothing
 * is made, fetched or measured.
 */
export function likelyKernel(
  cpu: Cpu,
  { spec, layout, threads = defaultThreads(cpu) }: Pick<KernelsOf, "spec" | "layout" | "threads">,
): TernaryKernel {
  const isas = supportedIsas(cpu);
  const readers = layout === undefined ? [] : readersOf(layout, isas, spec.groups);
  return readers[0]?.kernel ?? knownTuned(cpu, spec, threads) ??
    defaultFor(isas[0], cpu, spec.groups);
}

/** What an earlier tuning has chosen, if that still holds. */
function knownTuned(cpu: Cpu, spec: ModelSpec, threads: number): TernaryKernel | undefined {
  // Tunings are of CPUs that are known, and in a cache that must be ours to read.
  if (cpu.features.size === 0 || !isAllGranted()) return undefined;
  const tuning = nearestTuning(tuningKey({ cpu, works: linearWork(spec) }), threads);
  if (tuning === null || "problem" in tuning || !isUpToDate(tuning, cpu)) return undefined;
  return kernelsFor(spec.groups).find((kernel) => kernelName(kernel) === tuning.kernel);
}

/** Instruction sets to try, best first. */
function isasFor(cpu: Cpu, choice: KernelsOf["choice"]): Isa[] {
  const supported = supportedIsas(cpu);
  if (choice === "auto") return supported;
  const wanted: Isa[] = choice === "neon" ? ["neon-i8mm", "neon-dotprod", "neon"] : [choice];
  const found = wanted.find((isa) => supported.includes(isa));
  if (found !== undefined) return [found];
  throw new RangeError(
    `Cannot run --kernels ${choice} as this CPU lacks ${
      missingFeatures(cpu, wanted[wanted.length - 1]).join(", ")
    }: use --kernels ${supported[0]} or auto`,
  );
}

/** The first instruction set that has a scheme of this name. */
function schemeOf(scheme: string, isas: readonly Isa[], groups?: Groups): Selected[] {
  const rows = isas.flatMap((isa) => kernelsFor(groups).filter((kernel) => kernel.isa === isa));
  const kernel = rows.find((row) => row.scheme.name === scheme);
  if (kernel !== undefined) return [{ kernel, reason: "asked for" }];
  const names = [...new Set(rows.map((row) => row.scheme.name))];
  throw new RangeError(
    `Cannot use --scheme ${JSON.stringify(scheme.slice(0, 60))} with ${isas[0]} kernels` +
      (groups === undefined ? "" : ` of a model with groups of ${groups.size}`) +
      `: give one of ${names.join(", ")}`,
  );
}

/** Of each instruction set the first kernel that reads a layout. */
function readersOf(layout: string, isas: readonly Isa[], groups?: Groups): Selected[] {
  return isas.flatMap((isa) => {
    const kernel = kernelsFor(groups)
      .find((each) => each.isa === isa && each.scheme.layout.name === layout);
    return kernel === undefined ? [] : [{ kernel, reason: "reads the packed file as it is" }];
  });
}

function defaultsOf(
  isas: readonly Isa[],
  cpu: Cpu,
  groups: Groups | undefined,
  why: string,
): Selected[] {
  return isas.map((isa) => ({ kernel: defaultFor(isa, cpu, groups), reason: `default: ${why}` }));
}

// ---------------------------------------------------------------- tuned

/** The tuned kernel, perhaps tuned now; or why there is none. */
async function tunedKernel(
  zig: Zig,
  cpu: Cpu,
  of: KernelsOf,
  options: SelectOptions,
): Promise<Selected | string> {
  const threads = of.threads ?? defaultThreads(cpu);
  const subject = subjectOf(zig, cpu, of.spec);
  const find = () => findTuning(subject, threads);
  const found = find();
  if (found !== null && !("problem" in found)) return selectedBy(found, subject, threads);
  const why = found?.problem ?? "not tuned";
  if (of.choice !== "auto" || !of.tuneAtFirstUse || reasonNotToTune(subject.works) !== null) {
    return why;
  }
  const known = () => {
    const now = find();
    return now === null || "problem" in now ? null : now;
  };
  const request = {
    zig,
    cpu,
    threads,
    model: of.model ?? "a model",
    subject,
    kernels: subject.kernels,
    promptTokensPerToken: PROMPT_TOKENS_PER_TOKEN,
    budgetMs: FIRST_USE_BUDGET_MS,
    mca: null,
  };
  const tuned = await tuneUnlessStopped(request, known, options);
  return typeof tuned === "string" ? tuned : selectedBy(tuned, subject, threads);
}

/** The tuning, or why there is none: nothing but the caller's own signal ends the command. */
async function tuneUnlessStopped(
  request: TuneRequest,
  known: () => Tuning | null,
  { onProgress, signal, tuneSignal }: SelectOptions,
): Promise<Tuning | string> {
  const signals = [signal, tuneSignal].filter((each) => each !== undefined);
  try {
    const report = (progress: TuneProgress) =>
      onProgress?.({ ...progress, message: `${progress.message} (Ctrl-C skips)` });
    const options = { onProgress: report, signal: AbortSignal.any(signals) };
    return await tuneMachine(request, options, known) ?? "tuning took too long";
  } catch (error) {
    signal?.throwIfAborted();
    if (tuneSignal?.aborted) return "tuning was stopped";
    const [line] = String((error as Error).message ?? error).split("\n", 1);
    onProgress?.({ phase: "tune", message: `Tuning failed: ${line}` });
    return `tuning failed (${line})`;
  }
}

function selectedBy(
  tuning: Tuning,
  { kernels }: TuningSubject,
  threads: number,
): Selected | string {
  const kernel = kernels.find((known) => kernelName(known) === tuning.kernel);
  if (kernel === undefined) return `the tuning names ${tuning.kernel}, which this CPU can't run`;
  const other = tuning.threads === threads ? "" : ` with ${tuning.threads} threads`;
  return { kernel, reason: `tuned ${tuning.tunedAt.slice(0, 10)}${other}: ${tuning.why}` };
}
