import type { KvType } from "../codegen/model_spec.ts";
import type { MemoryNeeded } from "./memory_needed.ts";
import type { EmbeddingDefaults, EmbeddingPrompts, OnProgress } from "./types.ts";

/** What `bench`, `kernels`, `doctor` and `inspect` print. Their `--json` is these objects. */

export type * from "./bench/types.ts";
export type * from "./bench/machine/types.ts";
export type { ReportFiles } from "./machine_report.ts";

export type { StepPhase } from "../codegen/step/phases.ts";
export type { MachinePeak } from "../kernels/peak.ts";
export type { Figures, Measurement } from "../kernels/race.ts";
export type { Survey, ThreadTime } from "../kernels/survey.ts";
export type { Finding, Outcome } from "../kernels/tuner.ts";
export type { LinearWork } from "../codegen/ternary_linear/work.ts";
export type { Tuning } from "../kernels/tuning.ts";
export type { EnergyDomain, EnergyProblem } from "./bench/energy.ts";
export type { MemoryNeeded, MemoryOptions } from "./memory_needed.ts";
export type { KnownTuning, TuneOptions, TuneReport } from "./tune.ts";

/** A compiled library in the cache. */
export interface CachedKernel {
  /** What it is, beside tunings. */
  type: "library";
  /** Hash of source, compiler and CPU features: the name in the cache. */
  id: string;
  /** Of the library. */
  path: string;
  /** Of that file. */
  libraryBytes: number;
  /** ISO 8601. */
  compiledAt: string;
  /** "avx512", ..., if the library's metadata says so. */
  isa?: string;
}

/** What `clearKernels` has deleted. */
export interface ClearedKernels {
  /** Of the compiled kernels. */
  directory: string;
  /** Libraries that were deleted. */
  removed: number;
  /** That are free now. */
  bytes: number;
  /** Tunings that were deleted with them. */
  removedTunings: number;
}

/** Which kernels to show. */
export interface KernelSourceOptions {
  /** A model's path; neither this nor `shape`: the embedded model. */
  model?: string;
  /** The name of a shape. */
  shape?: string;
  /** One of codegen's ISAS; absent: what this CPU would run. */
  isa?: string;
  /** Fill `assembly`: the compiler is run. */
  assembly?: boolean;
  /** Told how far it is. */
  onProgress?: OnProgress;
  /** Ends it. */
  signal?: AbortSignal;
}

/** One kernel library's source. */
export interface KernelSource {
  /** The model's or the shape's. */
  name: string;
  /** What it is generated for. */
  isa: string;
  /** Generated Zig. */
  source: string;
  /** What the compiler makes of it, where that was asked for. */
  assembly?: string;
}

/** One thing that was looked at. */
export interface DoctorCheck {
  /** In a word or two. */
  subject: string;
  /** Whether something is to be done. */
  status: "ok" | "warning" | "problem";
  /** What was found, in a few words. */
  found: string;
  /** What to do about it; absent when all is well. */
  advice?: string;
}

/** What this machine has for running models. */
export interface DoctorReport {
  /** In the order in which they are needed. */
  checks: DoctorCheck[];
  /** The same facts for programs. */
  facts: Record<string, unknown>;
}

/** All tensors of one type. */
export interface TensorType {
  /** As the file names it. */
  type: string;
  /** How many. */
  tensors: number;
  /** In all of them. */
  weights: number;
  /** Of all of them. */
  bytes: number;
}

/** What a model's headers say. */
export interface InspectReport {
  /** The folder's or the file's name, or the model's id on the hub. */
  name: string;
  /** Of its folder, or of its file. */
  path: string;
  /** Its type, and how its weights are kept, for people. */
  architecture: string;
  /** Which --quantize a plain float model needs; null of ternary ones. */
  quantize: "absmean" | null;
  /** Weights of all kinds. */
  parameters: number;
  /** Shapes and optional parts: ModelSpec's fields. */
  shapes: Record<string, unknown>;
  /** The largest first. */
  tensorTypes: TensorType[];
  /** Bytes of the packed ternary weights * 8 / their number. */
  bitsPerWeight: number;
  /** Where it is kept, and its tokens. */
  tokenizer: {
    type: string;
    vocabSize: number;
    bosToken: string | null;
    eosTokens: string[];
  };
  /** Jinja; null where there is none. */
  chatTemplate: string | null;
  /** How an embedding model makes one vector of a text, and its prompts; null of models that generate. */
  embedding: (EmbeddingDefaults & { prompts: EmbeddingPrompts }) | null;
  /** Tokens of the longest context that it was made for. */
  contextSize: number;
  /** What running it takes. */
  memory: MemoryNeeded & { kvBytesPerTokenByType: Record<KvType, number> };
}
