import type { GrammarMatcher } from "./grammar/types.ts";
import { checkLogprobs, logprobOf } from "./logprobs.ts";
import { createSampler, type Sampler } from "./sampler.ts";
import type { Scheduler, SequenceWork } from "./scheduler.ts";
import { checkSpeculate, Drafter } from "./speculation.ts";
import { wakeUps } from "./wake_ups.ts";
import { TextStream } from "./text_stream.ts";
import type {
  FinishReason,
  GenerateOptions,
  Generation,
  GenerationResult,
  HeadKind,
  Piece,
  Tokenizer,
  TokenLogprob,
} from "./types.ts";

/** What a generation needs of its model. */
export interface GenerationContext {
  scheduler: Scheduler;
  tokenizer: Tokenizer;
  vocabSize: number;
  contextSize: number;
  eosTokenIds: readonly number[];
  /** What the executor can do and the caller allows. */
  head: HeadKind;
  compileMs: number;
  loadMs: number;
}

/** Tokens generated when neither the caller nor the model says how many: up to the context. */
const NO_LIMIT = Infinity;

/** Largest logits that are asked for where a grammar forbids some of them. */
const CANDIDATES_OF_GRAMMARS = 64;

/** One completion in the scheduler: samples a token whenever its logits come. */
class CompletionWork implements SequenceWork {
  readonly pending: number[];
  readonly maxTokens: number;
  readonly tokenIds: number[] = [];
  readonly drafter: Drafter | null;
  readonly #history: number[];
  readonly #sampler: Sampler;
  readonly #text: TextStream;
  readonly #matcher: GrammarMatcher | null;
  readonly #logprobs: TokenLogprob[] = [];
  /** The next token could not be drawn from the largest logits. */
  #needsAllLogits = false;
  #cachedTokens = 0;
  readonly #arrivedMs = performance.now();
  #startedMs: number | null = null;
  #head: HeadKind = "full";
  #firstTokenMs: number | null = null;
  #lastTokenMs = 0;
  #finishReason: FinishReason | null = null;
  #output = "";
  #saidTokens = 0;
  /** Tokens whose text has not been given out yet. */
  readonly #unsaid: number[] = [];

  constructor(
    private readonly context: GenerationContext,
    promptIds: readonly number[],
    private readonly options: GenerateOptions,
    private readonly queue: PieceQueue,
  ) {
    this.pending = [...promptIds];
    this.#history = [...promptIds];
    const room = context.contextSize - promptIds.length;
    this.maxTokens = promptIds.length + Math.min(options.maxTokens ?? NO_LIMIT, room);
    this.#sampler = createSampler(options, context.vocabSize);
    const { speculate = "auto" } = options;
    this.drafter = speculate === "off"
      ? null
      : new Drafter(this.#history, this.maxTokens, speculate);
    this.#matcher = options.grammar?.start() ?? null;
    this.#text = new TextStream(context.tokenizer, { stop: options.stop ?? [] });
    if (options.maxTokens === 0) this.#finishReason = "length";
    if (options.signal?.aborted) this.#finishReason = "abort";
  }

  get active(): boolean {
    if (this.options.signal?.aborted) this.#finishReason ??= "abort";
    return this.#finishReason === null;
  }

  get cachePrompt(): boolean {
    return this.options.cachePrompt ?? true;
  }

  get label(): string | undefined {
    return this.options.label;
  }

  started(cachedTokens: number): void {
    this.#startedMs = performance.now();
    this.#cachedTokens = cachedTokens;
  }

  /** Nobody reads the text any more. */
  abandon(): void {
    this.#finishReason ??= "abort";
  }

  candidatesAt(position: number): number | null {
    const ahead = position - (this.#history.length - 1);
    if (ahead < 0) return null;
    if (this.#needsAllLogits || this.options.logprobs !== undefined) return 0;
    if (this.context.head === "full") return 0;
    const needed = this.#sampler.candidates(this.#history, ahead);
    return this.#matcher === null || needed === 0
      ? needed
      : Math.max(needed, CANDIDATES_OF_GRAMMARS);
  }

  accept(_position: number, logits: Float32Array, candidates: number): void | "again" {
    const allowed = this.#matcher?.allowed();
    this.#needsAllLogits = candidates > 0 && allowed !== undefined &&
      !this.#sampler.isEnough(logits, candidates, this.#history, allowed);
    if (this.#needsAllLogits) return "again";
    if (candidates > 0) this.#head = "two-stage";
    const id = this.#sampler.sample(logits, this.#history, allowed);
    const { logprobs } = this.options;
    if (logprobs !== undefined) this.#logprobs.push(logprobOf(logits, id, logprobs));
    this.#add(id);
  }

  #add(id: number): void {
    this.#lastTokenMs = performance.now();
    this.#firstTokenMs ??= this.#lastTokenMs;
    this.tokenIds.push(id);
    this.#history.push(id);
    this.drafter?.grown();
    const isEnd = this.context.eosTokenIds.includes(id);
    if (isEnd && (!this.options.ignoreEos || this.#matcher !== null)) {
      this.#finishReason = "stop";
      return;
    }
    this.#matcher?.accept(id);
    const { text, stopped } = this.#text.push(id);
    this.#unsaid.push(id);
    this.#emit(text);
    if (stopped || this.#matcher?.isFinished) this.#finishReason = "stop";
    else if (this.#history.length >= this.maxTokens) this.#finishReason = "length";
    else this.pending.push(id);
  }

  finish(error?: unknown): void {
    if (error !== undefined) return this.queue.fail(error);
    this.#emit(this.#text.flush());
    this.queue.end(this.#result());
  }

  #emit(text: string): void {
    if (text === "") return;
    this.#output += text;
    const tokenIds = this.#unsaid.splice(0);
    const end = this.#saidTokens + tokenIds.length;
    const logprobs = this.options.logprobs === undefined
      ? {}
      : { logprobs: this.#logprobs.slice(this.#saidTokens, end) };
    this.#saidTokens = end;
    this.queue.push({ text, tokenIds, ...logprobs });
  }

  #result(): GenerationResult {
    const promptTokens = this.#history.length - this.tokenIds.length;
    const endMs = performance.now();
    const firstMs = this.#firstTokenMs ?? endMs;
    const startedMs = this.#startedMs ?? endMs;
    const prefillMs = firstMs - startedMs;
    const decodeMs = this.#firstTokenMs === null ? 0 : this.#lastTokenMs - firstMs;
    const decoded = Math.max(0, this.tokenIds.length - 1);
    return {
      promptTokens,
      cachedTokens: this.#cachedTokens,
      completionTokens: this.tokenIds.length,
      tokenIds: this.tokenIds,
      text: this.#output,
      finishReason: this.#finishReason ?? "abort",
      stopString: this.#text.stopString,
      logprobs: this.options.logprobs === undefined ? null : this.#logprobs,
      head: this.#head,
      timings: {
        compileMs: this.context.compileMs,
        loadMs: this.context.loadMs,
        queueMs: startedMs - this.#arrivedMs,
        prefillMs,
        decodeMs,
        timeToFirstTokenMs: firstMs - this.#arrivedMs,
        prefillTokensPerSecond: perSecond(promptTokens - this.#cachedTokens, prefillMs),
        decodeTokensPerSecond: perSecond(decoded, decodeMs),
        draftTokens: this.drafter?.draftTokens ?? 0,
        acceptedTokens: this.drafter?.acceptedTokens ?? 0,
      },
    };
  }
}

function perSecond(count: number, ms: number): number {
  return ms > 0 ? count / (ms / 1000) : 0;
}

/** Pieces on their way from the scheduler to whoever iterates, and the result at the end. */
class PieceQueue {
  readonly #pieces: Piece[] = [];
  readonly result: Promise<GenerationResult>;
  #settle!: { resolve: (result: GenerationResult) => void; reject: (error: unknown) => void };
  #wake: (() => void) | null = null;
  #ended = false;

  constructor() {
    this.result = new Promise((resolve, reject) => this.#settle = { resolve, reject });
    // Whoever only iterates sees the error there; it must not count as unhandled as well.
    this.result.catch(() => {});
  }

  push(piece: Piece): void {
    this.#pieces.push(piece);
    this.#wakeReader();
  }

  end(result: GenerationResult): void {
    this.#ended = true;
    this.#settle.resolve(result);
    this.#wakeReader();
  }

  fail(error: unknown): void {
    this.#ended = true;
    this.#settle.reject(error);
    this.#wakeReader();
  }

  #wakeReader(): void {
    if (this.#wake !== null) wakeUps.add(this.#wake);
    this.#wake = null;
  }

  async *pieces(): AsyncGenerator<Piece> {
    while (true) {
      while (this.#pieces.length > 0) yield this.#pieces.shift()!;
      if (this.#ended) break;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    await this.result;
  }
}

/**
 * Starts a completion. Stopping the iteration early (break, return) ends it in the scheduler too.
 *
 * @throws {RangeError} If the prompt is empty, has an unknown id, or leaves no room in the context.
 */
export function startGeneration(
  context: GenerationContext,
  promptIds: readonly number[],
  options: GenerateOptions,
): Generation {
  checkPrompt(context, promptIds);
  checkMaxTokens(options.maxTokens);
  checkSpeculate(options.speculate);
  checkLogprobs(options.logprobs);
  const queue = new PieceQueue();
  const work = new CompletionWork(context, promptIds, options, queue);
  context.scheduler.add(work);
  return {
    then: (resolved, rejected) => queue.result.then(resolved, rejected),
    async *[Symbol.asyncIterator]() {
      try {
        yield* queue.pieces();
      } finally {
        work.abandon();
      }
    },
  };
}

function checkMaxTokens(maxTokens: number | undefined): void {
  if (maxTokens === undefined || (Number.isSafeInteger(maxTokens) && maxTokens >= 0)) return;
  throw new RangeError(
    `Cannot generate as maxTokens must be a whole number of 0 or more: current value is ${maxTokens}`,
  );
}

/** Every id must have a row in the embedding, and at least one token must fit after the prompt. */
export function checkPrompt(
  { vocabSize, contextSize }: { vocabSize: number; contextSize: number },
  promptIds: readonly number[],
): void {
  if (promptIds.length === 0) {
    throw new RangeError("Cannot run an empty prompt: give at least one token");
  }
  const bad = promptIds.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad !== undefined) {
    throw new RangeError(
      `Cannot run token id ${bad} as the vocabulary has ids 0 to ${vocabSize - 1}`,
    );
  }
  if (promptIds.length >= contextSize) {
    throw new RangeError(
      `Cannot run a prompt of ${promptIds.length} tokens as the context holds ${contextSize} with the answer` +
        `: shorten the prompt or raise --ctx`,
    );
  }
}
