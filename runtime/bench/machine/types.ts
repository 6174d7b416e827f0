import type { KernelChoice } from "../../../codegen/isa.ts";
import type { MachinePeak } from "../../../kernels/peak.ts";
import type { OnProgress } from "../../types.ts";
import type { BenchReport, PeersReport } from "../types.ts";

/** What `bench report` measures. */
export interface MachineReportOptions {
  /** Shape of the made-up model. */
  shape: string;
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Tokens that are decoded after it. */
  genTokens: number;
  /** Turns, of which figures are medians. */
  repeat: number;
  /** Numbers of sequences that decode together. */
  batch: readonly number[];
  /** Thread counts to measure with; default: 1 and what Trilith takes by itself. */
  threads?: readonly number[];
  /** Default: the CPU's best. */
  kernels?: KernelChoice;
  /** What `bench/peers/run.ts --json` has measured, to be drawn beside. */
  peers?: PeersReport;
  /** Told how far it is. */
  onProgress?: OnProgress;
  /** Ends it. */
  signal?: AbortSignal;
}

/** One ternary linear by itself, weights from memory. */
export interface LinearFigures {
  /** Such as avx512-lookup48. */
  kernel: string;
  /** Output features. */
  n: number;
  /** Input features. */
  k: number;
  /** Tokens at once. */
  tokens: number;
  /** Native threads. */
  threads: number;
  /** Of the packed matrix. */
  bitsPerWeight: number;
  /** Of one multiplication, the median. */
  seconds: number;
  /** Of packed weights. */
  bytesPerSecond: number;
  /** Multiply-adds a second. */
  macsPerSecond: number;
  /** Multiply-adds a byte of packed weights. */
  macsPerByte: number;
}

/** All figures of `bench report`. */
export interface MachineReport {
  /** Of all that had a part in it. */
  versions: { trilith: string; zig: string; runtime: string };
  /** The CPU's own name. */
  cpu: string;
  /** The instruction set of the kernels in use. */
  isa: string;
  /** The command that measures all of it again. */
  command: string;
  /** The made-up model's. */
  shape: string;
  /** Measured in the same run as all else. */
  peaks: MachinePeak[];
  /** Every kernel of this CPU on one shape, by tokens; with the most threads. */
  schemes: LinearFigures[];
  /** The kernel in use on every shape of the model; with the most threads. */
  shapes: LinearFigures[];
  /** Whole models, one for each thread count. */
  runs: BenchReport[];
  /** Other programs on the same model, where they were measured. */
  peers?: PeersReport;
}
