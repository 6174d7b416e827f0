import { FLOAT_BYTES, ZIG_TYPES } from "../dense/template.ts";
import { BLOCK_ROWS, blocksOf } from "../layouts/layout.ts";
import { STEP_FEATURES } from "../layouts/rows32.ts";
import type { Groups } from "../model_spec.ts";
import { zig } from "../writer.ts";
import type { InputBuffer, Shape } from "./scheme.ts";

/**
 * Linears of models whose inputs are rounded, and perhaps weights scaled, by groups of features. The same
 * tiles as without groups: a tile asks an `out` for what its sums start from, and gives it the sums of
 * each group; see `GROUP_SUMS`, and in `unpacked.ts` `FIRST_SUMS` and `MORE_SUMS`.
 */

/** Groups of a row of k features. */
export function groupCount({ size }: Groups, k: number): number {
  return Math.ceil(k / size);
}

/** Steps of 16 features of a group. */
export function groupSteps({ size }: Groups): number {
  return size / STEP_FEATURES;
}

/** Where weights have factors by group, their type. */
export function factorType({ weightScales, scaleType = "f32" }: Groups) {
  return weightScales ? scaleType : null;
}

/**
 * Bytes of a matrix's factors. They lie in the order in which a kernel that goes through a block of 32
 * rows reads them: [block][group][row].
 */
export function factorBytes(groups: Groups | undefined, { n, k }: Shape): number {
  const type = groups === undefined ? null : factorType(groups);
  if (type === null) return 0;
  return blocksOf(n) * groupCount(groups!, k) * BLOCK_ROWS * FLOAT_BYTES[type];
}

/** The factor of each group of an input: max |x| / 127. */
export function groupInverses(groups: Groups, k: number): InputBuffer {
  return { name: "inverse", type: "f32", elements: groupCount(groups, k) };
}

/**
 * What sums of codes 0, 1, 2 for weights -1, 0, +1 start from in each group: minus the sum of its
 * activations.
 */
export function groupStarts(groups: Groups, k: number): InputBuffer {
  return { name: "starts", type: "i32", elements: groupCount(groups, k) };
}

/** Zig's type of factors by group; null where there are none. */
export function factorElement(groups: Groups): string | null {
  const type = factorType(groups);
  return type === null ? null : ZIG_TYPES[type];
}

/** Where a tile's sums go: see `groupedDot` of `reference.ts`, which says what this adds up. */
export function groupOut(groups: Groups): string {
  const hasFactors = groups.weightScales;
  return zig`
    const Floats = @Vector(vector_rows, f32);

    /// Takes the sums of code * x of each group, for some tokens and a block's rows.
    const GroupSums = struct {
        y: [*]f32,
        y_stride: usize,
        /// Of each group, by token: what sums start from, and the factor of the input.
        starts: [*]const i32,
        inverses: [*]const f32,
        groups: usize,
        ${hasFactors ? "/// Of the block: 32 a group.\nfactors: [*]const Factor," : ""}

        inline fn start(out: GroupSums, t: usize, g: usize, _: usize) Sums {
            return @splat(out.starts[t * out.groups + g]);
        }

        /// Factors of neighbouring rows.
        inline fn factorsOf(${
    hasFactors ? "out: GroupSums, g: usize, row: usize" : "_: GroupSums, _: usize, _: usize"
  }) Floats {
            ${
    hasFactors
      ? `return math.widenTo(vector_rows, Factor, out.factors + g * ${BLOCK_ROWS} + row);`
      : "return @splat(1);"
  }
        }

        inline fn put(out: GroupSums, t: usize, g: usize, row: usize, exact: Sums, factors: Floats) void {
            const sums: Floats = @floatFromInt(exact);
            const inverse: Floats = @splat(out.inverses[t * out.groups + g]);
            const term = ${hasFactors ? "sums * inverse * factors" : "sums * inverse"};
            ${hasFactors ? "" : "_ = factors;"}
            const y = out.y[t * out.y_stride + row ..][0..vector_rows];
            const before: Floats = if (g == 0) @splat(0) else y.*;
            y.* = before + term;
        }
    };

    /// The place of a block's rows for tokens from t on.
    inline fn groupOut(comptime groups: usize, ${
    hasFactors ? "linear" : "_"
  }: Linear, x: Quantized, t: usize, block: usize, y: [*]f32, y_stride: usize) GroupSums {
        return .{
            .y = y + t * y_stride + block * ${BLOCK_ROWS},
            .y_stride = y_stride,
            .starts = x.starts + t * groups,
            .inverses = x.inverse + t * groups,
            .groups = groups,
            ${hasFactors ? `.factors = linear.factors + block * groups * ${BLOCK_ROWS},` : ""}
        };
    }
  `;
}

/** What is left to do when all groups are added up: factors of rows where they have any, and the bias. */
export function groupFinish(groups: Groups, rowScales: boolean): string {
  const scaled = rowScales
    ? "out *= math.load(linear.scales + row + half);"
    : "out *= math.splat(linear.scale);";
  return zig`
    /// Factors of rows and biases of a block, for tokens first .. last.
    inline fn finishRows(linear: Linear, tokens: [2]usize, row: usize, y: [*]f32, y_stride: usize) void {
        ${groups.weightScales ? "if (linear.bias == null) return;" : ""}
        for (tokens[0]..tokens[1]) |t| {
            inline for (.{ 0, 16 }) |half| {
                const rows = y + t * y_stride + row + half;
                var out = math.load(rows);
                ${groups.weightScales ? "" : scaled}
                if (linear.bias) |bias| out += math.load(bias + row + half);
                math.store(rows, out);
            }
        }
    }
  `;
}
