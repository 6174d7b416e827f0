/**
 * A model for the commands' tests: bytes are tokens, and after a letter the next one of the
 * alphabet is likely. It keeps all promises of `Model` and needs no kernels.
 */
import type { ModelSpec } from "../codegen/model_spec.ts";
import { createSampler } from "../runtime/sampler.ts";
import { promptOf } from "../runtime/embedding_prompts.ts";
import type {
  ChatMessage,
  Embedding,
  EmbeddingPrompts,
  EmbedOptions,
  EngineStatus,
  GenerateOptions,
  Generation,
  GenerationDefaults,
  GenerationResult,
  HeadKind,
  LoadOptions,
  LogitPositions,
  Model,
  Piece,
  PositionLogits,
  Tokenizer,
} from "../runtime/types.ts";

export const BOS = 256;
export const EOS = 257;
const VOCAB_SIZE = 258;
const SPECIAL: Record<number, string> = { [BOS]: "<bos>", [EOS]: "<eos>" };

class ByteTokenizer implements Tokenizer {
  readonly vocabSize = VOCAB_SIZE;

  encode(text: string, { addSpecialTokens = true, parseSpecial = true } = {}): number[] {
    const parts = parseSpecial ? text.split(/(<bos>|<eos>)/) : [text];
    const ids = parts.flatMap((part) => {
      const special = parseSpecial ? this.tokenId(part) : null;
      return special !== null && special >= BOS ? [special] : [...new TextEncoder().encode(part)];
    });
    return addSpecialTokens ? [BOS, ...ids] : ids;
  }

  decode(ids: readonly number[], { skipSpecialTokens = false } = {}): string {
    const kept = ids.filter((id) => !(skipSpecialTokens && this.isSpecial(id)));
    const bytes = kept.flatMap((id) => [...this.tokenBytes(id)]);
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }

  tokenText(id: number): string | null {
    return id in SPECIAL ? SPECIAL[id] : id < BOS ? String.fromCharCode(id) : null;
  }

  tokenId(token: string): number | null {
    const special = Object.entries(SPECIAL).find(([, text]) => text === token);
    if (special !== undefined) return Number(special[0]);
    return token.length === 1 && token.charCodeAt(0) < BOS ? token.charCodeAt(0) : null;
  }

  isSpecial(id: number): boolean {
    return id >= BOS;
  }

  tokenBytes(id: number): Uint8Array {
    return this.isSpecial(id) ? new TextEncoder().encode(SPECIAL[id]) : Uint8Array.of(id);
  }
}

const SPEC: ModelSpec = {
  hiddenSize: 64,
  intermediateSize: 64,
  numHiddenLayers: 1,
  numAttentionHeads: 1,
  numKeyValueHeads: 1,
  headDim: 64,
  vocabSize: VOCAB_SIZE,
  rmsNormEps: 1e-5,
  hiddenAct: "relu2",
  subNorms: false,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: true,
  embeddingType: "f32",
  headType: "f32",
};

/** After z comes the end of text; after anything that is no letter, an a. */
function nextToken(id: number): number {
  const letter = String.fromCharCode(id);
  if (letter === "z") return EOS;
  return letter >= "a" && letter < "z" ? id + 1 : "a".charCodeAt(0);
}

function logitsAfter(id: number): Float32Array {
  const logits = Float32Array.from({ length: VOCAB_SIZE }, (_, other) => -6 - other / 100);
  logits[nextToken(id)] = 1.1;
  logits["!".charCodeAt(0)] = -1.3;
  return logits;
}

function isWithin(position: number, { from, to }: { from: number; to: number }): boolean {
  return position >= from && position < to;
}

export interface FakeModelOptions {
  hasTemplate?: boolean;
  /** Between tokens, so that there is time for a Ctrl-C. */
  tokenMs?: number;
  defaults?: Partial<GenerationDefaults>;
  /** What results say of drafts and the head. */
  draftTokens?: number;
  acceptedTokens?: number;
  head?: HeadKind;
}

export class FakeModel implements Model {
  readonly name = "fake";
  readonly task = "generate";
  readonly spec = SPEC;
  readonly contextSize: number;
  readonly threads: number;
  readonly kernels: string;
  readonly scheme: string;
  readonly kernelReason = "default: not tuned";
  readonly tokenizer = new ByteTokenizer();
  readonly generationDefaults: GenerationDefaults;
  readonly embeddingDefaults = { pooling: "mean", normalize: true } as const;
  readonly embeddingPrompts = {
    texts: { query: "find: ", document: "" },
    defaultName: null,
    arePooled: true,
  } satisfies EmbeddingPrompts;
  isDisposed = false;
  /** What `generate` and `chat` were last given. */
  lastOptions: GenerateOptions = {};

  constructor(private readonly options: FakeModelOptions, load: LoadOptions) {
    this.contextSize = load.contextSize ?? 256;
    this.threads = load.threads ?? 2;
    this.kernels = load.kernels ?? "portable";
    this.scheme = load.scheme ?? "multiply";
    this.generationDefaults = {
      eosTokenIds: [EOS],
      bosTokenId: BOS,
      padTokenId: null,
      doSample: false,
      ...options.defaults,
    };
  }

  generate(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    this.lastOptions = options;
    const ids = typeof prompt === "string"
      ? this.tokenizer.encode(prompt, { addSpecialTokens: options.addSpecialTokens })
      : [...prompt];
    if (ids.length === 0) throw new RangeError("Cannot run an empty prompt");
    if (ids.length >= this.contextSize) {
      throw new RangeError(
        `Cannot run ${ids.length} tokens: the context holds ${this.contextSize}`,
      );
    }
    return new FakeGeneration(this, ids, options, this.options);
  }

  chat(messages: readonly ChatMessage[], options?: GenerateOptions): Generation {
    const prompt = this.applyChatTemplate(messages, { addGenerationPrompt: true });
    return this.generate(prompt, options);
  }

  applyChatTemplate(
    messages: readonly ChatMessage[],
    { addGenerationPrompt = false } = {},
  ): string {
    if (!this.options.hasTemplate) throw new TypeError("The model has no chat template");
    const turns = messages.map(({ role, content }) => `[${role}]${content}`).join("");
    return addGenerationPrompt ? `${turns}[assistant]` : turns;
  }

  get chatTemplate(): string | null {
    return this.options.hasTemplate ? "[{{ role }}]{{ content }}" : null;
  }

  encode(text: string): Promise<number[]> {
    return Promise.resolve(this.tokenizer.encode(text));
  }

  encodeChat(rendered: string): Promise<number[]> {
    return this.encode(rendered);
  }

  /** Commands use none of the following: the server does, and it is tested with real models. */
  grammar(): never {
    throw new Error("The fake model has no grammars");
  }

  embed(input: string, options: EmbedOptions = {}): Promise<Embedding> {
    const bytes = new TextEncoder().encode(promptOf(this.embeddingPrompts, options) + input);
    return Promise.resolve({
      values: Float32Array.of(bytes.length, bytes[0] / 256),
      promptTokens: bytes.length,
    });
  }

  /** Its generations do not share anything. */
  status(): EngineStatus {
    return {
      slots: [],
      maxSequences: 64,
      waiting: 0,
      kvBlocks: { total: 0, used: 0, cached: 0, free: 0, positions: 16 },
      totals: {
        steps: 0,
        stepMs: 0,
        prefillTokens: 0,
        cachedTokens: 0,
        decodeTokens: 0,
        preemptions: 0,
      },
    };
  }

  async *logits(
    ids: readonly number[],
    { positions = "all", signal }: { positions?: LogitPositions; signal?: AbortSignal } = {},
  ): AsyncGenerator<PositionLogits> {
    for (let position = 0; position < ids.length; position++) {
      if (positions === "last" && position < ids.length - 1) continue;
      if (typeof positions === "object" && !isWithin(position, positions)) continue;
      await Promise.resolve();
      signal?.throwIfAborted();
      yield { position, logits: logitsAfter(ids[position]) };
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.isDisposed = true;
    return Promise.resolve();
  }
}

class FakeGeneration implements Generation {
  readonly #pieces: Piece[] = [];
  #result: Promise<GenerationResult> | null = null;

  constructor(
    private readonly model: FakeModel,
    private readonly prompt: number[],
    private readonly options: GenerateOptions,
    private readonly fake: FakeModelOptions,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<Piece> {
    let isDone = false;
    const result = this.#run().finally(() => isDone = true);
    while (!isDone || this.#pieces.length > 0) {
      if (this.#pieces.length > 0) yield this.#pieces.shift()!;
      else await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await result;
  }

  then<A = GenerationResult, B = never>(
    resolved?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): PromiseLike<A | B> {
    return this.#run().then(resolved, rejected);
  }

  #run(): Promise<GenerationResult> {
    return this.#result ??= this.#generate();
  }

  async #generate(): Promise<GenerationResult> {
    const { signal, maxTokens, ignoreEos, stop = [] } = this.options;
    const sampler = createSampler(this.options, VOCAB_SIZE);
    const history = [...this.prompt];
    const room = this.model.contextSize - history.length;
    const most = Math.min(maxTokens ?? room, room);
    const tokenIds: number[] = [];
    const { tokenMs = 0 } = this.fake;
    const result = (finishReason: GenerationResult["finishReason"], text: string) =>
      resultOf(this.prompt.length, tokenIds, finishReason, text, this.fake);
    let text = "";
    while (tokenIds.length < most) {
      if (signal?.aborted) return result("abort", text);
      const id = sampler.sample(logitsAfter(history.at(-1)!), history);
      history.push(id);
      tokenIds.push(id);
      if (id === EOS && !ignoreEos) return result("stop", text);
      const piece = this.model.tokenizer.decode([id], { skipSpecialTokens: true });
      const stopAt = stop.map((end) => (text + piece).indexOf(end)).find((at) => at >= 0);
      if (stopAt !== undefined) return result("stop", (text + piece).slice(0, stopAt));
      text += piece;
      this.#pieces.push({ text: piece, tokenIds: [id] });
      if (tokenMs > 0) await new Promise((resolve) => setTimeout(resolve, tokenMs));
    }
    return result("length", text);
  }
}

function resultOf(
  promptTokens: number,
  tokenIds: number[],
  finishReason: GenerationResult["finishReason"],
  text: string,
  { head = "full", draftTokens = 0, acceptedTokens = 0 }: FakeModelOptions,
): GenerationResult {
  return {
    promptTokens,
    cachedTokens: 0,
    completionTokens: tokenIds.length,
    tokenIds: [...tokenIds],
    text,
    finishReason,
    stopString: null,
    logprobs: null,
    head,
    timings: {
      compileMs: 0,
      loadMs: 1,
      queueMs: 0,
      prefillMs: 20,
      decodeMs: 100,
      timeToFirstTokenMs: 20,
      prefillTokensPerSecond: promptTokens / 0.02,
      decodeTokensPerSecond: tokenIds.length / 0.1,
      draftTokens,
      acceptedTokens,
    },
  };
}
