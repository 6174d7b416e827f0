/** How long a context is where nobody says so. */
import { KV_BLOCK_POSITIONS, kvBlockBytes } from "../codegen/attention/cache.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";
import { MAX_POSITIONS } from "./kv_cache.ts";
import { availableMemoryBytes } from "./memory.ts";

/** Memory that the KV cache may take without being asked for: longer contexts are the caller's wish. */
export const DEFAULT_KV_BYTES = 2 ** 31;

/** The model's own length, as far as 2 GiB and half of what is free go. */
export function defaultContextSize(
  { spec, maxPositionEmbeddings }: { spec: ModelSpec; maxPositionEmbeddings: number },
  kvType: KvType,
): number {
  const bytes = Math.min(DEFAULT_KV_BYTES, (availableMemoryBytes() ?? Infinity) / 2);
  const affordable = Math.floor(bytes / kvBlockBytes(spec, kvType)) * KV_BLOCK_POSITIONS;
  return Math.max(
    KV_BLOCK_POSITIONS,
    Math.min(maxPositionEmbeddings, affordable, MAX_POSITIONS),
  );
}
