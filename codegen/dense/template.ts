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

/** A library that multiplies float matrices and does nothing else: `kernels/zig/floats.zig` for all shapes. */
export function floatsSource(): string {
  return zig`
    //! Trilith: multiplies float matrices. Generated from codegen/dense/template.ts; do not edit.
    comptime {
        _ = @import("host.zig");
        _ = @import("floats.zig");
    }
  `;
}

/** Lookup in an embedding that is float. */
export function embedding(spec: ModelSpec): string {
  const padded = paddedFloats(spec.hiddenSize);
  const scale = spec.embeddingScale === undefined
    ? ""
    : ` * math.splat(${Math.fround(spec.embeddingScale)})`;
  return zig`
    const EmbeddingElement = ${ZIG_TYPES[spec.embeddingType]};

    /// out = the embedding of a token${scale && " times a factor"}.
    fn embed(weights: [*]const u8, token: i32, out: [*]f32) void {
        const embedding: [*]const EmbeddingElement = @ptrCast(@alignCast(weights + embedding_at));
        const row = embedding + @as(usize, @intCast(token)) * ${padded};
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) math.store(out + i, math.widen(EmbeddingElement, row + i)${scale});
    }
  `;
}

/** A head that is float. */
export function dense(spec: ModelSpec): string {
  const padded = paddedFloats(spec.hiddenSize);
  return zig`
    const HeadElement = ${ZIG_TYPES[spec.headType]};

    /// logits[l, r] = row r of the head . x[l] for rows first .. last: (${spec.vocabSize}, ${spec.hiddenSize}) by (${spec.hiddenSize},).
    fn scoreRows(head: [*]const HeadElement, x: [*]const f32, count: usize, logits: [*]f32, rows: [2]usize) void {
        var r = rows[0];
        while (r + ${ROWS} <= rows[1]) : (r += ${ROWS}) scoreTile(${ROWS}, head, x, count, logits, r);
        while (r < rows[1]) : (r += 1) scoreTile(1, head, x, count, logits, r);
    }

    /// Rows that follow each other.
    inline fn scoreTile(comptime tile: usize, head: [*]const HeadElement, x: [*]const f32, count: usize, logits: [*]f32, r: usize) void {
        var from: [tile][*]const HeadElement = undefined;
        var next: [tile][*]const HeadElement = undefined;
        for (&from, &next, r..) |*row, *later, i| {
            row.* = head + i * ${padded};
            later.* = row.* + ${ROWS} * ${padded};
        }
        for (0..count) |l| logits[l * ${spec.vocabSize} + r ..][0..tile].* = sumRowsOf(tile, x + l * ${padded}, &from, &next);
    }

    /// out[i] = row rows[i] of the head . x, as scoreRows computes it. Rows are far from one another.
    fn scorePicked(head: [*]const HeadElement, x: [*]const f32, rows: []const u32, out: [*]f32) void {
        var i: usize = 0;
        while (i + ${ROWS} <= rows.len) : (i += ${ROWS}) {
            var from: [${ROWS}][*]const HeadElement = undefined;
            var next: [${ROWS}][*]const HeadElement = undefined;
            for (&from, &next, i..) |*row, *later, j| {
                row.* = head + @as(usize, rows[j]) * ${padded};
                later.* = head + @as(usize, rows[@min(j + ${ROWS}, rows.len - 1)]) * ${padded};
            }
            out[i..][0..${ROWS}].* = sumRowsOf(${ROWS}, x, &from, &next);
        }
        while (i < rows.len) : (i += 1) out[i] = sumRowsOf(1, x, &.{head + @as(usize, rows[i]) * ${padded}}, &.{})[0];
    }

    /// The sums of some rows; those in \`next\` are fetched meanwhile.
    inline fn sumRowsOf(comptime tile: usize, x: [*]const f32, from: *const [tile][*]const HeadElement, next: []const [*]const HeadElement) [tile]f32 {
        var acc: [tile]math.F = @splat(@splat(0));
        var i: usize = 0;
        while (i < ${padded}) : (i += math.lanes) {
            const v = math.load(x + i);
            for (next) |row| @prefetch(row + i, .{ .locality = 2 });
            inline for (0..tile) |j| acc[j] += v * math.widen(HeadElement, from[j] + i);
        }
        var sums: [tile]f32 = undefined;
        inline for (0..tile) |j| sums[j] = math.sum(acc[j]);
        return sums;
    }
  `;
}
