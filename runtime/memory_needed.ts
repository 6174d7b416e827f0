/** What running a model takes, before anything is compiled, packed or loaded. */
import { KV_BLOCK_POSITIONS, kvCacheBytes } from "../codegen/attention/cache.ts";
import { activeWeights, type KvType, type ModelSpec } from "../codegen/model_spec.ts";
import { type PackedPlan, planOf } from "../codegen/plan.ts";
import { stepBufferBytes } from "../codegen/step/memory.ts";
import { defaultThreads, detectCpu } from "../kernels/cpu.ts";
import { likelyKernel } from "../kernels/selection.ts";
import type { ModelConfig } from "./config.ts";
import { defaultContextSize } from "./context_size.ts";
import { DEFAULT_KV_TYPE } from "./kv_cache.ts";
import { likelyStepTokens } from "./step_pace.ts";

/** Tokens a step unless the caller says otherwise: enough for the kernels' full speed. */
export const DEFAULT_BATCH_TOKENS = 256;

/** Deno itself with its heap, as a process of the story model has it resident: 90 to 97 MB. */
const RUNTIME_BYTES = 93e6;
/** What loading a tokenizer takes of a token: 11 to 14 MB of 32,000, 41 to 46 MB of 262,144. */
const BYTES_PER_TOKEN = 180;
/** Linux keeps files in pages of up to so much, and maps all of one when a byte of it is read. */
const PAGE_BYTES = 2 << 20;
/**
 * Places all over the embedding that a text's tokens come to, by the square root of their number: as
 * English prose and Markdown touch pages of Llama 3's embedding, 128 to 8,192 tokens of them. Most tokens
 * are repeated, or lie together at its beginning.
 */
const PLACES_PER_ROOT = 4.5;

/** What a user may choose, with what is chosen otherwise. */
export interface MemoryOptions {
  /** Tokens; default: what `loadModel` takes. */
  contextSize?: number;
  /** Default: f32. */
  kvType?: KvType;
  /** Default: this machine's. */
  threads?: number;
  /** Tokens of the largest step; default: what this machine probably comes to, as pages are taken by use. */
  maxBatchTokens?: number;
  /** Name of the layout of weights that are packed already. */
  layout?: string;
}

/** Bytes that are resident once all weights have been read and the context is full. */
export interface MemoryNeeded {
  /** Tokens of all sequences together. */
  contextSize: number;
  /** How keys and values are kept. */
  kvType: KvType;
  /** Native threads. */
  threads: number;
  /** Mapped from a file: the system can drop them and read them again. */
  weightBytes: number;
  /** Of these, rows of an embedding that is no head: those that no token of the context needs. */
  unreadBytes: number;
  /** Keys and values of a full context, in whole parts of 256 tokens. */
  kvBytes: number;
  /** A step's activations, RoPE's tables and scratch. */
  bufferBytes: number;
  /** Deno, its heap and the tokenizer: an estimate, while the others are exact. */
  runtimeBytes: number;
  /** All of it. */
  totalBytes: number;
}

/** As this machine would run it, by the kernels that it has by default or was tuned to. */
export function memoryNeeded(
  config: Pick<ModelConfig, "spec" | "maxPositionEmbeddings">,
  options: MemoryOptions = {},
): MemoryNeeded {
  const { spec } = config;
  const cpu = detectCpu();
  const { kvType = DEFAULT_KV_TYPE, threads = defaultThreads(cpu), layout } = options;
  const { contextSize = defaultContextSize(config, kvType) } = options;
  const stepTokens = likelyStepTokens(activeWeights(spec), threads);
  const { maxBatchTokens = Math.min(stepTokens, DEFAULT_BATCH_TOKENS, contextSize) } = options;
  const kernel = likelyKernel(cpu, { spec, layout, threads });
  const plan = planOf(spec, kernel.scheme.layout);
  const weightBytes = plan.totalBytes;
  const unreadBytes = unreadEmbeddingBytes(spec, plan, contextSize);
  const kvBytes = kvCacheBytes(spec, kvType, Math.ceil(contextSize / KV_BLOCK_POSITIONS));
  const sizes = { threads, maxBatchTokens, contextSize };
  const bufferBytes = stepBufferBytes(spec, { kernel, kvType }, sizes);
  const runtimeBytes = RUNTIME_BYTES + spec.vocabSize * BYTES_PER_TOKEN;
  const totalBytes = weightBytes - unreadBytes + kvBytes + bufferBytes + runtimeBytes;
  return {
    ...{ contextSize, kvType, threads },
    ...{ weightBytes, unreadBytes, kvBytes, bufferBytes, runtimeBytes, totalBytes },
  };
}

/** Bytes of an embedding that a text of so many tokens leaves on the disk. A tied one is read as the head. */
export function unreadEmbeddingBytes(
  spec: ModelSpec,
  { globals }: Pick<PackedPlan, "globals">,
  tokens: number,
): number {
  if (spec.tieWordEmbeddings) return 0;
  const bytes = globals.filter(({ name }) => /^embedding(_|$)/.test(name))
    .reduce((sum, region) => sum + region.bytes, 0);
  const missed = Math.max(0, 1 - PAGE_BYTES / bytes);
  return Math.round(bytes * missed ** (PLACES_PER_ROOT * Math.sqrt(tokens)));
}
