import type { KvType } from "../codegen/model_spec.ts";
import type { MemoryNeeded } from "./memory_needed.ts";
import type { EmbeddingDefaults, OnProgress } from "./types.ts";

/** What `bench`, `kernels`, `doctor` and `inspect` print. Their `--json` is these objects. */

export type * from "./bench/types.ts";
export type * from "./bench/machine/types.ts";
export type { ReportFiles } from "./machine_report.ts";

export type { ThreadTime } from "../kernels/survey.ts";
export type { KnownTuning, TuneOptions, TuneReport } from "./tune.ts";

/** A compiled library in the cache. */
export interface CachedKernel {
  type: "library";
  /** Hash of source, compiler and CPU features: the name in the cache. */
  id: string;
  path: string;
  libraryBytes: number;
  /** ISO 8601. */
  compiledAt: string;
  /** "avx512", ..., if the library's metadata says so. */
  isa?: string;
}

export interface ClearedKernels {
  directory: string;
  removed: number;
  bytes: number;
  /** Tunings that were deleted with them. */
  removedTunings: number;
}

export interface KernelSourceOptions {
  model?: string;
  shape?: string;
  /** One of codegen's ISAS; absent: what this CPU would run. */
  isa?: string;
  /** Fill `assembly`: the compiler is run. */
  assembly?: boolean;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export interface KernelSource {
  name: string;
  isa: string;
  /** Generated Zig. */
  source: string;
  assembly?: string;
}

export interface DoctorCheck {
  subject: string;
  status: "ok" | "warning" | "problem";
  /** What was found, in a few words. */
  found: string;
  /** What to do about it; absent when all is well. */
  advice?: string;
}

export interface DoctorReport {
  checks: DoctorCheck[];
  /** The same facts for programs. */
  facts: Record<string, unknown>;
}

export interface TensorType {
  type: string;
  tensors: number;
  weights: number;
  bytes: number;
}

export interface InspectReport {
  name: string;
  path: string;
  architecture: string;
  /** Which --quantize a plain float model needs; null of ternary ones. */
  quantize: "absmean" | null;
  parameters: number;
  /** Shapes and optional parts: ModelSpec's fields. */
  shapes: Record<string, unknown>;
  tensorTypes: TensorType[];
  /** Bytes of the packed ternary weights * 8 / their number. */
  bitsPerWeight: number;
  tokenizer: {
    type: string;
    vocabSize: number;
    bosToken: string | null;
    eosTokens: string[];
  };
  chatTemplate: string | null;
  /** How an embedding model makes one vector of a text; null of models that generate. */
  embedding: EmbeddingDefaults | null;
  contextSize: number;
  memory: MemoryNeeded & { kvBytesPerTokenByType: Record<KvType, number> };
}
