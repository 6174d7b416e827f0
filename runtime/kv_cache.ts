import { KV_BLOCK_POSITIONS, kvBlockBytes } from "../codegen/attention/cache.ts";
import type { KvType, ModelSpec } from "../codegen/model_spec.ts";

/** What a cache keeps keys and values as unless the caller says otherwise. */
export const DEFAULT_KV_TYPE: KvType = "f32";

/** As far as RoPE's tables go. */
export const MAX_POSITIONS = 1 << 20;

/** Bytes that the cache keeps of one position, all layers together. */
export function kvBytesPerPosition(spec: ModelSpec, kvType: KvType): number {
  return kvBlockBytes(spec, kvType) / KV_BLOCK_POSITIONS;
}
