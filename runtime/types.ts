import type { KernelChoice } from "../codegen/isa.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import type { Grammar, GrammarSource } from "./grammar/types.ts";
import type { Pooling } from "./pooling.ts";
import type { SpeculateChoice } from "./speculation.ts";

/** A step of long work that a person may want to see: fetching, compiling, packing, proving. */
export interface Progress {
  /** What is done. */
  phase:
    | "toolchain"
    | "compile"
    | "prove"
    | "tune"
    | "pack"
    | "load"
    | "prefill"
    | "bench"
    | "convert"
    | "verify"
    | "download";
  /** The same in words. */
  message: string;
  /** Work done and in total, in `unit`s; absent when it can't be known. */
  done?: number;
  /** Work in total, in `unit`s. */
  total?: number;
  /** What `done` and `total` count. */
  unit?: "bytes" | "tokens" | "layers";
  /** Units a second lately, where that is worth showing. */
  perSecond?: number;
}
/** Called now and then during long work. */
export type OnProgress = (progress: Progress) => void;

/** How logits are to be made. */
export type HeadChoice = "auto" | "full";
/** How logits were made: all of them, or only the largest, with the same bits. */
export type HeadKind = "full" | "two-stage";

/** Options of `loadModel`. Every field has a sound default. */
export interface LoadOptions {
  /** Default: the CPU's best. */
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
  /** How keys and values are kept. Default: f32. */
  kvType?: KvType;
  /** "auto": the two-stage head where it draws the same tokens; "full": every logit, always. */
  head?: HeadChoice;
  /** Ternarise the linears of a plain float checkpoint. */
  quantize?: "absmean";
  /** What is wanted of the model: "generate" refuses an embedding model before it is prepared. */
  task?: "generate";
  /** How I2_S weights of a GGUF file lie, which no file says. Default: x86, as published ones have it. */
  i2sLayout?: "x86" | "arm" | "rows4";
  /** Most tokens of one native call; longer prompts are prefilled in chunks. */
  maxBatchTokens?: number;
  /**
   * Tokens that the KV cache holds, of all sequences together and of beginnings that are kept.
   * Default: as `contextSize`. "auto": enough for all sequences at their longest, as far as 2 GiB and
   * half of the free memory go.
   */
  cacheTokens?: number | "auto";
  /** Most sequences that run at once; the others wait. Default 64. */
  maxSequences?: number;
  /** Most sequences that wait; one more is refused with QueueFullError. Default: no limit. */
  maxWaiting?: number;
  /** Told of fetching, compiling, packing and the like. */
  onProgress?: OnProgress;
  /** Ends loading. */
  signal?: AbortSignal;
}

/** How the next token is drawn. temperature 0 is greedy. Unset fields do nothing. */
export interface SamplerOptions {
  /** Logits are divided by it; 0 is greedy. Default 1. */
  temperature?: number;
  /** Only so many of the likeliest tokens; 0 is all. */
  topK?: number;
  /** Only the likeliest tokens whose probabilities together reach this, 0 to 1. */
  topP?: number;
  /** Only tokens at least so likely as this share of the likeliest, 0 to 1. */
  minP?: number;
  /** Only the most typical tokens whose probabilities together reach this, 0 to 1. */
  typicalP?: number;
  /** Logits of tokens that were there are divided by it, or multiplied where negative; 1 is none. */
  repeatPenalty?: number;
  /** Taken from logits of tokens that were there. */
  presencePenalty?: number;
  /** Taken from logits of tokens once for each time that they were there. */
  frequencyPenalty?: number;
  /** Tokens that penalties look back on; -1 is all. Default 64. */
  penaltyLastN?: number;
  /** Added to the logit of a token id. */
  logitBias?: ReadonlyMap<number, number>;
  /** The same seed draws the same tokens. Default: a random one. */
  seed?: number;
}

/** How a text goes on, and when it ends. */
export interface GenerateOptions extends SamplerOptions {
  /** Most tokens of the completion. Default: what the context has room for. */
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
  /** From `Model.grammar`: only texts of this grammar come out, unless the length ends them early. */
  grammar?: Grammar;
  /**
   * Tell with every token its log-probability, and those of so many of the likeliest tokens (0 to
   * 20). They are of the model's own distribution, before biases, penalties, samplers and grammars.
   */
  logprobs?: number;
  /** Read and keep the keys and values of equal prompt beginnings. Default true. */
  cachePrompt?: boolean;
  /** Names the sequence in `Model.status`. */
  label?: string;
  /** Ends the generation with what there is. */
  signal?: AbortSignal;
}

/** As `GenerateOptions`, with what a chat template may know. */
export interface ChatOptions extends GenerateOptions {
  /** Functions that the template may tell the model of, as OpenAI's API has them. */
  tools?: readonly unknown[];
  /** More variables for the template. */
  templateVariables?: Readonly<Record<string, unknown>>;
}

/** Why a generation ended: a stop token or string, the longest length, or its signal. */
export type FinishReason = "stop" | "length" | "abort";

/** Where the time went, in milliseconds. */
export interface Timings {
  /** Compiling and proving kernels when the model was loaded; 0 where they were there. */
  compileMs: number;
  /** Loading the model, without `compileMs`. */
  loadMs: number;
  /** From the call to the first step that the sequence took part in; part of timeToFirstTokenMs. */
  queueMs: number;
  /** From that step to the first token. */
  prefillMs: number;
  /** From the first token to the last. */
  decodeMs: number;
  /** From the call to the first token. */
  timeToFirstTokenMs: number;
  /** Of prompt tokens that were computed. */
  prefillTokensPerSecond: number;
  /** Of tokens after the first. */
  decodeTokensPerSecond: number;
  /** Tokens that were guessed and run ahead, and those of them that came true. */
  draftTokens: number;
  /** Of `draftTokens`, those that came true. */
  acceptedTokens: number;
}

/** A finished generation. */
export interface GenerationResult {
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Prompt tokens whose keys and values were there already. */
  cachedTokens: number;
  /** Tokens of the completion. */
  completionTokens: number;
  /** Completion ids, the stop token included when one ended it. */
  tokenIds: number[];
  /** The completion, without what ended it. */
  text: string;
  /** Why it ended. */
  finishReason: FinishReason;
  /** The stop string that ended the text, or null. */
  stopString: string | null;
  /** Of every completion token, where `logprobs` asked for them. */
  logprobs: TokenLogprob[] | null;
  /** "two-stage" if any token was drawn from its logits. */
  head: HeadKind;
  /** Where the time went. */
  timings: Timings;
}

/** A piece of text that is whole UTF-8 and no longer part of a possible stop string. */
export interface Piece {
  /** May be empty, where tokens are part of a character. */
  text: string;
  /** Whose text it is. */
  tokenIds: number[];
  /** One a token of `tokenIds`, where `logprobs` asked for them. */
  logprobs?: TokenLogprob[];
}

/** How likely a drawn token was. */
export interface TokenLogprob {
  /** The token's. */
  id: number;
  /** Natural logarithm of the token's probability. */
  logprob: number;
  /** The likeliest tokens, best first. */
  top: { id: number; logprob: number }[];
}

/** Iterate it for pieces as they come, or await it for the whole. */
export interface Generation extends AsyncIterable<Piece>, PromiseLike<GenerationResult> {}

/** A turn of a conversation. */
export interface ChatMessage {
  /** Such as system, user, assistant or tool. */
  role: string;
  /** What was said. */
  content: string;
  /** Whatever else the model's template knows, by its names: `tool_calls`, `tool_call_id`, `name`. */
  [field: string]: unknown;
}

export type { Pooling } from "./pooling.ts";
export type { SpeculateChoice } from "./speculation.ts";

/** How one vector is made of the states of a text's tokens. */
export interface EmbeddingDefaults {
  /** Whose states are taken. */
  pooling: Pooling;
  /** Whether vectors are scaled to length 1. */
  normalize: boolean;
}

/** What an embedding model wants before texts. */
export interface EmbeddingPrompts {
  /** By name, such as "query" and "document". */
  texts: Readonly<Record<string, string>>;
  /** The one that stands before every text unless another is asked for; null: none. */
  defaultName: string | null;
  /** Whether the states of a prompt's tokens count where those of all are pooled. */
  arePooled: boolean;
}

/** How one vector is made of a text. */
export interface EmbedOptions {
  /**
   * Default: as the model's files say; where they don't, "last" of an embedding model and "mean" of
   * others. For "last" an embedding model gets an end-of-text token after a text.
   */
  pooling?: Pooling;
  /** Scale to length 1. Default: as the model's files say, else true. */
  normalize?: boolean;
  /** What stands before the text; not before token ids. Default: the prompt that `promptName` names. */
  prompt?: string;
  /** One of the model's prompts. Default: the one that its files name as default, else none. */
  promptName?: string;
  /** Ends it; the promise is rejected with its reason. */
  signal?: AbortSignal;
}

/** A text's vector. */
export interface Embedding {
  /** (hiddenSize,) */
  values: Float32Array;
  /** Tokens of the text, with those that were added to it. */
  promptTokens: number;
}

/** A sequence that runs. */
export interface SlotStatus {
  /** Counts from 0, and is free again when the sequence ends. */
  id: number;
  /** What the caller called it. */
  label: string | null;
  /** Whether its prompt still runs. */
  state: "prefill" | "decode";
  /** Tokens of the prompt. */
  promptTokens: number;
  /** Prompt tokens whose keys and values were there already. */
  cachedTokens: number;
  /** Tokens whose keys and values are in the cache. */
  computedTokens: number;
  /** Tokens that were drawn. */
  completionTokens: number;
}

/** What the engine does at this moment, and what it has done since it was started. */
export interface EngineStatus {
  /** Sequences that run. */
  slots: SlotStatus[];
  /** Most sequences that run at once. */
  maxSequences: number;
  /** Sequences that wait for a slot or for memory. */
  waiting: number;
  /** Blocks of `positions` tokens: `used` by running sequences, `cached` for later ones, `free`. */
  kvBlocks: { total: number; used: number; cached: number; free: number; positions: number };
  /** Since the model was loaded. */
  totals: {
    steps: number;
    stepMs: number;
    /** Prompt tokens that were computed, and those that were in the cache already. */
    prefillTokens: number;
    cachedTokens: number;
    decodeTokens: number;
    /** Times that a sequence gave its memory to older ones, to be computed again later. */
    preemptions: number;
  };
}

/** Positions whose logits are wanted: all, the last, or those from one to before another. */
export type LogitPositions = "all" | "last" | { from: number; to: number };

/** What `logits` returns for one position. */
export interface PositionLogits {
  /** Of the token that they come after, from 0. */
  position: number;
  /** (vocabSize,) */
  logits: Float32Array;
}

/** A loaded model. All methods may be called at the same time; their tokens share steps. */
export interface Model extends AsyncDisposable {
  /** The folder's or the file's name, or the model's id on the hub. */
  readonly name: string;
  /** What it was made for. An embedding model refuses `generate` and `chat`; `embed` works with both. */
  readonly task: "generate" | "embed";
  /** Its shapes. */
  readonly spec: ModelSpec;
  /** Tokens that one sequence has room for, prompt and completion together. */
  readonly contextSize: number;
  /** Native threads. */
  readonly threads: number;
  /** The kernels that run: "avx512", ..., "reference". */
  readonly kernels: string;
  /** How they multiply: "lookup48", ..., "reference"; and why it is these. */
  readonly scheme: string;
  /** Why it is these kernels: tuned, default, or asked for. */
  readonly kernelReason: string;
  /** Text to tokens and back. */
  readonly tokenizer: Tokenizer;
  /** What the authors advise. Options that are not given do not follow it by themselves. */
  readonly generationDefaults: GenerationDefaults;
  /** How vectors are made unless `EmbedOptions` say otherwise. */
  readonly embeddingDefaults: EmbeddingDefaults;
  /** What may stand before texts. */
  readonly embeddingPrompts: EmbeddingPrompts;
  /** Goes on from a text or from token ids. @throws {RangeError} If a prompt or an option can't be used. */
  generate(prompt: string | readonly number[], options?: GenerateOptions): Generation;
  /** Answers a conversation. @throws {TypeError} If the model has no chat template. */
  chat(messages: readonly ChatMessage[], options?: ChatOptions): Generation;
  /** The Jinja source of the chat template, or null when the model has none. */
  readonly chatTemplate: string | null;
  /** The prompt text that `chat` would run. Throws TypeError when the model has no chat template. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: {
      addGenerationPrompt?: boolean;
      tools?: readonly unknown[];
      templateVariables?: Readonly<Record<string, unknown>>;
    },
  ): string;
  /** Token ids of a text, as `tokenizer.encode`, with pauses for the event loop. */
  encode(
    text: string,
    options?: { addSpecialTokens?: boolean; parseSpecial?: boolean },
  ): Promise<number[]>;
  /** Token ids of a rendered chat template, with pauses for the event loop. */
  encodeChat(rendered: string): Promise<number[]>;
  /**
   * A grammar for `GenerateOptions.grammar`. The same source is compiled once.
   *
   * @throws {GrammarError} If the source is malformed, or asks for what is not supported.
   */
  grammar(source: GrammarSource): Promise<Grammar>;
  /** A vector for a text's meaning, from the hidden states. */
  embed(input: string | readonly number[], options?: EmbedOptions): Promise<Embedding>;
  /** What runs at this moment. */
  status(): EngineStatus;
  /** Float32 logits of some positions of a token sequence. */
  logits(
    ids: readonly number[],
    options?: { positions?: LogitPositions; signal?: AbortSignal },
  ): AsyncIterable<PositionLogits>;
}

/** From generation_config.json: which tokens stop, and the sampler that the authors advise. */
export interface GenerationDefaults {
  /** Tokens that end a text or a turn. */
  eosTokenIds: number[];
  /** The token before a text, if there is one. */
  bosTokenId: number | null;
  /** The token that fills up batches in other programs. */
  padTokenId: number | null;
  /** Whether the authors draw tokens by chance; else greedily. */
  doSample: boolean;
  /** As in `SamplerOptions`. */
  temperature?: number;
  /** As in `SamplerOptions`. */
  topK?: number;
  /** As in `SamplerOptions`. */
  topP?: number;
  /** As in `SamplerOptions`. */
  minP?: number;
  /** As in `SamplerOptions`. */
  typicalP?: number;
  /** As in `SamplerOptions`. */
  repeatPenalty?: number;
  /** Most tokens of a completion. */
  maxNewTokens?: number;
}

/** Text to token ids and back, from tokenizer.json and tokenizer_config.json. */
export interface Tokenizer {
  /** One more than the largest token id. */
  readonly vocabSize: number;
  /** Special tokens in `text` are parsed unless parseSpecial is false; BOS etc. as the tokenizer adds them. */
  encode(text: string, options?: { addSpecialTokens?: boolean; parseSpecial?: boolean }): number[];
  /** Text of token ids; ids that the vocabulary lacks are left out. */
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** The vocabulary's own spelling of a token, or null for an id that it does not have. */
  tokenText(id: number): string | null;
  /** The id of a token by the vocabulary's own spelling, or null. */
  tokenId(token: string): number | null;
  /** Whether a token is a sign for the model and no text, such as an end. */
  isSpecial(id: number): boolean;
  /** Raw bytes that a token stands for (byte-level and byte-fallback resolved), for streaming. */
  tokenBytes(id: number): Uint8Array;
}
