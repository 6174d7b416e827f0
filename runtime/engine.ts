import process from "node:process";
import { KV_BLOCK_POSITIONS, kvCacheBytes } from "../codegen/attention/cache.ts";
import type { KernelChoice } from "../codegen/isa.ts";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import { headOf, planOf } from "../codegen/plan.ts";
import { openKernels } from "../kernels/choose.ts";
import { defaultThreads } from "../kernels/cpu.ts";
import {
  type ChatTemplate,
  encodeChat,
  encodeChatInTurns,
  loadChatTemplate,
} from "./chat_template.ts";
import { type Checkpoint, headerIdentity, openCheckpoint } from "./checkpoint.ts";
import { openWeights } from "./checkpoint_weights.ts";
import { type ModelConfig, readModelConfig } from "./config.ts";
import { embeddedModelFolder } from "./embedded.ts";
import { EmbeddingWork } from "./embedding.ts";
import { promptOf, readPrompts } from "./embedding_prompts.ts";
import type { Executor } from "./executor.ts";
import { readGenerationDefaults } from "./generation_config.ts";
import { checkPrompt, type GenerationContext, startGeneration } from "./generation.ts";
import type { Grammar, GrammarSource } from "./grammar/types.ts";
import { GrammarCache } from "./grammar_cache.ts";
import { LogitsWork } from "./logits.ts";
import { DEFAULT_KV_TYPE, kvBytesPerPosition, MAX_POSITIONS } from "./kv_cache.ts";
import { DEFAULT_KV_BYTES, defaultContextSize } from "./context_size.ts";
import { availableMemoryBytes, checkMemory, gigabytes } from "./memory.ts";
import { DEFAULT_BATCH_TOKENS, type MemoryNeeded, memoryNeeded } from "./memory_needed.ts";
import { loadWeights, NativeExecutor } from "./native_executor.ts";
import { ensurePackedFile, type PackedFile, readPackedData } from "./packed_file.ts";
import { ReferenceExecutor } from "./reference_executor.ts";
import { joinedTables, type RopeTables, ropeTables } from "./rope.ts";
import { DEFAULT_MAX_SEQUENCES, Scheduler } from "./scheduler.ts";
import { openPacker, referencePacker, type TernaryPacker } from "./ternary_packer.ts";
import {
  checkTokenizerFits,
  type EncodeOptions,
  readTokenizer,
  type StreamingTokenizer,
} from "./tokenizer.ts";
import type {
  ChatMessage,
  ChatOptions,
  Embedding,
  EmbeddingDefaults,
  EmbeddingPrompts,
  EmbedOptions,
  EngineStatus,
  GenerateOptions,
  Generation,
  GenerationDefaults,
  HeadChoice,
  LoadOptions,
  LogitPositions,
  Model,
  Pooling,
  PositionLogits,
  Tokenizer,
} from "./types.ts";

const LIMITS = {
  threads: 1024,
  contextSize: MAX_POSITIONS,
  maxBatchTokens: 8192,
  cacheTokens: 2 ** 31 - KV_BLOCK_POSITIONS,
  maxSequences: 4096,
  maxWaiting: 2 ** 31 - 1,
};
/** Waiting may be forbidden. */
const LEAST = { maxWaiting: 0 } as Partial<Record<string, number>>;

/**
 * Opens a model: reads its folder, packs its weights on first use, compiles and proves kernels on
 * first use, and starts the engine.
 *
 * @param path A model folder or .safetensors file; by default the embedded story model.
 * @throws {RangeError} An option out of range.
 * @throws {CheckpointError | UnsupportedModelError | NotTernaryError} A model that can't be run.
 * @throws {CacheError | ToolchainError} A machine that can't prepare it.
 */
export async function loadModel(path?: string, options: LoadOptions = {}): Promise<Model> {
  checkOptions(options);
  const startedMs = performance.now();
  const { i2sLayout } = options;
  await using checkpoint = await openCheckpoint(path ?? embeddedModelFolder(), { i2sLayout });
  const config = await readModelConfig(checkpoint, { quantize: options.quantize });
  if (options.task === "generate") checkGenerates(config);
  const tokenizer = await readTokenizer(checkpoint.companions);
  checkTokenizerFits(tokenizer, config.spec.vocabSize);
  const defaults = await readGenerationDefaults(checkpoint.companions, config, tokenizer);
  const template = await loadChatTemplate(checkpoint.companions);
  const prompts = await readPrompts(checkpoint.companions);
  const contextSize = options.contextSize ??
    defaultContextSize(config, options.kvType ?? DEFAULT_KV_TYPE);
  const started = await startExecutor({ checkpoint, config, contextSize }, options);
  const { executor, compileMs, maxBatchTokens, kvBlocks } = started;
  const { vocabSize } = config.spec;
  const { maxSequences, maxWaiting } = options;
  const limits = { maxBatchTokens, maxSequences, maxWaiting };
  const scheduler = new Scheduler({ executor, vocabSize, kvBlocks, ...limits });
  const loadMs = performance.now() - startedMs - compileMs;
  return new LoadedModel({
    config,
    tokenizer,
    defaults,
    template,
    prompts,
    ...started,
    scheduler,
    contextSize,
    head: options.head ?? "auto",
    loadMs,
  });
}

/** @throws {RangeError} If the model was made for embeddings: what it would write means nothing. */
function checkGenerates({ name, task }: Pick<ModelConfig, "name" | "task">): void {
  if (task === "generate") return;
  throw new RangeError(
    `Cannot generate with ${name} as it is an embedding model: ask it for vectors with ` +
      "embed or /v1/embeddings, or give a generation model",
  );
}

function checkOptions(
  { scheme, kernels, signal, ...options }: LoadOptions,
): void {
  signal?.throwIfAborted();
  if (scheme !== undefined && kernels === "reference") {
    throw new RangeError(`Cannot use scheme ${JSON.stringify(scheme)} with the reference kernels`);
  }
  for (const [name, most] of Object.entries(LIMITS)) {
    const value = options[name as keyof typeof LIMITS];
    if (value === "auto") continue;
    const least = LEAST[name] ?? 1;
    if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) {
      continue;
    }
    throw new RangeError(
      `Cannot load a model with ${name} ${value}: give a whole number from ${least} to ${most}`,
    );
  }
}

interface ExecutorInput {
  checkpoint: Checkpoint;
  config: ModelConfig;
  contextSize: number;
}

interface StartedExecutor {
  executor: Executor;
  scheme: string;
  kernelReason: string;
  compileMs: number;
  maxBatchTokens: number;
  kvBlocks: number;
}

async function startExecutor(input: ExecutorInput, options: LoadOptions): Promise<StartedExecutor> {
  const { spec } = input.config;
  const maxBatchTokens = Math.min(
    options.maxBatchTokens ?? DEFAULT_BATCH_TOKENS,
    input.contextSize,
  );
  const kvBlocks = Math.ceil(cacheTokensOf(input, options) / KV_BLOCK_POSITIONS);
  const kvType = options.kvType ?? DEFAULT_KV_TYPE;
  checkFits(input, options, { kvBlocks, maxBatchTokens });
  const choice = options.kernels ?? "auto";
  const rope = ropeTables(input.config, input.contextSize);
  if (choice === "reference") {
    const packer = () => referencePacker(ROWS32);
    const packed = await readPackedData(await packedFileOf(input, ROWS32, packer, options));
    const executor = new ReferenceExecutor(spec, packed, rope, kvType);
    const names = { scheme: "reference", kernelReason: "asked for" };
    return { executor, ...names, compileMs: 0, maxBatchTokens, kvBlocks };
  }
  const sizes = { maxBatchTokens, kvBlocks, contextSize: input.contextSize };
  const native = await startNative(input, { choice, kvType, rope, sizes }, options);
  return { ...native, maxBatchTokens, kvBlocks };
}

function checkFits(
  { checkpoint, config, contextSize }: ExecutorInput,
  options: LoadOptions,
  { kvBlocks, maxBatchTokens }: { kvBlocks: number; maxBatchTokens: number },
): void {
  const { kvType = DEFAULT_KV_TYPE, threads, kernels } = options;
  const layout = checkpoint.packed?.layout.name;
  const sizes = { contextSize, kvType, threads, maxBatchTokens, layout };
  const needed = memoryNeeded(config, sizes);
  const isReference = kernels === "reference";
  checkMemory({
    weightBytes: isReference ? planOf(config.spec, ROWS32).totalBytes : unmappedBytes(needed),
    cacheBytes: kvCacheBytes(config.spec, kvType, kvBlocks),
    cacheTokens: kvBlocks * KV_BLOCK_POSITIONS,
    bufferBytes: isReference ? 0 : needed.bufferBytes,
  });
  if (!isReference) warnOfDisk(needed.weightBytes, options);
}

/** Windows has no map of ours: weights are read into memory. */
function unmappedBytes({ weightBytes }: MemoryNeeded): number {
  return process.platform === "win32" ? weightBytes : 0;
}

/** Weights are mapped: what does not fit is read again for each token. */
function warnOfDisk(weightBytes: number, { onProgress }: LoadOptions): void {
  const available = availableMemoryBytes();
  if (available === null || weightBytes <= available) return;
  onProgress?.({
    phase: "load",
    message: `The weights take ${gigabytes(weightBytes)} and ${gigabytes(available)} are free: ` +
      "they are read from the disk again and again, which is slow",
  });
}

/** Never less than one sequence may have. */
function cacheTokensOf(
  { config, contextSize }: ExecutorInput,
  { cacheTokens = 0, kvType = DEFAULT_KV_TYPE, maxSequences = DEFAULT_MAX_SEQUENCES }: LoadOptions,
): number {
  if (cacheTokens !== "auto") return Math.max(cacheTokens, contextSize);
  const bytes = Math.min(DEFAULT_KV_BYTES, (availableMemoryBytes() ?? Infinity) / 2);
  const affordable = Math.floor(bytes / kvBytesPerPosition(config.spec, kvType));
  return Math.max(contextSize, Math.min(contextSize * maxSequences, affordable));
}

interface NativeInput {
  choice: Exclude<KernelChoice, "reference">;
  kvType: KvType;
  rope: RopeTables;
  sizes: { maxBatchTokens: number; kvBlocks: number; contextSize: number };
}

async function startNative(
  input: ExecutorInput,
  { choice, kvType, rope, sizes }: NativeInput,
  options: LoadOptions,
): Promise<Omit<StartedExecutor, "maxBatchTokens" | "kvBlocks">> {
  const { name: model, spec } = input.config;
  const layout = input.checkpoint.packed?.layout.name;
  const of = { ...options, model, spec, kvType, choice, layout };
  const opened = await openKernels(of, options);
  try {
    const { layout } = opened.kernel.scheme;
    const threads = options.threads ?? defaultThreads(opened.cpu);
    const packer = () => openPacker(opened.packerPath, layout, threads);
    const weights = await loadWeights(
      opened.library,
      await packedFileOf(input, layout, packer, options),
    );
    const executor = new NativeExecutor({
      library: opened.library,
      kernels: opened.kernel.isa,
      head: headOf(spec),
      threads,
      weights,
      vocabSize: spec.vocabSize,
      hiddenSize: spec.hiddenSize,
      rope: joinedTables(rope),
      ...sizes,
    });
    const { kernel: { scheme: { name: scheme } }, reason: kernelReason, compileMs } = opened;
    return { executor, scheme, kernelReason, compileMs };
  } catch (error) {
    opened.library.close();
    throw error;
  }
}

function packedFileOf(
  { checkpoint, config }: ExecutorInput,
  layout: TernaryLayout,
  packer: () => TernaryPacker,
  options: LoadOptions,
): Promise<PackedFile> {
  const { packed } = checkpoint;
  if (packed?.layout.name === layout.name) return Promise.resolve(packed.file);
  const identity = `${headerIdentity(checkpoint)} ${options.quantize ?? ""}`;
  const { files, folder } = checkpoint;
  const origin = `${files.length === 1 ? files[0].path : folder} ${options.quantize ?? ""}`;
  const weights = () => openWeights(config, checkpoint);
  return ensurePackedFile(
    { spec: config.spec, layout, origin, identity, weights, packer },
    options,
  );
}

interface Loaded {
  config: ModelConfig;
  tokenizer: StreamingTokenizer;
  defaults: GenerationDefaults;
  template: ChatTemplate | null;
  prompts: EmbeddingPrompts;
  executor: Executor;
  scheme: string;
  kernelReason: string;
  scheduler: Scheduler;
  contextSize: number;
  head: HeadChoice;
  compileMs: number;
  loadMs: number;
}

type ApplyOptions = Pick<ChatOptions, "tools" | "templateVariables"> & {
  addGenerationPrompt?: boolean;
};

class LoadedModel implements Model {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly contextSize: number;
  readonly threads: number;
  readonly kernels: string;
  readonly scheme: string;
  readonly kernelReason: string;
  readonly tokenizer: Tokenizer;
  readonly generationDefaults: GenerationDefaults;
  readonly embeddingDefaults: EmbeddingDefaults;
  readonly embeddingPrompts: EmbeddingPrompts;
  readonly #loaded: Loaded;
  readonly #context: GenerationContext;
  readonly #grammars: GrammarCache;
  #closed: Promise<void> | null = null;

  constructor(loaded: Loaded) {
    const { config, tokenizer, defaults, executor, scheduler, contextSize } = loaded;
    this.#loaded = loaded;
    this.name = config.name;
    this.spec = config.spec;
    this.contextSize = contextSize;
    this.threads = executor.threads;
    this.kernels = executor.kernels;
    this.scheme = loaded.scheme;
    this.kernelReason = loaded.kernelReason;
    this.tokenizer = tokenizer;
    this.generationDefaults = defaults;
    this.embeddingDefaults = config.embedding;
    this.embeddingPrompts = loaded.prompts;
    const { spec: { vocabSize } } = config;
    const { eosTokenIds } = defaults;
    this.#grammars = new GrammarCache({ tokenizer, vocabSize, eosTokenIds });
    this.#context = {
      scheduler,
      tokenizer,
      vocabSize,
      contextSize,
      eosTokenIds,
      head: loaded.head === "full" ? "full" : executor.head,
      compileMs: loaded.compileMs,
      loadMs: loaded.loadMs,
    };
  }

  get task(): "generate" | "embed" {
    return this.#loaded.config.task;
  }

  generate(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    checkGenerates(this);
    const ids = typeof prompt === "string"
      ? this.tokenizer.encode(prompt, { addSpecialTokens: options.addSpecialTokens })
      : prompt;
    return startGeneration(this.#context, ids, options);
  }

  get chatTemplate(): string | null {
    return this.#loaded.template?.source ?? null;
  }

  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): Generation {
    checkGenerates(this);
    const prompt = this.applyChatTemplate(messages, options);
    return this.generate(encodeChat(this.#loaded.tokenizer, prompt), options);
  }

  encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    return this.#loaded.tokenizer.encodeInTurns(text, options);
  }

  encodeChat(rendered: string): Promise<number[]> {
    return encodeChatInTurns(this.#loaded.tokenizer, rendered);
  }

  grammar(source: GrammarSource): Promise<Grammar> {
    return this.#grammars.compiled(source);
  }

  /**
   * Those whose last token says it all look at the text from a token after it: the tokenizer's own, or
   * an end-of-text token where it adds none.
   */
  async #embeddingIds(text: string, pooling: Pooling): Promise<readonly number[]> {
    const ids = await this.encode(text);
    const { eosTokenIds } = this.generationDefaults;
    const isWhole = this.task !== "embed" || pooling !== "last" || eosTokenIds.length === 0 ||
      this.#loaded.tokenizer.around.after.length > 0 || eosTokenIds.includes(ids.at(-1)!);
    return isWhole ? ids : [...ids, eosTokenIds[0]];
  }

  /** Tokens of a prompt by itself, less those that end texts. */
  async #promptTokens(prompt: string): Promise<number> {
    if (prompt === "") return 0;
    return (await this.encode(prompt)).length - this.#loaded.tokenizer.around.after.length;
  }

  async embed(
    input: string | readonly number[],
    options: EmbedOptions = {},
  ): Promise<Embedding> {
    const { spec, contextSize } = this;
    const { pooling, normalize } = this.embeddingDefaults;
    const how = {
      pooling: options.pooling ?? pooling,
      normalize: options.normalize ?? normalize,
    };
    const prompt = typeof input === "string" ? promptOf(this.embeddingPrompts, options) : "";
    const ids = typeof input === "string"
      ? await this.#embeddingIds(prompt + input, how.pooling)
      : input;
    // No token has to fit after these.
    checkPrompt({ vocabSize: spec.vocabSize, contextSize: contextSize + 1 }, ids);
    const skipped = this.embeddingPrompts.arePooled ? 0 : await this.#promptTokens(prompt);
    const work = new EmbeddingWork(ids, { ...how, skipped }, options);
    this.#loaded.scheduler.add(work);
    return await work.result;
  }

  status(): EngineStatus {
    return this.#loaded.scheduler.status;
  }

  applyChatTemplate(
    messages: readonly ChatMessage[],
    { addGenerationPrompt, tools, templateVariables }: ApplyOptions = {},
  ): string {
    const { template } = this.#loaded;
    if (template === null) {
      throw new TypeError(
        `Cannot chat with ${this.name} as it has no chat template: use generate`,
      );
    }
    return template.render(messages, { addGenerationPrompt, tools, variables: templateVariables });
  }

  async *logits(
    ids: readonly number[],
    options: { positions?: LogitPositions; signal?: AbortSignal } = {},
  ): AsyncGenerator<PositionLogits> {
    const { spec, contextSize } = this;
    // No token has to fit after these.
    checkPrompt({ vocabSize: spec.vocabSize, contextSize: contextSize + 1 }, ids);
    const work = new LogitsWork(ids, options.positions ?? "last", options.signal);
    this.#loaded.scheduler.add(work);
    yield* work.results();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.#loaded.scheduler.close();
    await this.#loaded.executor[Symbol.asyncDispose]();
  }
}
