/** Phases of a layer between its linears: heads are turned, keys and values kept, attention. */
import { KV_BLOCK_POSITIONS, kvRow } from "../attention/cache.ts";
import { paddedRows } from "../layouts/layout.ts";
import { type ModelSpec, rotaryDim } from "../model_spec.ts";
import { normSymbol } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import type { Context } from "./context.ts";

/** True where some layers turn heads to their positions and others do not. */
function needsTurns({ sliding }: ModelSpec): boolean {
  return sliding !== undefined && !sliding.fullLayersTurn;
}

/** What layers do that not all layers do. */
export function layerTables({ spec }: Context): string {
  const { sliding } = spec;
  if (sliding === undefined) return "";
  const turns = sliding.layers.map((slides) => slides || sliding.fullLayersTurn);
  return [
    `const layer_slides = [_]bool{ ${sliding.layers.join(", ")} };\n`,
    needsTurns(spec) ? `const layer_turns = [_]bool{ ${turns.join(", ")} };\n` : "",
  ].join("");
}

/** What comes before a head is turned, where anything does. */
export function placeHead({ spec }: Context): string {
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

export function rotatePhase(context: Context): string {
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
export function ropeElements(spec: ModelSpec): number {
  return rotaryDim(spec) * (spec.sliding?.localRope ? 2 : 1);
}

export function localTables({ sliding }: ModelSpec): string {
  return sliding?.localRope ? ", then those of sliding layers" : "";
}

export function attendPhase({ spec, queryRow }: Context): string {
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
