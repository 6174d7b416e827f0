import { paddedRows } from "../layouts/layout.ts";
import { type ModelSpec, SKETCH_ROWS, sketchShape } from "../model_spec.ts";
import { activationStride, paddedFloats } from "../norm_quantize/template.ts";
import { type PackedPlan, regionOf } from "../plan.ts";
import { groupCount } from "../ternary_linear/groups.ts";
import { linearSymbol, prepareSymbol } from "../ternary_linear/scheme.ts";
import { zig } from "../writer.ts";
import {
  FLOAT_SLACK,
  INPUT_CODES,
  marginOf,
  PARAMETERS,
  SKETCH_CANDIDATES,
  SKETCH_TOKENS,
  sketchPieces,
} from "./sketch.ts";

/** Fields of Model that the two-stage head needs. */
export const SKETCH_FIELDS = zig`
  /// What is known of each logit row's input: see SketchedInput.
  sketched: [*]SketchedInput,
  /// The rows of the head that each thread found best for each logit row.
  found: [*]Found,
  /// Sums of one piece of the sketch, a part a thread.
  sketch_sums: [*]f32,
  /// Rows of the head that were scored exactly, by thread, since the model was made.
  rescored: [*]Counter,
`;

/** Zig that sums the rescored rows of all threads. */
export const RESCORED = zig`
  var sum: u64 = 0;
  for (0..model.team.threads) |thread| sum += model.rescored[thread].count;
  return sum;
`;

/** Zig that gives these fields their memory. */
export function sketchMemory(spec: ModelSpec): string {
  return zig`
    model.sketched = carver.take(SketchedInput, ${SKETCH_TOKENS});
    model.found = carver.take(Found, threads * ${SKETCH_TOKENS});
    model.sketch_sums = carver.take(f32, threads * ${
    SKETCH_TOKENS * paddedRows(sketchShape(spec).n)
  });
    model.rescored = carver.take(Counter, threads);
  `;
}

/** The bytes of that, but for a few counters. */
export function sketchMemoryBytes(spec: ModelSpec, threads: number): number {
  return 4 * threads * SKETCH_TOKENS * paddedRows(sketchShape(spec).n);
}

/** Codes count as they are, in all groups alike where there are any: their sums stay integers. */
function unitInverse({ groups, hiddenSize }: ModelSpec): string {
  if (groups === undefined) return "input.inverse[l] = 1;";
  const count = groupCount(groups, hiddenSize);
  return `@memset(input.inverse[l * ${count} ..][0..${count}], 1);`;
}

/**
 * The two-stage head: upper bounds of all logits from the sketch, then exact logits of every row
 * whose bound reaches the least of the best. `codegen/head/sketch.ts` says why no row is missed.
 *
 * Phases, with barriers between them: `sketchInputs`, `sketchLogits`, `exactLogits`.
 */
export function twoStageHead(spec: ModelSpec, plan: PackedPlan): string {
  const { n, k } = sketchShape(spec);
  const hidden = paddedFloats(k);
  const sumRows = paddedRows(n);
  const at = (name: string) => regionOf(plan.globals, name).offset;
  const pieceBytes = regionOf(plan.globals, "sketch_codes").bytes / sketchPieces(spec);
  const ones = spec.rowScales ? `const sketch_ones: [${n}]f32 = @splat(1);` : "";
  const linear = `.{ .codes = codes, ${
    spec.rowScales ? ".scales = &sketch_ones" : ".scale = 1"
  }, .bias = null }`;
  return zig`
    const sketch_at = struct {
        const dither = ${at("sketch_dither")};
        const codes = ${at("sketch_codes")};
        const rows = ${at("sketch_rows")};
    };
    ${ones}

    /// An input of the head as codes: x is about step * (codes - v).
    const SketchedInput = struct {
        step: f32,
        /// sum(u * (codes - v)).
        offset: f32,
        /// Factors of |w| and of the row's scale in the margin of an estimate.
        weight_margin: f32,
        scale_margin: f32,
    };

    const Counter = struct { count: u64 align(64) };

    /// The rows with the largest bounds of those that were offered, at most \`most\`, and their logits.
    const Found = struct {
        most: usize,
        count: usize,
        /// Where the least of them is, once there are \`most\`.
        least: usize,
        bounds: [${SKETCH_CANDIDATES}]f32,
        rows: [${SKETCH_CANDIDATES}]u32,

        fn clear(found: *Found, most: usize) void {
            found.most = most;
            found.count = 0;
            found.least = 0;
        }

        /// What a bound must exceed to be taken in.
        inline fn limit(found: *const Found) f32 {
            return if (found.count < found.most) -std.math.inf(f32) else found.bounds[found.least];
        }

        fn offer(found: *Found, bound: f32, row: u32) void {
            if (found.count == found.most) {
                if (bound <= found.bounds[found.least]) return;
            } else {
                found.least = found.count;
                found.count += 1;
            }
            found.bounds[found.least] = bound;
            found.rows[found.least] = row;
            if (found.count == found.most) found.least = found.leastOf();
        }

        fn leastOf(found: *const Found) usize {
            var least: usize = 0;
            for (1..found.count) |i| {
                if (found.bounds[i] < found.bounds[least]) least = i;
            }
            return least;
        }
    };

    /// Whether all logit rows say how many of their logits must be exact, and neither are too many.
    fn usesSketch(batch: Batch) bool {
        if (batch.logit_count > ${SKETCH_TOKENS}) return false;
        for (batch.logit_candidates[0..batch.logit_count]) |count| {
            if (count < 1 or count > ${SKETCH_CANDIDATES}) return false;
        }
        return true;
    }

    /// Input l of the head, which is in \`normed\`, becomes codes and tables of the first linear input.
    fn sketchInput(model: *Model, l: usize, candidates: usize) void {
        const x = model.normed + l * ${hidden};
        const u = floats(model.weights + sketch_at.dither);
        const v = u + ${hidden};
        var largest: math.F = @splat(1e-20);
        var i: usize = 0;
        while (i < ${hidden}) : (i += math.lanes) largest = @max(largest, @abs(math.load(x + i)));
        const step = @reduce(.Max, largest) / ${INPUT_CODES};
        const inverse = 1 / step;
        const input = inputOf(model, 0);
        const codes = input.codes + l * ${activationStride(k)};
        var offset: math.D = @splat(0);
        var norm: math.D = @splat(0);
        i = 0;
        while (i < ${hidden}) : (i += math.lanes) {
            const code = math.roundToInt(math.load(x + i) * math.splat(inverse) + math.load(v + i));
            codes[i..][0..math.lanes].* = @as(@Vector(math.lanes, i8), @intCast(code));
            const wide: math.D = @floatFromInt(code);
            const rounded = wide - math.wide(f32, v + i);
            offset += math.wide(f32, u + i) * rounded;
            norm += rounded * rounded;
        }
        ${unitInverse(spec)}
        ${prepareSymbol(k)}(input, l);
        const margin: f32 = marginOf(candidates);
        const size: f32 = @floatCast(@sqrt(math.dotWide(${hidden}, f32, x, f32, x)));
        const rounded_size: f32 = @floatCast(@sqrt(math.sumWide(norm)) * step);
        model.sketched[l] = .{
            .step = step,
            .offset = @floatCast(math.sumWide(offset)),
            .weight_margin = margin * step + ${FLOAT_SLACK} * size,
            .scale_margin = margin * rounded_size,
        };
    }

    /// m / sqrt(12), so that one of the rows that count is missed once in 1e9 tokens.
    fn marginOf(candidates: usize) f32 {
        return if (candidates == 1) ${marginOf(1)} else ${marginOf(SKETCH_CANDIDATES)};
    }

    fn sketchInputs(step: *const Step, thread: usize) void {
        const model = step.model;
        const rows = math.share(step.batch.logit_count, thread, model.team.threads);
        for (rows[0]..rows[1]) |l| sketchInput(model, l, @intCast(step.batch.logit_candidates[l]));
    }

    /// Bounds of the logits take the logits' place, and the exact logits of each thread's best rows are found.
    fn sketchLogits(step: *const Step, thread: usize) void {
        const model = step.model;
        const count = step.batch.logit_count;
        const found = model.found + thread * ${SKETCH_TOKENS};
        for (0..count) |l| found[l].clear(@intCast(step.batch.logit_candidates[l]));
        const sums = model.sketch_sums + thread * ${SKETCH_TOKENS * sumRows};
        const pieces = math.share(${sketchPieces(spec)}, thread, model.team.threads);
        for (pieces[0]..pieces[1]) |piece| {
            const codes = model.weights + sketch_at.codes + piece * ${pieceBytes};
            ${
    linearSymbol({ n, k })
  }(${linear}, inputOf(model, 0), count, sums, ${sumRows}, .{ 0, ${sumRows / 32} });
            for (0..count) |l| boundPiece(model, piece, l, sums + l * ${sumRows}, step.logits + l * ${spec.vocabSize}, &found[l]);
        }
        for (0..count) |l| scoreFound(step, l, &found[l]);
        model.rescored[thread].count += count;
    }

    /// Upper bounds of a piece's logits, from the sums of its upper and lower trits.
    fn boundPiece(model: *const Model, piece: usize, l: usize, sums: [*]const f32, logits: [*]f32, found: *Found) void {
        const input = model.sketched[l];
        const scales = floats(model.weights + sketch_at.rows) + piece * ${PARAMETERS * SKETCH_ROWS};
        const first = piece * ${SKETCH_ROWS};
        const last: usize = @min(first + ${SKETCH_ROWS}, ${spec.vocabSize});
        var row = first;
        while (row < last) : (row += math.lanes) {
            const i = row - first;
            const scale = math.load(scales + i);
            const sum = math.splat(3) * math.load(sums + i) + math.load(sums + ${SKETCH_ROWS} + i);
            const levels = sum - math.load(scales + ${SKETCH_ROWS} + i) - math.splat(input.offset);
            const estimate = scale * (math.splat(input.step) * levels);
            const norm = math.load(scales + ${2 * SKETCH_ROWS} + i);
            const bounds = estimate + (norm * math.splat(input.weight_margin) + scale * math.splat(input.scale_margin));
            offerRows(found, bounds, row, last, logits);
        }
    }

    inline fn offerRows(found: *Found, bounds: math.F, row: usize, last: usize, logits: [*]f32) void {
        const lanes: [math.lanes]f32 = bounds;
        if (row + math.lanes <= last) {
            math.store(logits + row, bounds);
            if (@reduce(.Max, bounds) <= found.limit()) return;
        }
        for (lanes[0..@min(math.lanes, last - row)], row..) |bound, r| {
            logits[r] = bound;
            found.offer(bound, @intCast(r));
        }
    }

    /// Exact logits in the place of the bounds by which the rows were found.
    fn scoreFound(step: *const Step, l: usize, found: *Found) void {
        const head: [*]const HeadElement = @ptrCast(@alignCast(step.model.weights + head_at));
        scorePicked(head, step.model.normed + l * ${hidden}, found.rows[0..found.count], &found.bounds);
    }

    /// The least of the logits that must be exact is at least this one.
    fn thresholdOf(model: *const Model, l: usize) f32 {
        var best: Found = undefined;
        best.clear(model.found[l].most);
        for (0..model.team.threads) |thread| {
            const found = &model.found[thread * ${SKETCH_TOKENS} + l];
            for (found.bounds[0..found.count], found.rows[0..found.count]) |logit, row| best.offer(logit, row);
        }
        return best.bounds[best.least];
    }

    /// Rows whose bound reaches the threshold get their exact logit, all others -inf.
    fn exactLogits(step: *const Step, thread: usize) void {
        const model = step.model;
        const pieces = math.share(${sketchPieces(spec)}, thread, model.team.threads);
        const rows = [2]usize{ pieces[0] * ${SKETCH_ROWS}, @min(pieces[1] * ${SKETCH_ROWS}, ${spec.vocabSize}) };
        // The sums of the sketch are of no more use.
        const kept: [*]u32 = @ptrCast(model.sketch_sums + thread * ${SKETCH_TOKENS * sumRows});
        for (0..step.batch.logit_count) |l| {
            const logits = step.logits + l * ${spec.vocabSize};
            const scored = exactRows(model, l, thresholdOf(model, l), rows, kept[0..${
    SKETCH_TOKENS * sumRows
  }], logits);
            model.rescored[thread].count += scored;
        }
    }

    fn exactRows(model: *const Model, l: usize, threshold: f32, rows: [2]usize, kept: []u32, logits: [*]f32) u64 {
        const x = model.normed + l * ${hidden};
        var scored: u64 = 0;
        var count: usize = 0;
        var row = rows[0];
        while (row < rows[1]) : (row += math.lanes) {
            if (row + math.lanes <= rows[1] and @reduce(.Max, math.load(logits + row)) < threshold) {
                math.store(logits + row, math.splat(-std.math.inf(f32)));
                continue;
            }
            for (logits[row..@min(row + math.lanes, rows[1])], row..) |*logit, r| {
                if (logit.* >= threshold) {
                    kept[count] = @intCast(r);
                    count += 1;
                }
                logit.* = -std.math.inf(f32);
            }
            if (count + math.lanes <= kept.len) continue;
            scored += scoreKept(model, x, kept[0..count], logits);
            count = 0;
        }
        return scored + scoreKept(model, x, kept[0..count], logits);
    }

    fn scoreKept(model: *const Model, x: [*]const f32, kept: []const u32, logits: [*]f32) u64 {
        const head: [*]const HeadElement = @ptrCast(@alignCast(model.weights + head_at));
        var sums: [128]f32 = undefined;
        var from: usize = 0;
        while (from < kept.len) : (from += sums.len) {
            const rows = kept[from..@min(from + sums.len, kept.len)];
            scorePicked(head, x, rows, &sums);
            for (rows, sums[0..rows.len]) |row, sum| logits[row] = sum;
        }
        return kept.len;
    }
  `;
}
