import type { KvType, ModelSpec } from "../model_spec.ts";
import { scoreScale } from "./reference.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";

/** Positions of one KV block: the unit in which memory is given to sequences. */
export const KV_BLOCK_POSITIONS = 16;

const ELEMENT_BYTES: Record<KvType, number> = { f32: 4, f16: 2 };

/** Elements of one key or value row in the cache. */
export function kvRow(spec: ModelSpec): number {
  return paddedFloats(spec.headDim);
}

/** Bytes of one KV block over all layers: [layer][K, V][head][position][headDim]. */
export function kvBlockBytes(spec: ModelSpec, kvType: KvType): number {
  return spec.numHiddenLayers * 2 * spec.numKeyValueHeads * KV_BLOCK_POSITIONS * kvRow(spec) *
    ELEMENT_BYTES[kvType];
}

/**
 * Attention over a paged cache. Each (token, KV head) is one item of work: the queries that share
 * the head read its keys and values once, a block of 16 positions at a time. Two passes (scores,
 * then weighted values) keep the order of all sums independent of batch, chunks and threads.
 */
export function attention(spec: ModelSpec, kvType: KvType): string {
  const group = spec.numAttentionHeads / spec.numKeyValueHeads;
  const row = kvRow(spec);
  const vectors = row / 16;
  const scale = scoreScale(spec.headDim);
  const window = spec.sliding === undefined ? NO_WINDOW : WINDOW;
  return zig`
    const KvElement = ${kvType};
    const kv_head_elements = ${KV_BLOCK_POSITIONS * row};
    const kv_layer_elements = ${2 * spec.numKeyValueHeads * KV_BLOCK_POSITIONS * row};
    const kv_block_elements = ${kvBlockBytes(spec, kvType) / ELEMENT_BYTES[kvType]};

    /// Where a KV head's keys (part 0) or values (part 1) of one block begin.
    inline fn kvHead(kv: [*]KvElement, block: i32, layer: usize, part: usize, head: usize) [*]KvElement {
        const index: usize = @intCast(block);
        return kv + index * kv_block_elements + layer * kv_layer_elements + (part * ${spec.numKeyValueHeads} + head) * kv_head_elements;
    }

    /// Narrows a row of ${spec.headDim} features into the cache; padding stays zero.
    inline fn storeRow(to: [*]KvElement, from: [*]const f32) void {
        for (0..${spec.headDim}) |d| to[d] = @floatCast(from[d]);
    }

    /// out = softmax(q k^T / sqrt(${spec.headDim})) v for the ${group} query head(s) of one KV head.
    /// q: (${group}, ${row}). table: the sequence's KV blocks. count: positions seen, this token's included${window.comment}.
    /// scores: (${group}, stride) scratch, where weights take the scores' place. out: (${group}, ${spec.headDim}).
    fn attend(q: [*]const f32, kv: [*]KvElement, table: [*]const i32, layer: usize, head: usize, ${window.parameter}count: usize, scores: [*]f64, stride: usize, out: [*]f32) void {
        var largest: [${group}]f64 = @splat(-std.math.inf(f64));
        const start: usize = ${window.start};
        var position = start;
        while (position < count) : (position += ${KV_BLOCK_POSITIONS}) {
            const keys = kvHead(kv, table[position / ${KV_BLOCK_POSITIONS}], layer, 0, head);
            for (${window.from("position")}..@min(position + ${KV_BLOCK_POSITIONS}, count)) |p| {
                const key = keys + (p - position) * ${row};
                inline for (0..${group}) |g| {
                    const score = math.dotWide(${row}, f32, q + g * ${row}, KvElement, key) * ${scale};
                    largest[g] = @max(largest[g], score);
                    scores[g * stride + p] = score;
                }
            }
        }
        var inverse: [${group}]f32 = undefined;
        inline for (0..${group}) |g| inverse[g] = 1.0 / softmax(scores + g * stride, ${window.arguments}count, largest[g]);
        const weights: [*]const f32 = @ptrCast(scores);
        var acc: [${group}][${row}]f32 align(64) = @splat(@splat(0));
        position = start;
        while (position < count) : (position += ${KV_BLOCK_POSITIONS}) {
            const values = kvHead(kv, table[position / ${KV_BLOCK_POSITIONS}], layer, 1, head);
            const seen = @min(${KV_BLOCK_POSITIONS}, count - position);
            inline for (0..${group}) |g| addValues(&acc[g], values, weights + 2 * g * stride + position, ${window.within}seen);
        }
        inline for (0..${group}) |g| {
            for (0..${spec.headDim}) |d| out[g * ${spec.headDim} + d] = acc[g][d] * inverse[g];
        }
    }

    /// Weights exp(scores - largest), f32 from the row's start on; returns their sum. Lane i % 16 adds, then the tree.
    fn softmax(scores: [*]f64, ${window.parameter}count: usize, largest: f64) f32 {
        // A weight is half as long as its score: writing never overtakes reading. Lanes past the
        // end weigh nothing: they are written as zero, within the padded row.
        const weights_out: [*]f32 = @ptrCast(scores);
        var sums: math.F = @splat(0);
        var i: usize = ${window.start};
        while (i < count) : (i += math.lanes) {
            const below: math.F = @floatCast(math.wide(f64, scores + i) - @as(math.D, @splat(largest)));
            const weights = math.exp(below);
            const left: math.I = @splat(@intCast(count - i));
            const lane: math.I = std.simd.iota(i32, math.lanes);
            ${window.kept}
            math.store(weights_out + i, kept);
            sums += kept;
        }
        return math.sum(sums);
    }

    /// acc += sum over p of weights[p] * values[p], p in order.
    fn addValues(acc: [*]f32, values: [*]const KvElement, weights: [*]const f32, ${window.parameter}seen: usize) void {
        var sums: [${vectors}]math.F = undefined;
        inline for (0..${vectors}) |v| sums[v] = math.load(acc + v * 16);
        for (${window.first}..seen) |p| {
            const weight = math.splat(weights[p]);
            inline for (0..${vectors}) |v| sums[v] += weight * math.widen(KvElement, values + p * ${row} + v * 16);
        }
        inline for (0..${vectors}) |v| math.store(acc + v * 16, sums[v]);
    }
  `;
}

/** What attention has of positions before the first that is seen: nothing, where all are seen. */
const NO_WINDOW = {
  comment: "",
  parameter: "",
  arguments: "",
  within: "",
  first: "0",
  start: "0",
  from: (position: string) => position,
  kept: "const kept = @select(f32, lane < left, weights, math.splat(0));",
};
/** Loops begin with the KV block that holds the first position, so that lanes are those of positions. */
const WINDOW: typeof NO_WINDOW = {
  comment: ", from the one named first on",
  parameter: "first: usize, ",
  arguments: "first, ",
  within: "first -| position, ",
  first: "first",
  start: `first - first % ${KV_BLOCK_POSITIONS}`,
  from: (position) => `@max(first, ${position})`,
  kept: zig`
    const before: math.I = @splat(@intCast(first -| i));
    const inside = @select(f32, lane < before, math.splat(0), weights);
    const kept = @select(f32, lane < left, inside, math.splat(0));
  `,
};
