import type { KvType, ModelSpec } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { KV_LIMITS } from "./reference.ts";

/** Positions of one KV block: the unit in which memory is given to sequences, and a vector's lanes. */
export const KV_BLOCK_POSITIONS = 16;

/**
 * Blocks whose keys of one head lie side by side, and so do their values. Blocks that follow each
 * other in a sequence mostly do so in memory too: attention then reads runs of pages, which the
 * hardware fetches ahead. More blocks would touch more memory for a short text.
 */
export const KV_CHUNK_BLOCKS = 8;

/** Elements of one value row in the cache, and of a query. */
export function kvRow(spec: ModelSpec): number {
  return paddedFloats(spec.headDim);
}

/** Groups of four features that int8 keys are kept in. */
export function keyFours(spec: ModelSpec): number {
  return Math.ceil(spec.headDim / 4);
}

/** DotBytes of the keys and of the values of one head in one block. */
function headBytes(spec: ModelSpec, kvType: KvType): number {
  const row = kvRow(spec);
  const scales = 2 * 4;
  const perPosition = {
    f32: 4 * (spec.headDim + row),
    f16: 2 * (spec.headDim + row),
    int8: 4 * keyFours(spec) + row + scales,
  };
  return KV_BLOCK_POSITIONS * perPosition[kvType];
}

/** DotBytes of one KV block over all layers. */
export function kvBlockBytes(spec: ModelSpec, kvType: KvType): number {
  return spec.numHiddenLayers * spec.numKeyValueHeads * headBytes(spec, kvType);
}

/**
 * The cache around `KeyBlock` and `ValueBlock`, which each KV type has its own of. Lanes of a key
 * block are positions, lanes of a value block are features.
 */
export function cache(spec: ModelSpec, kvType: KvType): string {
  const heads = spec.numKeyValueHeads;
  return zig`
    /// Keys and values of one layer for ${KV_CHUNK_BLOCKS} blocks of ${KV_BLOCK_POSITIONS} positions.
    const LayerCache = extern struct {
        keys: [${heads}][${KV_CHUNK_BLOCKS}]KeyBlock align(64),
        values: [${heads}][${KV_CHUNK_BLOCKS}]ValueBlock align(64),
    };
    const CacheChunk = [${spec.numHiddenLayers}]LayerCache;

    comptime {
        // What TypeScript reports and allots by.
        std.debug.assert(@sizeOf(CacheChunk) == ${KV_CHUNK_BLOCKS * kvBlockBytes(spec, kvType)});
    }

    inline fn keyBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) *KeyBlock {
        const index: usize = @intCast(block);
        return &cache[index / ${KV_CHUNK_BLOCKS}][layer].keys[head][index % ${KV_CHUNK_BLOCKS}];
    }

    inline fn valueBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) *ValueBlock {
        const index: usize = @intCast(block);
        return &cache[index / ${KV_CHUNK_BLOCKS}][layer].values[head][index % ${KV_CHUNK_BLOCKS}];
    }

    /// x, or the nearest number that can be kept: an infinity, times the weight 0 of a position that a
    /// query does not see, would not be 0.
    inline fn bounded(x: f32) f32 {
        return @min(@max(x, -${KV_LIMITS[kvType]}), ${KV_LIMITS[kvType]});
    }
  `;
}
