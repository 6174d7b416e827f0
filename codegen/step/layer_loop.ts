/** The phases of all layers one after the other, and the head, with barriers between them. */
import { ternaryHead } from "../head/ternary.ts";
import { paddedRows } from "../layouts/layout.ts";
import { hasSketch, type ModelSpec } from "../model_spec.ts";
import { normSymbol } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import type { Context } from "./context.ts";
import { addOutput, INPUT_NORMS, rowScratch } from "./linears.ts";
import { inputArrays, inputsOf } from "./memory.ts";
import { STEP_PHASE_NAMES } from "./phases.ts";

/** The gated MLP, or the experts in its place; what they read is ready. */
function mlpLoop({ spec }: Context): string {
  if (spec.experts === undefined) {
    return zig`
      mlpLinears(own, layer, thread);
      meet(team, watch, .gateUp);
      mlpOutput(own, layer, thread);
      meetUnless(alone, team, watch, .activation);
      downLinear(own, layer, thread);
      meet(team, watch, .down);
    `;
  }
  return zig`
    scoreExperts(step, layer, thread);
    meet(team, watch, .router);
    pickExperts(step, thread);
    meet(team, watch, .pick);
    runExperts(step, layer, team, watch, thread);
    meet(team, watch, .down);
    combineExperts(step, thread);
    meet(team, watch, .combine);
  `;
}

/** Zig that moves each input of linears to the row of a thread. */
function ownInputs(context: Context): string[] {
  return inputsOf(context).flatMap((i) =>
    inputArrays(context).map(({ name, elements }) => `own.x${i}_${name} += first * ${elements};`)
  );
}

/** Most tokens that every thread prepares for itself. */
const ALONE_TOKENS = 16;

export function layerLoop(context: Context): string {
  const { spec, hidden } = context;
  const lastNorm = `floats(model.layer(${
    spec.numHiddenLayers - 1
  }) + at.${INPUT_NORMS.attention.added})`;
  return zig`
    /// The part of blocks mine[0] .. mine[1] that falls into the matrix whose blocks begin at from.
    inline fn overlap(mine: [2]usize, from: usize, count: usize) [2]usize {
        return .{ @min(@max(mine[0], from) - from, count), @min(@max(mine[1], from) - from, count) };
    }

    /// A few tokens, which every thread prepares for itself: norms and inputs of linears cost less than a
    /// barrier, and far less than lines that another core has written or read last.
    inline fn isAlone(step: *const Step) bool {
        ${
    context.spec.experts === undefined
      ? zig`
          const tokens = step.batch.tokens;
          return tokens <= ${ALONE_TOKENS} and tokens * step.model.team.threads <= rowsOf(step.model.max_tokens, step.model.team.threads);
        `
      : "_ = step;\nreturn false;"
  }
    }

    /// Rows of the buffers: of a step's tokens, or one a thread.
    inline fn rowsOf(max_tokens: usize, threads: usize) usize {
        return @max(max_tokens, threads);
    }

    /// The tokens that a thread prepares.
    inline fn tokensOf(step: *const Step, thread: usize) [2]usize {
        return if (isAlone(step)) .{ 0, step.batch.tokens } else math.share(step.batch.tokens, thread, step.model.team.threads);
    }

    /// The model as a thread sees it that prepares all tokens for itself: with rows of its own of what it
    /// alone reads again.
    fn ownRows(model: Model, first: usize) Model {
        var own = model;
        own.h += first * ${hidden};
        ${ownInputs(context)}
        return own;
    }

    fn embedTokens(step: *const Step, thread: usize) void {
        const model = step.model;
        const tokens = tokensOf(step, thread);
        for (tokens[0]..tokens[1]) |t| {
            embed(model.weights, step.batch.ids[t], model.h + t * ${hidden});
            @memset(model.y[t * ${paddedRows(spec.hiddenSize)} ..][0..${
    paddedRows(spec.hiddenSize)
  }], 0);
        }
    }

    /// Final norm of the rows whose logits or hidden states are wanted.
    fn finalNorm(step: *const Step, thread: usize) void {
        const model = step.model;
        const rows = math.share(step.batch.row_count, thread, model.team.threads);
        for (rows[0]..rows[1]) |l| {
            const t: usize = @intCast(step.batch.rows[l]);
            const h = model.h + t * ${hidden};
            const y = model.y + t * ${paddedRows(spec.hiddenSize)};
            const row = model.rows + thread * ${rowScratch(context)};
            ${addOutput(context, lastNorm)}
            _ = ${
    normSymbol(spec.hiddenSize, spec.rmsNormEps)
  }(f32, h, floats(model.weights + final_norm_at), row);
            for (0..${hidden}) |d| model.normed[l * ${hidden} + d] = @floatCast(row[d]);
            ${spec.ternaryHead ? "if (l < step.batch.logit_count) headInput(model, l);" : ""}
        }
    }

    ${spec.ternaryHead ? ternaryHead(spec, context.plan) : floatHead(spec)}

    const Phase = enum { ${STEP_PHASE_NAMES.join(", ")} };

    /// Since the last lap, thread 0 has worked in this phase.
    inline fn lap(watch: ?*Stopwatch, phase: Phase) void {
        if (watch) |running| running.lap(2 * @as(usize, @backingInt(phase)));
    }

    /// The barrier at the end of a phase. Waiting there is told apart from work.
    inline fn meet(team: *Team, watch: ?*Stopwatch, phase: Phase) void {
        lap(watch, phase);
        team.barrier();
        if (watch) |running| running.lap(2 * @as(usize, @backingInt(phase)) + 1);
    }

    /// As \`meet\`, where a thread that prepared a token for itself needs nobody.
    inline fn meetUnless(alone: bool, team: *Team, watch: ?*Stopwatch, phase: Phase) void {
        if (alone) lap(watch, phase) else meet(team, watch, phase);
    }

    /// What every thread of the team runs: the layers, a barrier wherever one reads what others wrote.
    fn runStep(context: *anyopaque, team: *Team, thread_index: u32) void {
        const step: *const Step = @ptrCast(@alignCast(context));
        const thread: usize = thread_index;
        const watch = if (thread == 0 and step.model.watch.running) &step.model.watch else null;
        const alone = isAlone(step);
        // What this thread prepares and reads again; everything else is the team's.
        var own_model = ownRows(step.model.*, thread * step.batch.tokens);
        const prepared: Step = .{ .model = &own_model, .batch = step.batch, .logits = step.logits };
        const own = if (alone) &prepared else step;
        embedTokens(own, thread);
        lap(watch, .embedding);
        for (0..${spec.numHiddenLayers}) |index| {
            const layer = step.model.layer(index);
            attentionInput(own, layer, thread);
            meetUnless(alone, team, watch, .inputNorm);
            attentionLinears(own, layer, thread);
            meet(team, watch, .qkv);
            rotateAndStore(step, index, thread);
            meet(team, watch, .rope);
            attendAll(step, index, thread);
            meet(team, watch, .attention);
            attentionOutput(own, layer, thread);
            meetUnless(alone, team, watch, .outputNorm);
            outputLinear(own, layer, thread);
            meet(team, watch, .o);
            mlpInput(own, layer, thread);
            meetUnless(alone, team, watch, .mlpNorm);
            ${mlpLoop(context)}
        }
        if (step.batch.row_count == 0) return;
        finalNorm(step, thread);
        if (step.batch.logit_count == 0) return lap(watch, .finalNorm);
        ${hasSketch(context.spec) ? SKETCHED_HEAD : FULL_HEAD}
    }
  `;
}

function floatHead({ vocabSize }: ModelSpec): string {
  return zig`
    fn headLogits(step: *const Step, thread: usize) void {
        const model = step.model;
        const rows = math.share(${vocabSize}, thread, model.team.threads);
        scoreRows(@ptrCast(@alignCast(model.weights + head_at)), model.normed, step.batch.logit_count, step.logits, rows);
    }
  `;
}

const FULL_HEAD = zig`
  meet(team, watch, .finalNorm);
  headLogits(step, thread);
  lap(watch, .head);
`;
const SKETCHED_HEAD = zig`
  const sketched = usesSketch(step.batch);
  if (sketched) sketchInputs(step, thread);
  meet(team, watch, .finalNorm);
  if (!sketched) {
      headLogits(step, thread);
      return lap(watch, .head);
  }
  sketchLogits(step, thread);
  meet(team, watch, .sketch);
  exactLogits(step, thread);
  lap(watch, .head);
`;
