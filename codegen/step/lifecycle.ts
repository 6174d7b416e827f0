/** Making, probing and ending a model. */
import { attentionSymbol } from "../attention/template.ts";
import { RESCORED, sketchMemory } from "../head/template.ts";
import { blocksOf } from "../layouts/layout.ts";
import { hasSketch, rotaryDim, ternaryShapes } from "../model_spec.ts";
import { paddedFloats, quantizeSymbol } from "../norm_quantize/template.ts";
import { linearSymbol } from "../ternary_linear/scheme.ts";
import { inputBytes, matrixBytes, uniqueShapes } from "../ternary_linear/template.ts";
import { zig } from "../writer.ts";
import { ABI_VERSION, type Context } from "./context.ts";
import { rowScratch } from "./linears.ts";
import { buffers, expertMemory } from "./memory.ts";
import { STEP_PHASE_NAMES } from "./phases.ts";
import { localTables, ropeElements } from "./turns.ts";

/** Most tokens of a linear that the probe runs. */
function probeTokens({ options }: Context): number {
  return Math.max(...options.kernel.scheme.provedTokens);
}

/** Room for the largest of what the probe needs: a matrix, the inputs or the outputs of its tokens. */
function probeBytes(context: Context): number {
  const { options, spec, maxFeatures, maxOutputs, hidden } = context;
  const { scheme } = options.kernel;
  const tokens = probeTokens(context);
  return Math.max(
    ...ternaryShapes(spec).map((shape) => matrixBytes(scheme, shape)),
    tokens * inputBytes(scheme, maxFeatures),
    4 * tokens * maxOutputs,
    8 * paddedFloats(maxFeatures),
    4 * hidden,
  );
}

/** A unit of blocks and one more, so that every tile of every linear runs. */
function probeCalls(context: Context): string[] {
  const shapes = uniqueShapes(ternaryShapes(context.spec));
  const counts = context.options.kernel.scheme.provedTokens;
  return [
    ...shapes.flatMap((shape) => {
      const last = Math.min(blocksOf(shape.n), 5);
      return counts.map((tokens) =>
        `_ = trilith_${linearSymbol(shape)}(weights, codes, ${tokens}, y, 0, ${last});`
      );
    }),
    ...[...new Set(shapes.map((shape) => shape.k))].map((k) =>
      `${quantizeSymbol(k)}(f32, y, largest_k${k}(y), inputIn_k${k}(memory, 1), 0);`
    ),
  ];
}

export function lifecycle(context: Context): string {
  const { spec, options, hidden } = context;
  const rows = buffers(context);
  return zig`
    pub export fn trilith_abi() i32 {
        return ${ABI_VERSION};
    }

    /// 0 when this CPU runs every kind of instruction here, else the signal that stopped a child process.
    pub export fn trilith_probe() i32 {
        return host.survives(touchInstructions);
    }

    /// Runs each ternary linear and the float kernels once, on zeros.
    fn touchInstructions() void {
        const bytes = ${Math.ceil(probeBytes(context) / 64) * 64};
        const memory: [*]u8 = @ptrCast(host.trilith_alloc(4 * bytes) orelse return);
        const codes: [*]const i8 = @ptrCast(memory);
        const y: [*]f32 = @ptrCast(@alignCast(memory + 2 * bytes));
        const weights = memory + 3 * bytes;
        ${probeCalls(context)}
        _ = gatedActivation(y, y, @ptrCast(@alignCast(memory + bytes)));
        ${spec.ternaryHead ? "" : "scoreRows(@ptrCast(@alignCast(weights)), y, 1, y, .{ 0, 1 });"}
        _ = ${
    attentionSymbol(spec, options.kvType)
  }(y, y, y, @ptrCast(@alignCast(memory)), 1, 1, 1, 1, @ptrCast(@alignCast(memory + bytes)));
        host.trilith_free(memory, 4 * bytes);
    }

    fn carve(carver: *Carver, model: *Model, threads: usize, kv_blocks: usize) void {
        const tokens = rowsOf(model.max_tokens, threads);
        model.rows = carver.take(f64, threads * ${rowScratch(context)});
        ${
    rows.map(([name, type, elements]) =>
      `model.${name} = carver.take(${type}, tokens * ${elements});`
    )
  }
        ${spec.experts === undefined ? "" : expertMemory(spec, options)}
        ${hasSketch(spec) ? sketchMemory(spec) : ""}
        const rope = carver.take(f32, model.context * ${ropeElements(spec)});
        model.rope = rope;
        carveAttention(carver, &model.attention, tokens, model.context, threads, kv_blocks);
    }

    /// Makes a model over packed weights. rope: cos then sin, (context, ${
    rotaryDim(spec) / 2
  }) each${localTables(spec)}, copied.
    /// Null when memory is short. KV memory is touched only as sequences grow.
    pub export fn trilith_model_create(weights: [*]const u8, team: *Team, max_tokens: i32, context: i32, kv_blocks: i32, rope: [*]const f32) ?*Model {
        const model = std.heap.page_allocator.create(Model) catch return null;
        model.weights = weights;
        model.team = team;
        model.max_tokens = @intCast(max_tokens);
        model.context = @intCast(context);
        model.watch = .{};
        model.attention = .{};
        var measure: Carver = .{ .base = null };
        carve(&measure, model, team.threads, @intCast(kv_blocks));
        const memory = host.trilith_alloc(measure.used) orelse {
            std.heap.page_allocator.destroy(model);
            return null;
        };
        model.memory = @ptrCast(memory);
        model.memory_bytes = measure.used;
        var carver: Carver = .{ .base = model.memory };
        carve(&carver, model, team.threads, @intCast(kv_blocks));
        const words = model.context * ${ropeElements(spec)};
        @memcpy(@constCast(model.rope)[0..words], rope[0..words]);
        return model;
    }

    /// Gives the first blocks of the cache some keys and values, to measure decoding after a long past
    /// without computing it.
    pub export fn trilith_fill_cache(model: *Model, blocks: i32) void {
        fillCache(&model.attention, @intCast(blocks));
    }

    pub export fn trilith_model_destroy(model: *Model) void {
        host.trilith_free(@ptrCast(model.memory), model.memory_bytes);
        std.heap.page_allocator.destroy(model);
    }

    /// Bytes of the model's buffers and of its cache.
    pub export fn trilith_model_bytes(model: *const Model) u64 {
        return model.memory_bytes;
    }

    /// Rows of the head that were scored exactly after its sketch, of all steps since the model was made.
    pub export fn trilith_rescored(model: *const Model) u64 {
        ${hasSketch(spec) ? RESCORED : "_ = model;\nreturn 0;"}
    }

    /// Hidden states after the final norm that the last step left, (count, ${spec.hiddenSize}) float32, from its
    /// \`first\`th row on: the rows of logits come before those of hidden states.
    pub export fn trilith_hidden(model: *const Model, first: i32, count: i32, out: [*]f32) void {
        const from: usize = @intCast(first);
        for (0..@intCast(count)) |l| {
            const row = model.normed + (from + l) * ${hidden};
            @memcpy(out[l * ${spec.hiddenSize} ..][0..${spec.hiddenSize}], row[0..${spec.hiddenSize}]);
        }
    }

    /// Runs a batch; logits: (logit rows, ${spec.vocabSize}) float32. The caller has checked every index.
    pub export fn trilith_step(model: *Model, words: [*]const i32, logits: [*]f32) i32 {
        var step: Step = .{ .model = model, .batch = .read(words), .logits = logits };
        shareOut(&model.attention, step.batch.places);
        const watch = if (model.watch.running) &model.watch else null;
        if (watch) |running| running.begin();
        model.team.run(@ptrCast(&step), runStep);
        lap(watch, .handover);
        return 0;
    }

    /// From now on the time of steps is divided into phases.
    pub export fn trilith_profile_start(model: *Model) void {
        model.watch.start();
    }

    /// Ends that; seconds: of work and of waiting for each phase, in the order of \`Phase\`.
    pub export fn trilith_profile_stop(model: *Model, seconds: *[${
    2 * STEP_PHASE_NAMES.length
  }]f64) void {
        seconds.* = model.watch.stop();
    }
  `;
}
