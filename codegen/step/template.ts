import { activation } from "../activation/template.ts";
import { attention } from "../attention/template.ts";
import { carver } from "../carver.ts";
import { dense, embedding } from "../dense/template.ts";
import { experts } from "../experts/template.ts";
import { SKETCH_FIELDS, twoStageHead } from "../head/template.ts";
import { ternaryEmbedding } from "../head/ternary.ts";
import { hasSketch, type ModelSpec, rotaryDim, ternaryShapes } from "../model_spec.ts";
import { normSymbol, quantize, rmsNorm } from "../norm_quantize/template.ts";
import { hasFloatHead, hasMatrixScales, regionOf } from "../plan.ts";
import { rope } from "../rope/template.ts";
import { kernelName } from "../ternary_linear/spec.ts";
import { linearPrelude, linears } from "../ternary_linear/template.ts";
import { zig } from "../writer.ts";
import { BATCH_HEADER } from "./batch.ts";
import { type Context, contextOf, type StepOptions } from "./context.ts";
import { layerLoop } from "./layer_loop.ts";
import { lifecycle } from "./lifecycle.ts";
import { layerPhases, rowScratch } from "./linears.ts";
import { buffers, inputArrays, inputsOf } from "./memory.ts";
import { STEP_PHASE_NAMES } from "./phases.ts";
import { localTables } from "./turns.ts";

/**
 * The whole `kernels.zig` of a model: one `step` that runs a batch of tokens of any sequences
 * through all layers, all shapes being constants.
 */
export function stepSource(spec: ModelSpec, options: StepOptions): string {
  const context = contextOf(spec, options);
  return [
    header(context),
    linearPrelude(options.kernel.scheme, spec),
    linears(options.kernel.scheme, ternaryShapes(spec), spec),
    norms(context),
    activation(spec.hiddenAct, spec.intermediateSize, spec.experts?.swigluLimit),
    rope(spec.headDim, rotaryDim(spec)),
    carver(),
    attention(spec, options.kvType, options.kernel.isa),
    spec.ternaryEmbedding
      ? ternaryEmbedding(spec, context.plan, options.kernel.scheme.layout)
      : embedding(spec),
    spec.ternaryHead ? "" : dense(spec),
    state(context),
    ...(hasSketch(spec) ? [twoStageHead(spec, context.plan)] : []),
    layerPhases(context),
    spec.experts === undefined
      ? ""
      : experts(spec, options.kernel.scheme, context.plan, rowScratch(context)),
    layerLoop(context),
    lifecycle(context),
  ].filter((text) => text !== "").join("\n");
}

function header({ spec, options }: Context): string {
  return zig`
    //! Trilith: one decoder step of a ternary model for ${
    kernelName(options.kernel)
  }. Generated from codegen/step/template.ts;
    //! do not edit. ${spec.numHiddenLayers} layers, hidden ${spec.hiddenSize}, ${spec.numAttentionHeads}/${spec.numKeyValueHeads} heads of ${spec.headDim}, intermediate ${spec.intermediateSize}, vocabulary ${spec.vocabSize}.
    const std = @import("std");
    const math = @import("math.zig");
    const host = @import("host.zig");
    const Team = @import("team.zig").Team;
    const Stopwatch = @import("profile.zig").Stopwatch(${2 * STEP_PHASE_NAMES.length});

    comptime {
        _ = host;
    }
  `;
}

export function norms({ spec }: Context): string {
  const byKey = new Map<string, string>();
  const add = (k: number, eps: number) => byKey.set(normSymbol(k, eps), rmsNorm(k, eps));
  add(spec.hiddenSize, spec.rmsNormEps);
  if (spec.subNorms) {
    add(spec.numAttentionHeads * spec.headDim, spec.rmsNormEps);
    add(spec.intermediateSize, spec.rmsNormEps);
  }
  if (spec.qkNorm) add(spec.headDim, spec.rmsNormEps);
  const ks = [...new Set(ternaryShapes(spec).map((shape) => shape.k))];
  if (spec.linearNormEps !== null) ks.forEach((k) => add(k, spec.linearNormEps!));
  return [...byKey.values(), ...ks.map((k) => quantize(k, spec.groups))].join("\n");
}

function state(context: Context): string {
  const { spec, plan } = context;
  const rows = buffers(context);
  const offsetOf = (name: string) => regionOf(plan.globals, name).offset;
  return zig`
    /// Where a layer's tensors lie, in bytes from its start.
    const at = struct {
        ${plan.layer.map(({ name, offset }) => `const ${name} = ${offset};`)}
    };
    ${spec.ternaryEmbedding ? "" : `const embedding_at = ${offsetOf("embedding")};`}
    const final_norm_at = ${regionOf(plan.globals, "final_norm").offset};
    ${
    spec.ternaryHead
      ? ""
      : `const head_at = ${offsetOf(hasFloatHead(spec) ? "head" : "embedding")};`
  }
    const layers_at = ${plan.layersOffset};
    const layer_bytes = ${plan.layerBytes};

    /// A loaded model: its packed weights, its KV cache, and buffers for max_tokens rows.
    const Model = struct {
        weights: [*]const u8,
        team: *Team,
        max_tokens: usize,
        context: usize,
        memory: [*]u8,
        memory_bytes: usize,
        attention: Attention,
        /// cos then sin, (context, ${rotaryDim(spec) / 2}) each${localTables(spec)}.
        rope: [*]const f32,
        /// Normed values, one row of doubles a thread and one for the linears' own norms.
        rows: [*]f64,
        ${rows.map(([name, type]) => `${name}: [*]${type},`)}
        ${spec.experts === undefined ? "" : EXPERT_FIELDS}
        ${hasSketch(spec) ? SKETCH_FIELDS : ""}
        /// Where the time goes, as thread 0 sees it; runs only when it was asked for.
        watch: Stopwatch,

        fn layer(model: *const Model, index: usize) [*]const u8 {
            return model.weights + layers_at + index * layer_bytes;
        }
    };

    /// Tokens of one step. An i32 array from the caller: ${BATCH_HEADER} counts, then the lists in this order.
    const Batch = struct {
        tokens: usize,
        logit_count: usize,
        /// Tokens that are normed at the end: first those of logits, then those of hidden states.
        row_count: usize,
        ids: [*]const i32,
        places: Places,
        rows: [*]const i32,
        /// How many of each row's largest logits must be exact; 0 is all.
        logit_candidates: [*]const i32,

        fn read(words: [*]const i32) Batch {
            const tokens: usize = @intCast(words[0]);
            const logit_count: usize = @intCast(words[2]);
            const row_count: usize = @intCast(words[3]);
            const ids = words + ${BATCH_HEADER};
            return .{
                .tokens = tokens,
                .logit_count = logit_count,
                .row_count = row_count,
                .ids = ids,
                .places = .{
                    .tokens = tokens,
                    .positions = ids + tokens,
                    .tables_of = ids + 2 * tokens,
                    .tables = ids + 3 * tokens + row_count + logit_count,
                    .table_stride = @intCast(words[1]),
                },
                .rows = ids + 3 * tokens,
                .logit_candidates = ids + 3 * tokens + row_count,
            };
        }
    };

    const Step = struct { model: *Model, batch: Batch, logits: [*]f32 };

    inline fn floats(bytes: [*]const u8) [*]const f32 {
        return @ptrCast(@alignCast(bytes));
    }

    ${hasMatrixScales(spec) ? SCALED_LINEAR : spec.rowScales ? ROW_SCALED_LINEAR : FACTORED_LINEAR}

    inline fn inputOf(model: *const Model, comptime input: usize) Quantized {
        return switch (input) {
            ${
    inputsOf(context).map((i) =>
      `${i} => .{ ${
        inputArrays(context).map(({ name }) => `.${name} = model.x${i}_${name}`).join(", ")
      } },`
    )
  }
            else => comptime unreachable,
        };
    }
  `;
}

/** Memory of experts beside the buffers of max_tokens rows. */
const EXPERT_FIELDS = zig`
  /// Of each thread its own: inputs and outputs of some tokens of an expert.
  thread_experts: [*]u8,
  thread_expert_bytes: usize,
  /// The same for all threads, where they share an expert.
  shared_experts: [*]u8,
  /// Of each thread its own: tokens by expert.
  groups: [*]u32,
`;

/**
 * A linear of the layer: `scale` is its place among the layer's scales, or where its rows' scales or its
 * groups' factors lie.
 */
const SCALED_LINEAR = zig`
  inline fn linearAt(layer: [*]const u8, comptime scale: usize, comptime codes: usize, comptime bias: ?usize) Linear {
      return .{
          .codes = layer + codes,
          .scale = floats(layer + at.scales)[scale],
          .bias = if (bias) |offset| floats(layer + offset) else null,
      };
  }
`;
const ROW_SCALED_LINEAR = zig`
  inline fn linearAt(layer: [*]const u8, comptime scale: usize, comptime codes: usize, comptime bias: ?usize) Linear {
      return .{
          .codes = layer + codes,
          .scales = floats(layer + scale),
          .bias = if (bias) |offset| floats(layer + offset) else null,
      };
  }
`;

const FACTORED_LINEAR = zig`
  inline fn linearAt(layer: [*]const u8, comptime factors: usize, comptime codes: usize, comptime bias: ?usize) Linear {
      return .{
          .codes = layer + codes,
          .factors = @ptrCast(@alignCast(layer + factors)),
          .bias = if (bias) |offset| floats(layer + offset) else null,
      };
  }
`;
