import type { KernelChoice } from "../../../codegen/isa.ts";
import type { MachinePeak } from "../../../kernels/peak.ts";
import type { OnProgress } from "../../types.ts";
import type { BenchReport, PeersReport } from "../types.ts";

export interface MachineReportOptions {
  /** Shape of the made-up model. */
  shape: string;
  promptTokens: number;
  genTokens: number;
  repeat: number;
  batch: readonly number[];
  /** Thread counts to measure with; default: 1 and what Trilith takes by itself. */
  threads?: readonly number[];
  kernels?: KernelChoice;
  /** What `bench/peers/run.ts --json` has measured, to be drawn beside. */
  peers?: PeersReport;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** One ternary linear by itself, weights from memory. */
export interface LinearFigures {
  /** Such as avx512-lookup48. */
  kernel: string;
  n: number;
  k: number;
  tokens: number;
  threads: number;
  bitsPerWeight: number;
  seconds: number;
  bytesPerSecond: number;
  macsPerSecond: number;
  macsPerByte: number;
}

/** All figures of `bench report`. */
export interface MachineReport {
  versions: { trilith: string; zig: string; runtime: string };
  cpu: string;
  isa: string;
  /** The command that measures all of it again. */
  command: string;
  shape: string;
  /** Measured in the same run as all else. */
  peaks: MachinePeak[];
  /** Every kernel of this CPU on one shape, by tokens; with the most threads. */
  schemes: LinearFigures[];
  /** The kernel in use on every shape of the model; with the most threads. */
  shapes: LinearFigures[];
  /** Whole models, one for each thread count. */
  runs: BenchReport[];
  peers?: PeersReport;
}
