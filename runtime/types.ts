import type { KernelChoice } from "../codegen/isa.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import type { SpeculateChoice } from "./speculation.ts";

/** A step of long work that a person may want to see: fetching, compiling, packing, proving. */
export interface Progress {
  phase: "toolchain" | "compile" | "prove" | "tune" | "pack" | "load" | "prefill" | "bench";
  message: string;
  /** Work done and in total, in `unit`s; absent when it can't be known. */
  done?: number;
  total?: number;
  unit?: "bytes" | "tokens" | "layers";
}
export type OnProgress = (progress: Progress) => void;

export type HeadChoice = "auto" | "full";
/** How logits were made: all of them, or only the largest, with the same bits. */
export type HeadKind = "full" | "two-stage";

/** Options of `loadModel`. Every field has a sound default. */
export interface LoadOptions {
  kernels?: KernelChoice;
  /** Name of a scheme of `codegen/ternary_linear/spec.ts`; default: the tuned one, or the CPU's default. */
  scheme?: string;
  /**
   * Measure which kernels are best (20 s at most) where the model was never tuned on this CPU, it is
   * large enough for that to matter, and the environment has neither CI nor TRILITH_TUNE=0.
   */
  tuneAtFirstUse?: boolean;
  /** Ends such a tuning, and nothing else: the model then loads with the default kernels. */
  tuneSignal?: AbortSignal;
  /** Native threads; default: the physical cores that affinity and cgroup allow. */
  threads?: number;
  /** Tokens that fit in the KV cache, prompts and completions of all sequences together. Default: the model's. */
  contextSize?: number;
  kvType?: KvType;
  /** "auto": the two-stage head where it draws the same tokens; "full": every logit, always. */
  head?: HeadChoice;
  /** Ternarise the linears of a plain float checkpoint. */
  quantize?: "absmean";
  /** Most tokens of one native call; longer prompts are prefilled in chunks. */
  maxBatchTokens?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** How the next token is drawn. temperature 0 is greedy. Unset fields do nothing. */
export interface SamplerOptions {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  typicalP?: number;
  repeatPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** Tokens that penalties look back on; -1 is all. Default 64. */
  penaltyLastN?: number;
  /** Added to the logit of a token id. */
  logitBias?: ReadonlyMap<number, number>;
  seed?: number;
}

export interface GenerateOptions extends SamplerOptions {
  maxTokens?: number;
  /** Strings that end the text; they are not part of it. */
  stop?: readonly string[];
  /** Go on past end-of-text tokens. */
  ignoreEos?: boolean;
  /** Add the tokenizer's own BOS; default true. Special tokens in a string prompt are parsed. */
  addSpecialTokens?: boolean;
  /**
   * Tokens that are guessed ahead where the text repeats itself: "auto" (default): as many as pay,
   * "off", or a number. The tokens that come out are the same.
   */
  speculate?: SpeculateChoice;
  signal?: AbortSignal;
}

export type FinishReason = "stop" | "length" | "abort";

export interface Timings {
  compileMs: number;
  loadMs: number;
  prefillMs: number;
  decodeMs: number;
  timeToFirstTokenMs: number;
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
  /** Tokens that were guessed and run ahead, and those of them that came true. */
  draftTokens: number;
  acceptedTokens: number;
}

export interface GenerationResult {
  promptTokens: number;
  completionTokens: number;
  /** Completion ids, the stop token included when one ended it. */
  tokenIds: number[];
  text: string;
  finishReason: FinishReason;
  /** "two-stage" if any token was drawn from its logits. */
  head: HeadKind;
  timings: Timings;
}

/** A piece of text that is whole UTF-8 and no longer part of a possible stop string. */
export interface Piece {
  text: string;
  tokenIds: number[];
}

/** Iterate it for pieces as they come, or await it for the whole. */
export interface Generation extends AsyncIterable<Piece>, PromiseLike<GenerationResult> {}

export interface ChatMessage {
  role: string;
  content: string;
}

/** What `logits` returns for one position. */
export interface PositionLogits {
  position: number;
  logits: Float32Array;
}

/** A loaded model. All methods may be called at the same time; their tokens share steps. */
export interface Model extends AsyncDisposable {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly contextSize: number;
  readonly threads: number;
  /** The kernels that run: "avx512", ..., "reference". */
  readonly kernels: string;
  /** How they multiply: "lookup48", ..., "reference"; and why it is these. */
  readonly scheme: string;
  readonly kernelReason: string;
  readonly tokenizer: Tokenizer;
  readonly generationDefaults: GenerationDefaults;
  generate(prompt: string | readonly number[], options?: GenerateOptions): Generation;
  chat(messages: readonly ChatMessage[], options?: GenerateOptions): Generation;
  /** The prompt text that `chat` would run. Throws TypeError when the model has no chat template. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: { addGenerationPrompt?: boolean },
  ): string;
  /** Float32 logits of some positions of a token sequence. */
  logits(
    ids: readonly number[],
    options?: { positions?: "all" | "last"; signal?: AbortSignal },
  ): AsyncIterable<PositionLogits>;
}

/** From generation_config.json: which tokens stop, and the sampler that the authors advise. */
export interface GenerationDefaults {
  eosTokenIds: number[];
  bosTokenId: number | null;
  padTokenId: number | null;
  doSample: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  typicalP?: number;
  repeatPenalty?: number;
  maxNewTokens?: number;
}

/** Text to token ids and back, from tokenizer.json and tokenizer_config.json. */
export interface Tokenizer {
  readonly vocabSize: number;
  /** Special tokens in `text` are parsed unless parseSpecial is false; BOS etc. as the tokenizer adds them. */
  encode(text: string, options?: { addSpecialTokens?: boolean; parseSpecial?: boolean }): number[];
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** The vocabulary's own spelling of a token, or null for an id that it does not have. */
  tokenText(id: number): string | null;
  tokenId(token: string): number | null;
  isSpecial(id: number): boolean;
  /** Raw bytes that a token stands for (byte-level and byte-fallback resolved), for streaming. */
  tokenBytes(id: number): Uint8Array;
}
