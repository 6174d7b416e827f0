/** Phases of a layer that multiply: how inputs come to be codes, and where outputs go. */
import { blocksOf, paddedRows } from "../layouts/layout.ts";
import { LINEAR_NAMES, type LinearName, linearShape, type ModelSpec } from "../model_spec.ts";
import { normSymbol, paddedFloats, quantizeSymbol } from "../norm_quantize/template.ts";
import { hasMatrixScales } from "../plan.ts";
import { linearSymbol } from "../ternary_linear/scheme.ts";
import { zig } from "../writer.ts";
import type { Context } from "./context.ts";
import { attendPhase, layerTables, placeHead, rotatePhase } from "./turns.ts";

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

export function layerPhases(context: Context): string {
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

export const INPUT_NORMS = {
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
export function addOutput({ spec, hidden }: Context, weight: string): string {
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
export function rowScratch(context: Context): number {
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

/** Where the factors of a linear are: its place among the layer's scales, or a region of its own. */
function scalePlace(spec: ModelSpec, name: LinearName): string | number {
  if (hasMatrixScales(spec)) return LINEAR_NAMES.indexOf(name);
  return spec.rowScales ? `at.${name}_scales` : `at.${name}_factors`;
}
