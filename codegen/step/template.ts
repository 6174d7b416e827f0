import { activation } from "../activation/template.ts";
import { KV_BLOCK_POSITIONS, kvRow } from "../attention/cache.ts";
import { attention, attentionBytes, attentionSymbol } from "../attention/template.ts";
import { carver } from "../carver.ts";
import { dense, embedding } from "../dense/template.ts";
import { expertBuffers, experts } from "../experts/template.ts";
import { blocksOf, paddedRows } from "../layouts/layout.ts";
import {
  hasSketch,
  type KvType,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  rotaryDim,
  ternaryShapes,
} from "../model_spec.ts";
import {
  normSymbol,
  paddedFloats,
  quantize,
  quantizeSymbol,
  rmsNorm,
} from "../norm_quantize/template.ts";
import { hasFloatHead, hasMatrixScales, type PackedPlan, planOf, regionOf } from "../plan.ts";
import { headTail, ternaryEmbedding, ternaryHead } from "../head/ternary.ts";
import {
  RESCORED,
  SKETCH_FIELDS,
  sketchMemory,
  sketchMemoryBytes,
  twoStageHead,
} from "../head/template.ts";
import { rope } from "../rope/template.ts";
import { type InputBuffer, linearSymbol } from "../ternary_linear/scheme.ts";
import { factorType } from "../ternary_linear/groups.ts";
import { kernelName, type TernaryKernel } from "../ternary_linear/spec.ts";
import {
  inputBuffers,
  inputBytes,
  linearPrelude,
  linears,
  matrixBytes,
  uniqueShapes,
} from "../ternary_linear/template.ts";
import { zig } from "../writer.ts";
import { STEP_PHASE_NAMES } from "./phases.ts";

/** Raised whenever the exported functions or the batch change: a stale library is never called. */
export const ABI_VERSION = 6;

/** What steers generation beside the model's shapes. */
export interface StepOptions {
  /** How ternary linears are multiplied. */
  kernel: TernaryKernel;
  /** How keys and values are kept. */
  kvType: KvType;
}

/** Everything a model's templates look up, computed once. */
interface Context {
  spec: ModelSpec;
  plan: PackedPlan;
  options: StepOptions;
  hidden: number;
  queries: number;
  queryRow: number;
  maxFeatures: number;
  maxOutputs: number;
}

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

/** How a model is run, as far as its memory depends on it. */
export interface StepSizes {
  threads: number;
  maxBatchTokens: number;
  contextSize: number;
}

const TYPE_BYTES: Readonly<Record<string, number>> = {
  u8: 1,
  i8: 1,
  i16: 2,
  u16: 2,
  f16: 2,
  i32: 4,
  u32: 4,
  f32: 4,
  f64: 8,
};

/**
 * Native bytes that a model takes beside its weights and its cache: buffers of a step, RoPE's tables,
 * and what attention works with. Left out are ends of cache lines and counters, some kilobytes.
 */
export function stepBufferBytes(
  spec: ModelSpec,
  options: StepOptions,
  { threads, maxBatchTokens, contextSize }: StepSizes,
): number {
  const context = contextOf(spec, options);
  const tokens = Math.max(maxBatchTokens, threads);
  const rowBytes = buffers(context)
    .reduce((sum, [, type, elements]) => sum + elements * TYPE_BYTES[type], 0);
  const { kernel: { scheme, isa }, kvType } = options;
  return tokens * rowBytes +
    threads * 8 * rowScratch(context) +
    4 * contextSize * ropeElements(spec) +
    (spec.experts ? expertMemoryBytes(spec, scheme, threads, tokens) : 0) +
    (hasSketch(spec) ? sketchMemoryBytes(spec, threads) : 0) +
    attentionBytes(spec, kvType, isa, { threads, tokens, contextSize });
}

function contextOf(spec: ModelSpec, options: StepOptions): Context {
  checkKernel(spec, options.kernel);
  const queries = spec.numAttentionHeads * spec.headDim;
  const shapes = ternaryShapes(spec);
  return {
    spec,
    plan: planOf(spec, options.kernel.scheme.layout),
    options,
    hidden: paddedFloats(spec.hiddenSize),
    queries,
    queryRow: paddedFloats(queries),
    maxFeatures: Math.max(...shapes.map((shape) => shape.k)),
    maxOutputs: Math.max(...shapes.map((shape) => paddedRows(shape.n))),
  };
}

/** @throws {RangeError} If the kernel rounds inputs otherwise than the model; see `kernelsFor`. */
function checkKernel({ groups }: ModelSpec, kernel: TernaryKernel): void {
  const [wanted, has] = [groups, kernel.scheme.groups].map((one) =>
    one && [one.size, factorType(one)].join()
  );
  if (wanted === has) return;
  throw new RangeError(
    `Cannot use ${kernelName(kernel)} as the model has ${
      wanted ? `groups of ${wanted}` : "no groups"
    }` +
      `: the kernel has ${has ? `groups of ${has}` : "none"}`,
  );
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

function norms({ spec }: Context): string {
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

/** Buffers of one step, each `max_tokens` rows: name, Zig type and elements a token. */
function buffers(context: Context): [name: string, type: string, elements: number][] {
  const { spec, hidden, queryRow } = context;
  const outputs = (name: LinearName) => paddedRows(linearShape(spec, name).n);
  return [
    ["h", "f32", hidden],
    ["y", "f32", paddedRows(spec.hiddenSize)],
    ["q", "f32", outputs("q")],
    ["k", "f32", outputs("k")],
    ["v", "f32", outputs("v")],
    ["attended", "f32", queryRow],
    ...mlpBuffers(context),
    ["normed", "f32", hidden],
    ...(headTail(spec) > 0
      ? [["head_tail", "f32", headTail(spec)] as [string, string, number]]
      : []),
    ...inputsOf(context).flatMap((i) =>
      inputArrays(context).map(({ name, type, elements }): [string, string, number] => [
        `x${i}_${name}`,
        type,
        elements,
      ])
    ),
  ];
}

function mlpBuffers({ spec, options }: Context): [name: string, type: string, elements: number][] {
  if (spec.experts !== undefined) return expertBuffers(spec, options.kernel.scheme).perToken;
  const features = paddedRows(spec.intermediateSize);
  return [["gate", "f32", features], ["up", "f32", features]];
}

/** Quantised inputs that exist at once: one a linear of a group where each norms its own input. */
function inputsOf({ spec }: Context): number[] {
  return spec.linearNormEps === null ? [0] : [0, 1, 2];
}

/** The arrays of an input that has room for any linear's features. */
function inputArrays({ options, maxFeatures }: Context): InputBuffer[] {
  return inputBuffers(options.kernel.scheme, maxFeatures);
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

/** Where the factors of a linear are: its place among the layer's scales, or a region of its own. */
function scalePlace(spec: ModelSpec, name: LinearName): string | number {
  if (hasMatrixScales(spec)) return LINEAR_NAMES.indexOf(name);
  return spec.rowScales ? `at.${name}_scales` : `at.${name}_factors`;
}

/** Words before the lists of a batch: tokens, block table stride, logit rows. */
export const BATCH_HEADER = 4;

/** The linears that read one row of activations, and how it comes to be. */
interface LinearGroup {
  names: readonly LinearName[];
  /** Buffers that the group's outputs go to. */
  outputs: readonly string[];
}

const GROUPS = {
  attentionIn: { names: ["q", "k", "v"], outputs: ["q", "k", "v"] },
  attentionOut: { names: ["o"], outputs: ["y"] },
  mlpIn: { names: ["gate", "up"], outputs: ["gate", "up"] },
  mlpOut: { names: ["down"], outputs: ["y"] },
} satisfies Record<string, LinearGroup>;

function layerPhases(context: Context): string {
  const { spec } = context;
  return [
    spec.postNorms ? LAYER_BEFORE : "",
    residualInput(context, "attentionInput", INPUT_NORMS.attention, GROUPS.attentionIn),
    groupLinears(context, "attentionLinears", GROUPS.attentionIn),
    layerTables(context),
    placeHead(context),
    rotatePhase(context),
    attendPhase(context),
    madeInput(
      context,
      "attentionOutput",
      attendedRow(context),
      spec.subNorms ? "attn_sub_norm" : null,
      GROUPS.attentionOut,
    ),
    groupLinears(context, "outputLinear", GROUPS.attentionOut),
    residualInput(context, "mlpInput", INPUT_NORMS.mlp, GROUPS.mlpIn),
    ...(spec.experts === undefined ? mlpPhases(context) : []),
  ].filter((text) => text !== "").join("\n");
}

function mlpPhases(context: Context): string[] {
  return [
    groupLinears(context, "mlpLinears", GROUPS.mlpIn),
    madeInput(
      context,
      "mlpOutput",
      activatedRow(context),
      context.spec.subNorms ? "ffn_sub_norm" : null,
      GROUPS.mlpOut,
    ),
    groupLinears(context, "downLinear", GROUPS.mlpOut),
  ];
}

/** Norms around a residual sum: of what is added, where the model has that, then of the sum. */
interface InputNorms {
  added: string;
  sum: string;
}

const INPUT_NORMS = {
  attention: { added: "mlp_out_norm", sum: "input_norm" },
  mlp: { added: "attention_out_norm", sum: "post_attention_norm" },
} satisfies Record<string, InputNorms>;

/** The layer whose output attention's input adds; what the first layer adds is zeros. */
const LAYER_BEFORE = zig`
  inline fn layerBefore(model: *const Model, layer: [*]const u8) [*]const u8 {
      return if (layer == model.layer(0)) layer else layer - layer_bytes;
  }
`;

/**
 * Zig that adds y to h: as it is, scaled, or normed by a weight.
 *
 * @param weight Where that weight lies; used where the model has `postNorms`.
 */
function addOutput({ spec, hidden }: Context, weight: string): string {
  const scale = spec.residualScale === undefined
    ? ""
    : ` * math.splat(${Math.fround(spec.residualScale)})`;
  const add = (output: string) =>
    `while (i < ${hidden}) : (i += math.lanes) math.store(h + i, math.load(h + i) + ${output}${scale});`;
  if (!spec.postNorms) return `var i: usize = 0;\n${add("math.load(y + i)")}`;
  return zig`
    _ = ${normSymbol(spec.hiddenSize, spec.rmsNormEps)}(f32, y, ${weight}, row);
    var i: usize = 0;
    ${add("@as(math.F, @floatCast(math.wide(f64, row + i)))")}
  `;
}

/** h += y, then norm and quantise: what precedes q/k/v and gate/up. */
function residualInput(
  context: Context,
  symbol: string,
  { added, sum }: InputNorms,
  group: LinearGroup,
): string {
  const { spec, hidden } = context;
  // The router reads what the linears read, before it is rounded.
  const routes = spec.experts !== undefined && group === GROUPS.mlpIn;
  const outputOf = group === GROUPS.mlpIn ? "layer" : "layerBefore(model, layer)";
  return zig`
    /// h += y; ${group.names.join(", ")} read round(norm(h)) of this thread's tokens.
    fn ${symbol}(step: *const Step, layer: [*]const u8, thread: usize) void {
        const model = step.model;
        const row = model.rows + thread * ${rowScratch(context)};
        const tokens = tokensOf(step, thread);
        for (tokens[0]..tokens[1]) |t| {
            const h = model.h + t * ${hidden};
            const y = model.y + t * ${paddedRows(spec.hiddenSize)};
            ${addOutput(context, `floats(${outputOf} + at.${added})`)}
            const largest = ${
    normSymbol(spec.hiddenSize, spec.rmsNormEps)
  }(f32, h, floats(layer + at.${sum}), row);
            ${quantizeInputs(context, group, { type: "f64", from: "row" }, spec.hiddenSize)}
            ${
    routes ? `for (0..${hidden}) |d| model.routed[t * ${hidden} + d] = @floatCast(row[d]);` : ""
  }
        }
    }
  `;
}

/** How the row that o or down reads comes to be: what attention wrote, or the gated activation. */
interface Made {
  /** The row, before any sub-norm. */
  row: Row;
  features: number;
  /** Zig that makes the row and `largest` from the token's buffers. */
  make: string;
}

/** Quantises what attention or the activation made, after a sub-norm where the model has one. */
function madeInput(
  context: Context,
  symbol: string,
  { row, features, make }: Made,
  subNorm: string | null,
  group: LinearGroup,
): string {
  const { spec } = context;
  const norm = normSymbol(features, spec.rmsNormEps);
  const normed = zig`
    _ = largest_made;
    const largest = ${norm}(${row.type}, ${row.from}, floats(layer + at.${String(subNorm)}), row);
    ${quantizeInputs(context, group, { type: "f64", from: "row" }, features)}
  `;
  const plain = zig`
    const largest = largest_made;
    ${quantizeInputs(context, group, row, features)}
  `;
  const body = subNorm === null ? plain : normed;
  const usesRow = /\brow\b/.test(body + make);
  return zig`
    /// ${group.names.join(", ")} reads round(${
    subNorm === null ? "x" : "norm(x)"
  }) of this thread's tokens.
    fn ${symbol}(step: *const Step, layer: [*]const u8, thread: usize) void {
        ${/\blayer\b/.test(body) ? "" : "_ = layer;"}
        const model = step.model;
        ${usesRow ? `const row = model.rows + thread * ${rowScratch(context)};` : ""}
        const tokens = tokensOf(step, thread);
        for (tokens[0]..tokens[1]) |t| {
            ${make}
            ${body}
        }
    }
  `;
}

/** x is the row that attention wrote. */
function attendedRow(context: Context): Made {
  return {
    row: { type: "f32", from: "x" },
    features: context.queries,
    make: zig`
      const x = model.attended + t * ${context.queryRow};
      const largest_made = largest_k${context.queries}(x);
    `,
  };
}

/** x is act(gate) * up, in the thread's scratch. */
function activatedRow(context: Context): Made {
  const features = context.spec.intermediateSize;
  const stride = paddedRows(features);
  return {
    row: { type: "f64", from: "row" },
    features,
    make:
      `const largest_made = gatedActivation(model.gate + t * ${stride}, model.up + t * ${stride}, row);`,
  };
}

/** Elements of a thread's scratch: a normed row, and one more for the linears' own norms. */
function rowScratch(context: Context): number {
  return 2 * paddedFloats(context.maxFeatures);
}

/** A row in `from` of element `type`, whose largest value is in `largest`. */
interface Row {
  type: "f32" | "f64";
  from: string;
}

/** One quantised input for the group, or one a linear when each norms its own input. */
function quantizeInputs(
  context: Context,
  group: LinearGroup,
  { type, from }: Row,
  features: number,
): string {
  const eps = context.spec.linearNormEps;
  const symbol = quantizeSymbol(features);
  if (eps === null) return `${symbol}(${type}, ${from}, largest, inputOf(model, 0), t);`;
  const own = `row + ${paddedFloats(context.maxFeatures)}`;
  const norm = normSymbol(features, eps);
  const inputs = group.names.map((name, i) =>
    zig`
      const largest_${name} = ${norm}(${type}, ${from}, floats(layer + at.${name}_norm), ${own});
      ${symbol}(f64, ${own}, largest_${name}, inputOf(model, ${i}), t);
    `
  );
  return zig`
    _ = largest;
    ${inputs}
  `;
}

function groupLinears(context: Context, symbol: string, group: LinearGroup): string {
  const { spec } = context;
  const shapes = group.names.map((name) => linearShape(spec, name));
  const counts = shapes.map((shape) => blocksOf(shape.n));
  const total = counts.reduce((sum, count) => sum + count, 0);
  let first = 0;
  const calls = group.names.map((name, i) => {
    const from = first;
    first += counts[i];
    const input = spec.linearNormEps === null ? 0 : i;
    const bias = spec.biases.includes(name) ? `at.${name}_bias` : "null";
    return zig`
      ${linearSymbol(shapes[i])}(linearAt(layer, ${
      scalePlace(spec, name)
    }, at.${name}_codes, ${bias}), inputOf(model, ${input}), step.batch.tokens, model.${
      group.outputs[i]
    }, ${paddedRows(shapes[i].n)}, overlap(mine, ${from}, ${counts[i]}));
    `;
  });
  return zig`
    /// ${group.names.join(", ")}: ${total} blocks of 32 rows, shared out among threads.
    fn ${symbol}(step: *const Step, layer: [*]const u8, thread: usize) void {
        const model = step.model;
        const mine = math.share(${total}, thread, model.team.threads);
        ${calls}
    }
  `;
}

/** True where some layers turn heads to their positions and others do not. */
function needsTurns({ sliding }: ModelSpec): boolean {
  return sliding !== undefined && !sliding.fullLayersTurn;
}

/** What layers do that not all layers do. */
function layerTables({ spec }: Context): string {
  const { sliding } = spec;
  if (sliding === undefined) return "";
  const turns = sliding.layers.map((slides) => slides || sliding.fullLayersTurn);
  return [
    `const layer_slides = [_]bool{ ${sliding.layers.join(", ")} };\n`,
    needsTurns(spec) ? `const layer_turns = [_]bool{ ${turns.join(", ")} };\n` : "",
  ].join("");
}

/** What comes before a head is turned, where anything does. */
function placeHead({ spec }: Context): string {
  if (!spec.qkNorm && !needsTurns(spec)) return "";
  const row = kvRow(spec);
  const parameters = [
    ...(spec.qkNorm ? ["norm: [*]const f32"] : []),
    "head: [*]const f32",
    ...(needsTurns(spec) ? ["turns: bool"] : []),
    "cos: [*]const f32, sin: [*]const f32, out: [*]f32",
  ];
  const normed = zig`
    var padded: [${row}]f32 = @splat(0);
    padded[0..${spec.headDim}].* = head[0..${spec.headDim}].*;
    var wide: [${row}]f64 = undefined;
    _ = ${normSymbol(spec.headDim, spec.rmsNormEps)}(f32, &padded, norm, &wide);
    for (0..${spec.headDim}) |d| padded[d] = @floatCast(wide[d]);
    const normed: [*]const f32 = &padded;
  `;
  const from = spec.qkNorm ? "normed" : "head";
  const turn = `rotate(${from}, cos, sin, out);`;
  const still = `@memcpy(out[0..${spec.headDim}], ${from}[0..${spec.headDim}]);`;
  return zig`
    /// A query or key head as attention reads it.
    inline fn placeHead(${parameters.join(", ")}) void {
        ${spec.qkNorm ? normed : ""}
        ${needsTurns(spec) ? `if (turns) ${turn.slice(0, -1)} else ${still}` : turn}
    }
  `;
}

function rotatePhase(context: Context): string {
  const { spec, queries } = context;
  const heads = spec.numKeyValueHeads;
  const group = spec.numAttentionHeads / heads;
  const half = rotaryDim(spec) / 2;
  const keys = paddedRows(heads * spec.headDim);
  const place = spec.qkNorm || needsTurns(spec) ? "placeHead" : "rotate";
  const turns = needsTurns(spec) ? "turns, " : "";
  const norm = (name: string) => spec.qkNorm ? `floats(layer + at.${name}_norm), ` : "";
  return zig`
    /// Turns queries and keys to their positions; keys and values go into the cache.
    fn rotateAndStore(step: *const Step, layer_index: usize, thread: usize) void {
        const model = step.model;
        const places = step.batch.places;
        ${spec.qkNorm ? "const layer = model.layer(layer_index);" : ""}
        ${needsTurns(spec) ? "const turns = layer_turns[layer_index];" : ""}
        const items = math.share(places.tokens * ${heads}, thread, model.team.threads);
        for (items[0]..items[1]) |item| {
            const t = item / ${heads};
            const head = item % ${heads};
            const position: usize = @intCast(places.positions[t]);
            const cos = ${ropeOf(context)} + position * ${half};
            const sin = cos + model.context * ${half};
            var turned: [${spec.headDim}]f32 = undefined;
            const first = model.q + t * ${paddedRows(queries)} + head * ${group * spec.headDim};
            for (queriesOf(&model.attention, t, head), 0..) |*query, g| {
                ${place}(${norm("query")}first + g * ${spec.headDim}, ${turns}cos, sin, &turned);
                makeQuery(query, &turned);
            }
            const key = model.k + t * ${keys} + head * ${spec.headDim};
            ${place}(${norm("key")}key, ${turns}cos, sin, &turned);
            const block = places.table(t)[position / ${KV_BLOCK_POSITIONS}];
            const slot = position % ${KV_BLOCK_POSITIONS};
            storeKey(keyBlock(model.attention.cache, block, layer_index, head), slot, &turned);
            storeValue(valueBlock(model.attention.cache, block, layer_index, head), slot, model.v + t * ${keys} + head * ${spec.headDim});
        }
    }
  `;
}

/** The table that a layer turns by. */
function ropeOf({ spec }: Context): string {
  if (!spec.sliding?.localRope) return "model.rope";
  return `(if (layer_slides[layer_index]) model.rope + model.context * ${
    rotaryDim(spec)
  } else model.rope)`;
}

/** Elements of all RoPE tables for a position. */
function ropeElements(spec: ModelSpec): number {
  return rotaryDim(spec) * (spec.sliding?.localRope ? 2 : 1);
}

function localTables({ sliding }: ModelSpec): string {
  return sliding?.localRope ? ", then those of sliding layers" : "";
}

function attendPhase({ spec, queryRow }: Context): string {
  const window = spec.sliding === undefined
    ? "everything"
    : `if (layer_slides[layer_index]) ${spec.sliding.window} else everything`;
  return zig`
    /// Attention of all tokens. Where spans were shared out, another barrier and their joining follow.
    fn attendAll(step: *const Step, layer_index: usize, thread: usize) void {
        const model = step.model;
        const places = step.batch.places;
        const window: usize = ${window};
        attendPieces(&model.attention, places, layer_index, window, thread, model.attended, ${queryRow});
        if (!model.attention.split) return;
        model.team.barrier();
        joinParts(&model.attention, places, window, thread, model.attended, ${queryRow});
    }
  `;
}

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

function layerLoop(context: Context): string {
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

function expertMemory(spec: ModelSpec, { kernel }: StepOptions): string {
  const { threadBytes, sharedBytes } = expertBuffers(spec, kernel.scheme);
  const { numExperts, numExpertsPerTok } = spec.experts!;
  return zig`
    model.thread_expert_bytes = ${threadBytes};
    model.thread_experts = carver.take(u8, threads * ${threadBytes});
    model.shared_experts = carver.take(u8, ${sharedBytes});
    model.groups = carver.take(u32, threads * (${
    numExperts + 2
  } + 2 * tokens * ${numExpertsPerTok}));
  `;
}

/** The bytes of that. */
function expertMemoryBytes(
  spec: ModelSpec,
  scheme: TernaryKernel["scheme"],
  threads: number,
  tokens: number,
): number {
  const { threadBytes, sharedBytes } = expertBuffers(spec, scheme);
  const { numExperts, numExpertsPerTok } = spec.experts!;
  return threads * (threadBytes + 4 * (numExperts + 2 + 2 * tokens * numExpertsPerTok)) +
    sharedBytes;
}

function lifecycle(context: Context): string {
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
