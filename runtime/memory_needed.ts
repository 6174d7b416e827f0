/** What running a model takes, before anything is compiled, packed or loaded. */
import { KV_BLOCK_POSITIONS, kvBlockBytes } from "../codegen/attention/cache.ts";
import type { KvType } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import { stepBufferBytes } from "../codegen/step/template.ts";
import { defaultFor } from "../kernels/autotune.ts";
import { defaultThreads, detectCpu, supportedIsas } from "../kernels/cpu.ts";
import type { ModelConfig } from "./config.ts";
import { defaultContextSize } from "./context_size.ts";
import { DEFAULT_KV_TYPE } from "./kv_cache.ts";

/** Tokens a step unless the caller says otherwise: enough for the kernels' full speed. */
export const DEFAULT_BATCH_TOKENS = 256;

/** Deno itself with its heap, as a process of the story model has it resident: 85 to 95 MB. */
const RUNTIME_BYTES = 90e6;
/** What a tokenizer keeps of a token: words and merges of Llama 3's 128,256 take some 50 MB. */
const BYTES_PER_TOKEN = 400;

/** What a user may choose, with what is chosen otherwise. */
export interface MemoryOptions {
  /** Tokens; default: what `loadModel` takes. */
  contextSize?: number;
  /** Default: f32. */
  kvType?: KvType;
  /** Default: this machine's. */
  threads?: number;
  /** Most tokens of a step. */
  maxBatchTokens?: number;
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
  /** Keys and values of a full context. */
  kvBytes: number;
  /** A step's activations, RoPE's tables and scratch. */
  bufferBytes: number;
  /** Deno, its heap and the tokenizer: an estimate, while the others are exact. */
  runtimeBytes: number;
  /** All of it. */
  totalBytes: number;
}

/** As this machine would run it, by the kernels that it has by default. */
export function memoryNeeded(config: ModelConfig, options: MemoryOptions = {}): MemoryNeeded {
  const { spec } = config;
  const cpu = detectCpu();
  const { kvType = DEFAULT_KV_TYPE, threads = defaultThreads(cpu) } = options;
  const { contextSize = defaultContextSize(config, kvType) } = options;
  const { maxBatchTokens = Math.min(DEFAULT_BATCH_TOKENS, contextSize) } = options;
  const kernel = defaultFor(supportedIsas(cpu)[0], cpu, spec.groups);
  const weightBytes = planOf(spec, kernel.scheme.layout).totalBytes;
  const kvBytes = Math.ceil(contextSize / KV_BLOCK_POSITIONS) * kvBlockBytes(spec, kvType);
  const sizes = { threads, maxBatchTokens, contextSize };
  const bufferBytes = stepBufferBytes(spec, { kernel, kvType }, sizes);
  const runtimeBytes = RUNTIME_BYTES + spec.vocabSize * BYTES_PER_TOKEN;
  const totalBytes = weightBytes + kvBytes + bufferBytes + runtimeBytes;
  return {
    ...{ contextSize, kvType, threads },
    ...{ weightBytes, kvBytes, bufferBytes, runtimeBytes, totalBytes },
  };
}
