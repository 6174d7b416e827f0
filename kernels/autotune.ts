/** Tuning of this machine for a model's matrices: what is measured, when, and where it is kept. */
import { type LinearWork, linearWork, weightsOf } from "../codegen/ternary_linear/work.ts";
import {
  defaultKernel,
  kernelName,
  kernelsFor,
  type TernaryKernel,
} from "../codegen/ternary_linear/spec.ts";
import type { Isa } from "../codegen/isa.ts";
import type { Groups, ModelSpec } from "../codegen/model_spec.ts";
import { withLock } from "./cache.ts";
import { type Cpu, supportedIsas } from "./cpu.ts";
import { NativeLab } from "./lab.ts";
import { environmentVariable, isGranted } from "./permissions.ts";
import type { Candidate } from "./race.ts";
import { type Survey, survey, threadCounts } from "./survey.ts";
import type { Zig } from "./toolchain.ts";
import { tuneKernels } from "./tuner.ts";
import {
  MAGIC,
  printable,
  storeTuning,
  type Tuning,
  tuningFolder,
  tuningKey,
  type TuningSubject,
  tuningVersion,
} from "./tuning.ts";

/** Structurally one of `runtime/types.ts`'s Progress. */
export interface TuneProgress {
  phase: "tune";
  message: string;
}

export interface TuneOptions {
  onProgress?: (progress: TuneProgress) => void;
  signal?: AbortSignal;
}

export interface TuneRequest {
  zig: Zig;
  cpu: Cpu;
  threads: number;
  /** Name of the model or shape, for people. */
  model: string;
  subject: TuningSubject;
  /** Those of the subject's kernels that are measured. */
  kernels: readonly TernaryKernel[];
  promptTokensPerToken: number;
  budgetMs: number;
  /** Path of llvm-mca, to leave out what can't win; null where it is not asked. */
  mca: string | null;
  /** Also look at other numbers of threads, up to this one, and at small batches. */
  surveyThreads?: number;
}

/** How long the tuning at a model's first use may take. */
export const FIRST_USE_BUDGET_MS = 20_000;

/**
 * Models with fewer ternary weights are as quick with any kernel as anybody can read: they would not
 * earn back the seconds that tuning takes.
 */
const LEAST_WEIGHTS = 100e6;

/** What is tuned for a model on a CPU. */
export function subjectOf(zig: Zig, cpu: Cpu, spec: ModelSpec): TuningSubject {
  const kernels = rivalsOn(cpu, spec.groups);
  return { cpu, works: linearWork(spec), zigVersion: zig.version, kernels };
}

/** Whether today's kernels are those that a tuning has compared. */
export function isUpToDate({ works, zigVersion, version }: Tuning, cpu: Cpu): boolean {
  const kernels = rivalsOn(cpu, works[0]?.groups);
  return version === tuningVersion({ cpu, works, zigVersion, kernels });
}

/** What is used of an instruction set where nothing was measured. */
export function defaultFor(isa: Isa, cpu: Cpu, groups?: Groups): TernaryKernel {
  return defaultKernel(isa, vendorOf(cpu), groups);
}

/** CPUID's name of the maker, as far as the model's name tells: Zig says "znver4", Linux "AMD EPYC". */
function vendorOf(cpu: Cpu): string | null {
  return /amd|znver/i.test(cpu.modelName) ? "AuthenticAMD" : null;
}

/**
 * The kernels that may win here: the default, the other schemes of its instruction set, then those
 * of lesser ones. `portable` does what the others do with fewer lanes, so that it is none of them.
 */
function rivalsOn(cpu: Cpu, groups?: Groups): TernaryKernel[] {
  const [best, ...lesser] = supportedIsas(cpu);
  const fallback = defaultFor(best, cpu, groups);
  const isas = [best, ...lesser.filter((isa) => isa !== "portable")];
  const rows = isas.flatMap((isa) => kernelsFor(groups).filter((kernel) => kernel.isa === isa));
  return [fallback, ...rows.filter((kernel) => kernel !== fallback)];
}

/** Why a model is not tuned at its first use, or null if it is. */
export function reasonNotToTune(works: readonly LinearWork[]): string | null {
  const readable = ["CI", "TRILITH_TUNE"].every((variable) => isGranted({ name: "env", variable }));
  // What can't be known may be a build machine.
  if (!readable) return "the environment's CI and TRILITH_TUNE may not be read";
  if (environmentVariable("CI") !== null) return "CI is set";
  const wish = environmentVariable("TRILITH_TUNE");
  if (wish === "0") return "TRILITH_TUNE is 0";
  return wish === null && weightsOf(works) < LEAST_WEIGHTS ? "the model is small" : null;
}

/**
 * Measures and keeps what was found. One tuning runs at a time on a machine: `known` is asked again
 * after waiting for another process's.
 *
 * @returns Null if the time was up before anything could be said; nothing is kept then.
 * @throws {CacheError} If the cache can't be written.
 * @throws The signal's reason.
 */
export function tuneMachine(
  request: TuneRequest,
  options: TuneOptions = {},
  known: () => Tuning | null = () => null,
): Promise<Tuning | null> {
  const { signal } = options;
  const report = (message: string) => options.onProgress?.({ phase: "tune", message });
  const onWait = (pid: number) => report(`Waiting for process ${pid}, which tunes this machine`);
  return withLock(tuningFolder(), "machine", async () => {
    const meanwhile = known();
    if (meanwhile !== null) return meanwhile;
    const onProgress = (message: string) => report(`Tuning: ${message}`);
    const tuning = await measure(request, { onProgress, signal });
    if (tuning !== null) await storeTuning(tuning);
    return tuning;
  }, { onWait, signal });
}

interface MeasureOptions {
  onProgress: (message: string) => void;
  signal?: AbortSignal;
}

async function measure(request: TuneRequest, options: MeasureOptions): Promise<Tuning | null> {
  const startedMs = performance.now();
  const { subject, kernels, promptTokensPerToken, budgetMs } = request;
  const { works } = subject;
  using lab = new NativeLab({ ...request, works });
  const task = { works, kernels, promptTokensPerToken };
  const tuned = await tuneKernels(task, lab, { budgetMs, ...options });
  if (tuned === null) return null;
  const { kernel, ...rest } = tuned;
  const hasTime = () => performance.now() - startedMs < budgetMs;
  const more = hasTime() ? await surveyOf(request, lab, kernel, hasTime, options) : {};
  const seconds = (performance.now() - startedMs) / 1000;
  return { ...headOf(request), seconds, kernel: kernelName(kernel), ...rest, ...more };
}

async function surveyOf(
  { subject: { works }, threads, promptTokensPerToken, surveyThreads }: TuneRequest,
  lab: NativeLab,
  kernel: TernaryKernel,
  hasTime: () => boolean,
  { onProgress, signal }: MeasureOptions,
): Promise<Partial<Survey>> {
  if (surveyThreads === undefined) return {};
  const candidates = new Map<number, Candidate>();
  for (const count of new Set([...threadCounts(surveyThreads), threads])) {
    onProgress(`measuring ${kernelName(kernel)} with other threads and batches`);
    candidates.set(count, await lab.openWith(count, kernel, signal));
  }
  return await survey({ kernel, works, promptTokensPerToken, threads }, candidates, async () => {
    await lab.pause();
    signal?.throwIfAborted();
    return hasTime();
  });
}

/** What is known before anything is measured. */
function headOf({ subject, threads, model, promptTokensPerToken }: TuneRequest) {
  const { arch, modelName, features } = subject.cpu;
  return {
    magic: MAGIC as typeof MAGIC,
    key: tuningKey(subject),
    version: tuningVersion(subject),
    model: printable(model),
    cpu: { arch, modelName: printable(modelName), features: [...features].sort() },
    threads,
    works: [...subject.works],
    zigVersion: subject.zigVersion,
    tunedAt: new Date().toISOString(),
    promptTokensPerToken,
  };
}
