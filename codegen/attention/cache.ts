import type { KvType, ModelSpec } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { KV_LIMITS } from "./reference.ts";

/** Positions of one KV block: the unit in which memory is given to sequences, and a vector's lanes. */
export const KV_BLOCK_POSITIONS = 16;

/** Blocks whose keys of one feature lie side by side: what a tile of scores reads is one run of lines. */
export const KV_GROUP_BLOCKS: Record<KvType, number> = { f32: 2, f16: 4, int8: 4 };

/**
 * Blocks whose keys of one head lie in one run, and so do their values: a span's. Blocks that follow
 * each other in a sequence mostly do so in memory too, and a core reads runs twice as fast as it
 * fetches single lines, of which it waits for 24 at a time. More blocks would touch more memory for a
 * short text.
 */
export const KV_CHUNK_BLOCKS = 16;

/** Features of a value that lie together for all positions of a chunk: what one pass over them sums. */
export function valuePart(spec: ModelSpec, kvType: KvType): number {
  const most = kvType === "f16" ? 64 : 32;
  return kvRow(spec) % most === 0 ? most : kvRow(spec);
}

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
 * Bytes of a cache of so many blocks: whole chunks, which large pages make resident as a whole where
 * they are used in part.
 */
export function kvCacheBytes(spec: ModelSpec, kvType: KvType, blocks: number): number {
  return Math.ceil(blocks / KV_CHUNK_BLOCKS) * KV_CHUNK_BLOCKS * kvBlockBytes(spec, kvType);
}

/**
 * The cache around `KeyGroup` and `ValueChunk`, which each KV type has its own of. Lanes of a key block are positions, lanes of a value block are features.
 */
export function cache(spec: ModelSpec, kvType: KvType): string {
  const heads = spec.numKeyValueHeads;
  const group = KV_GROUP_BLOCKS[kvType];
  const groups = KV_CHUNK_BLOCKS / group;
  return zig`
    /// Keys and values of one layer for ${KV_CHUNK_BLOCKS} blocks of ${KV_BLOCK_POSITIONS} positions.
    const LayerCache = extern struct {
        keys: [${heads}][${groups}]KeyGroup align(64),
        values: [${heads}]ValueChunk align(64),
    };
    const CacheChunk = [${spec.numHiddenLayers}]LayerCache;

    comptime {
        // What TypeScript reports and allots by.
        std.debug.assert(@sizeOf(CacheChunk) == ${KV_CHUNK_BLOCKS * kvBlockBytes(spec, kvType)});
    }

    /// Keys of a block's positions.
    const KeyBlock = struct {
        group: *KeyGroup,
        index: usize,

        inline fn fetchStart(block: KeyBlock) void {
            fetchRun(block.group);
        }
    };

    const ValueBlock = struct {
        chunk: *ValueChunk,
        index: usize,

        inline fn fetchStart(block: ValueBlock) void {
            inline for (&block.chunk.parts) |*part| fetchRun(&part[block.index]);
        }
    };

    inline fn keyBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) KeyBlock {
        const index: usize = @intCast(block);
        return .{ .group = &cache[index / ${KV_CHUNK_BLOCKS}][layer].keys[head][index / ${group} % ${groups}], .index = index % ${group} };
    }

    inline fn valueBlock(cache: [*]CacheChunk, block: i32, layer: usize, head: usize) ValueBlock {
        const index: usize = @intCast(block);
        return .{ .chunk = &cache[index / ${KV_CHUNK_BLOCKS}][layer].values[head], .index = index % ${KV_CHUNK_BLOCKS} };
    }

    /// The first lines of a run, so that it does not begin with a wait; the hardware sees the rest coming.
    inline fn fetchRun(run: anytype) void {
        const bytes: [*]const u8 = @ptrCast(run);
        inline for (0..8) |line| @prefetch(bytes + line * 64, .{ .locality = 2 });
    }

    /// x, or the nearest number that can be kept: an infinity, times the weight 0 of a position that a
    /// query does not see, would not be 0.
    inline fn bounded(x: f32) f32 {
        return @min(@max(x, -${KV_LIMITS[kvType]}), ${KV_LIMITS[kvType]});
    }
  `;
}
