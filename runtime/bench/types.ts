import type { Isa, KernelChoice } from "../../codegen/isa.ts";
import type { KvType } from "../../codegen/model_spec.ts";
import type { StepPhase } from "../../codegen/step/phases.ts";
import type { HeadChoice, HeadKind, LoadOptions, OnProgress } from "../types.ts";
import type { EnergyDomain, EnergyProblem } from "./energy.ts";

/** What `bench` measures. */
export interface BenchOptions {
  /** A synthetic model of this shape; or a real `model`; neither: the embedded one. */
  shape?: string;
  /** A model's path. */
  model?: string;
  /** How I2_S weights of a GGUF model lie. Default: x86. */
  i2sLayout?: LoadOptions["i2sLayout"];
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Tokens that are decoded after it. */
  genTokens: number;
  /** Native threads; default: the physical cores that affinity and cgroup allow. */
  threads?: number;
  /** Turns, of which figures are means or medians. */
  repeat: number;
  /** Default: the CPU's best. */
  kernels?: KernelChoice;
  /** "auto": each step makes its largest logit, as greedy decoding needs it; "full": all of them. */
  head?: HeadChoice;
  /** Name of a scheme; default: the tuned one, or the CPU's default. */
  scheme?: string;
  /** How keys and values are kept. Default: f32. */
  kvType?: KvType;
  /**
   * Decode after so many positions of made-up keys and values, and in every turn from the start too.
   * Default: after the prompt.
   */
  context?: number;
  /** Divide prefill and decode into phases, in turns of their own. */
  profile?: boolean;
  /** Numbers of sequences that decode together, each measured in every turn. */
  batch?: readonly number[];
  /** Read the machine's energy counters around prefill and decode. */
  energy?: boolean;
  /** What the machine costs an hour, in euros: gives the price of a million tokens. */
  cost?: number;
  /** Told how far it is. */
  onProgress?: OnProgress;
  /** Ends it. */
  signal?: AbortSignal;
}

/** A speed over several repeats. */
export interface Rate {
  /** The median. */
  tokensPerSecond: number;
  /** Sample standard deviation of tokensPerSecond over the repeats. */
  stdev: number;
}

/** What `bench --json` prints. */
export interface BenchReport {
  /** The shape's or the model's name. */
  shape: string;
  /** Native threads. */
  threads: number;
  /** The CPU's own name. */
  cpu: string;
  /** How logits were made. */
  head: HeadKind;
  /** Running the prompt. */
  prefill: Rate & {
    promptTokens: number;
    /** Ternary multiply-adds a second and thread, all other work counted as if it were theirs. */
    ternaryMacsPerSecondPerThread: number;
  };
  /** How keys and values were kept. */
  kvType: KvType;
  /** Making one token after the other. */
  decode: Rate & {
    genTokens: number;
    /** Positions before the first decoded token. */
    contextTokens: number;
    weightBytesPerToken: number;
    /** Keys and values that a token reads, on average. */
    kvBytesPerToken: number;
    /** Of weights, keys and values. */
    bytesPerSecond: number;
    /** With `context`. */
    fromStart?: FromStart;
  };
  /** What memory gives, and what is used of it. */
  memory: {
    /**
     * Plain reads of all weights by the same threads, between the decoding steps: their mean rate,
     * median over the repeats.
     */
    peakReadBytesPerSecond: number;
    /** The fastest of these reads. */
    bestReadBytesPerSecond: number;
    /** Median over the repeats of decode's bytes a second / that repeat's peak. */
    rooflineFraction: number;
    weightBytes: number;
    peakRssBytes: number;
  };
  /** One a matrix shape. */
  kernels: {
    op: string;
    n: number;
    k: number;
    scheme: string;
    isa: Isa;
    bitsPerWeight: number;
    /** Why this kernel: tuned, default, or asked for. */
    reason: string;
  }[];
  /** With `profile`. */
  profile?: { prefill: StepProfile; decode: StepProfile };
  /** With `batch`, in its order. */
  batches?: BatchReport[];
  /** With `energy`. */
  energy?: EnergyReport;
  /** With `cost`. */
  cost?: CostReport;
}

/** Energy of the whole machine's processors and memory, whatever else runs on them; or why not. */
export type EnergyReport = EnergyProblem | {
  available: true;
  domains: readonly Pick<EnergyDomain, "name" | "kind">[];
  prefill: EnergyPhase;
  decode: EnergyPhase;
};

/** Medians over the repeats. */
export interface EnergyPhase {
  /** All packages and their memory. */
  joulesPerToken: number;
  /** Of the packages alone. */
  packageJoulesPerToken: number;
  /** null where memory has no counters of its own. */
  dramJoulesPerToken: number | null;
  /** All that the mainboard feeds; null where there is no such counter. */
  platformJoulesPerToken: number | null;
  /** joulesPerToken's joules a second. */
  watts: number;
}

/** Prices that follow from the speeds. */
export interface CostReport {
  /** Of the machine, as it was given. */
  eurPerHour: number;
  /** Of tokens that are read. */
  promptEurPerMillionTokens: number;
  /** One sequence alone. */
  outputEurPerMillionTokens: number;
  /** With `batch`: of sequences that decode together. */
  batches?: { sequences: number; outputEurPerMillionTokens: number }[];
}

/** Decoding from position 0 on, in the same turns. Figures are medians. */
export interface FromStart {
  /** From position 0 on. */
  tokensPerSecond: number;
  /** Speed after the context / speed from the start. */
  keptFraction: number;
  /** Bytes of keys and values / the time that a token takes longer after the context. */
  kvBytesPerSecond: number;
  /** kvBytesPerSecond / the memory peak of the same turn. */
  kvRooflineFraction: number;
}

/** Where the time of all measured steps of a kind went, as thread 0 saw it. */
export interface StepProfile {
  /** Native calls. */
  steps: number;
  /** In all of them. */
  tokens: number;
  /** Of all of them. */
  seconds: number;
  /** Part of `seconds` outside of ternary linears, head and attention, all waiting included. */
  restShare: number;
  /** Part of `seconds` at barriers, whatever the phase. */
  waitShare: number;
  /** In the order in which a step has them. */
  phases: PhaseReport[];
}

/** One phase, all steps together. */
export interface PhaseReport {
  /** Its name. */
  phase: StepPhase;
  /** What it does most. */
  kind: "linears" | "attention" | "head" | "rest";
  /** Until all threads are done with it. */
  seconds: number;
  /** Of these, at the barrier after it: thread 0 had less to do than others, or was quicker. */
  waitSeconds: number;
  /** Of the steps' seconds. */
  share: number;
  /** Weights and cached keys and values that are read; buffers stay in the caches. */
  bytes: number;
  /** Of `bytes`. */
  bytesPerSecond: number;
  /** Multiply-adds, of whatever type. */
  macs: number;
  /** Of `macs`. */
  macsPerSecond: number;
}

/** Several sequences that decode together, at the start of their contexts. Figures are medians. */
export interface BatchReport {
  /** That decode together. */
  sequences: number;
  /** Of one step, which gives each a token. */
  stepSeconds: number;
  /** Of all together. */
  tokensPerSecond: number;
  /** Weights, and the keys and values of all sequences, that a step reads. */
  bytesPerStep: number;
  /** bytesPerStep / the memory peak of the same turn. */
  memorySeconds: number;
  /**
   * Ternary multiply-adds / what a core can do with so few tokens; null where no such rate is known
   * of the kernels' instruction set.
   */
  arithmeticSeconds: number | null;
  /** stepSeconds / the larger of the two: 1 is the wall. */
  ratio: number;
  /** Of the ternary linears alone. */
  ternaryMacsPerSecondPerThread: number;
}

/** `bench/peers/run.ts`: Trilith beside llama.cpp on the same made-up model, in one run. */
export interface PeersReport {
  /** The made-up model's. */
  shape: string;
  /** Native threads of each program. */
  threads: number;
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Tokens that are decoded. */
  genTokens: number;
  /** Turns, of which figures are medians. */
  repeat: number;
  /** The CPU's own name. */
  cpu: string;
  /** Trilith's, such as avx512-lookup. */
  kernel: string;
  /** npm's name and version of the peer. */
  package: string;
  /** Weights that a decoded token reads here. */
  trilithBytesPerToken: number;
  /** One a format. */
  peers: PeerReport[];
}

/** One format, measured in turn with Trilith; or why llama.cpp does not run it. */
export type PeerReport = { format: string; problem: string } | {
  format: string;
  /** llama.cpp's repository and release. */
  build: string;
  fileBytes: number;
  /** Weights that a decoded token reads. */
  bytesPerToken: number;
  peakReadBytesPerSecond: number;
  prefill: Rate;
  decode: Rate;
  trilithPrefill: Rate;
  trilithDecode: Rate;
  /** Median over the turns of Trilith's speed / the peer's. */
  prefillRatio: number;
  decodeRatio: number;
};
