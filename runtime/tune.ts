import path from "node:path";
import type { ModelSpec } from "../codegen/model_spec.ts";
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { isUpToDate, subjectOf, tuneMachine } from "../kernels/autotune.ts";
import { type Cpu, defaultThreads, detectCpu, detectCpuWithZig } from "../kernels/cpu.ts";
import { findMca } from "../kernels/mca.ts";
import { ensureZig } from "../kernels/toolchain.ts";
import { PROMPT_TOKENS_PER_TOKEN } from "../kernels/tuner.ts";
import {
  listTunings,
  type Tuning,
  tuningFileName,
  tuningFolder,
  tuningKey,
} from "../kernels/tuning.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { readModelConfig } from "./config.ts";
import { embeddedModelFolder } from "./embedded.ts";
import { shapeOf } from "./shapes.ts";
import type { OnProgress } from "./types.ts";

/** What to tune, and how long. */
export interface TuneOptions {
  /** A model, or the name of a shape; neither: the embedded model. */
  model?: string;
  /** The name of a shape. */
  shape?: string;
  /** Native threads; default: the physical cores that affinity and cgroup allow. */
  threads?: number;
  /** Only kernels of this scheme: the best of them is kept. */
  scheme?: string;
  /** How long it may take. Default 60. */
  seconds?: number;
  /** Tokens of prompts that count beside one generated token. Default 0.5. */
  promptTokensPerToken?: number;
  /** Told how far it is. */
  onProgress?: OnProgress;
  /** Ends it; nothing is kept then. */
  signal?: AbortSignal;
}

/** What was kept, and where. */
export interface TuneReport extends Tuning {
  /** Of the file that keeps it. */
  path: string;
}

const DEFAULT_SECONDS = 60;

/**
 * Measures which kernels are best for a model on this machine, and keeps the choice: whoever loads
 * the model from then on uses it.
 *
 * @throws {RangeError} If the shape or the scheme is unknown.
 * @throws {Error} If the time was too short to say anything.
 */
export async function tuneModel(options: TuneOptions): Promise<TuneReport> {
  const { scheme, signal, onProgress, seconds = DEFAULT_SECONDS } = options;
  const { name, spec } = await specOf(options);
  const zig = await ensureZig(options);
  const cpu = await detectCpuWithZig(zig.path, signal);
  const subject = subjectOf(zig, cpu, spec);
  const kernels = subject.kernels.filter((kernel) =>
    scheme === undefined || kernel.scheme.name === scheme
  );
  if (kernels.length === 0) throw unknownScheme(scheme!, subject.kernels);
  const tuning = await tuneMachine({
    zig,
    cpu,
    threads: options.threads ?? defaultThreads(cpu),
    model: name,
    subject,
    kernels,
    promptTokensPerToken: options.promptTokensPerToken ?? PROMPT_TOKENS_PER_TOKEN,
    budgetMs: seconds * 1000,
    mca: findMca(),
    surveyThreads: defaultThreads(cpu),
  }, { onProgress, signal });
  if (tuning !== null) {
    return { ...tuning, path: path.join(tuningFolder(), tuningFileName(tuning)) };
  }
  throw new Error(
    `Cannot tune ${name} as the time was up before enough was measured: give more than --seconds ${seconds}`,
  );
}

/** Plain float models too: what ternarises them changes no shape. */
async function specOf({ model, shape }: TuneOptions): Promise<{ name: string; spec: ModelSpec }> {
  if (shape !== undefined) return { name: shape, spec: shapeOf(shape) };
  await using checkpoint = await openCheckpoint(model ?? embeddedModelFolder());
  const { name, spec } = await readModelConfig(checkpoint, { quantize: "absmean" });
  return { name, spec };
}

function unknownScheme(scheme: string, kernels: readonly TernaryKernel[]): RangeError {
  const names = [...new Set(kernels.map((kernel) => kernel.scheme.name))];
  return new RangeError(
    `Cannot use --scheme ${JSON.stringify(scheme.slice(0, 60))} on this CPU` +
      `: give one of ${names.join(", ")}`,
  );
}

/** A tuning in the cache. */
export interface KnownTuning {
  /** What it is, beside libraries. */
  type: "tuning";
  /** Its name in the cache. */
  id: string;
  /** The model's or the shape's. */
  model: string;
  /** That it was made with. */
  threads: number;
  /** That it was made on. */
  cpu: string;
  /** The one that was best. */
  kernel: string;
  /** What the others lacked. */
  why: string;
  /** ISO 8601. */
  tunedAt: string;
  /** Whether models use it: it is not if it was made on another CPU, or with other kernels. */
  state: "in use" | "another CPU" | "outdated" | "unknown CPU";
}

/** All tunings, newest first. */
export function knownTunings(): KnownTuning[] {
  const cpu = detectCpu();
  return listTunings().tunings.map((tuning) => ({
    type: "tuning",
    id: tuning.key,
    model: tuning.model,
    threads: tuning.threads,
    cpu: tuning.cpu.modelName,
    kernel: tuning.kernel,
    why: tuning.why,
    tunedAt: tuning.tunedAt,
    state: stateOf(tuning, cpu),
  }));
}

function stateOf(tuning: Tuning, cpu: Cpu): KnownTuning["state"] {
  if (cpu.features.size === 0) return "unknown CPU";
  if (tuningKey({ cpu, works: tuning.works }) !== tuning.key) return "another CPU";
  return isUpToDate(tuning, cpu) ? "in use" : "outdated";
}
