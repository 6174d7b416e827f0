import { BLOCK_ROWS } from "../layouts/layout.ts";
import { ROWS32, STEP_BYTES, STEP_FEATURES, stepsOf } from "../layouts/rows32.ts";
import type { Groups } from "../model_spec.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { type Dialect, dialectPrelude, type Tile } from "./dialects.ts";
import { groupCount, groupOut, groupStarts, groupSteps } from "./groups.ts";
import type { Scheme } from "./scheme.ts";
import {
  callUnpacked,
  finishFunction,
  startsOfGroups,
  SUMS,
  sumsOfInputs,
  unpackedFunctions,
  unpackedTokens,
} from "./unpacked.ts";

/** Features of a slice that is unpacked at once: 16 KB of codes, unless lanes hold fewer products. */
const SLICE_FEATURES = 512;

/** Multiplies codes 0, 1, 2 by int8 activations: 2 bits a weight, for every instruction set. */
export function multiply(dialect: Dialect): Scheme {
  const { partialGroups } = dialect;
  const sliceFeatures = Math.min(SLICE_FEATURES, 4 * partialGroups);
  const finish = "finishBlock(true, linear, x, .{ 0, tokens }, row, y, y_stride);";
  const out = "FirstSums{ .y = sums + t * y_stride + row, .y_stride = y_stride }";
  return {
    name: "multiply",
    layout: ROWS32,
    withGroups: (groups) => multiplyGroups(dialect, groups, sliceFeatures),
    provedTokens: provedTokens(dialect),
    inputBuffers: () => [SUMS],
    prelude: prelude(dialect, [finishFunction(), FIRST_SUMS], sliceFeatures),
    prepare: sumsOfInputs,
    linear: ({ n, k }) =>
      zig`
        ${dialect.unpackedTiles.length > 0 ? callUnpacked(dialect, { n, k }) : ""}
        const sums: [*]i32 = @ptrCast(y);
        ${blockLoop(dialect, k, out, finish)}
      `,
  };
}

/**
 * As `multiply`, a group after the other. Groups that are larger than a slice of unpacked codes are not
 * unpacked before: no model has them.
 */
function multiplyGroups(whole: Dialect, groups: Groups, sliceFeatures: number): Scheme {
  const fits = groups.size <= sliceFeatures;
  const own = { ...whole, ...whole.groupTiles };
  const dialect = fits ? own : { ...own, unpackedTiles: [], unpackFrom: Infinity };
  const finish = "finishRows(linear, .{ 0, tokens }, row, y, y_stride);";
  return {
    name: "multiply",
    layout: ROWS32,
    groups,
    provedTokens: provedTokens(dialect),
    inputBuffers: (k) => [groupStarts(groups, k)],
    prelude: prelude(dialect, [groupOut(groups)], groups.size, groups),
    prepare: (k) => startsOfGroups(groups, k),
    linear: ({ n, k }) => {
      const out = `groupOut(${groupCount(groups, k)}, linear, x, t, block, y, y_stride)`;
      return zig`
        ${dialect.unpackedTiles.length > 0 ? callUnpacked(dialect, { n, k }) : ""}
        ${blockLoop(dialect, k, out, finish)}
      `;
    },
  };
}

function prelude(
  dialect: Dialect,
  outs: readonly string[],
  sliceFeatures: number,
  groups?: Groups,
): string {
  const { maskedTiles, packedTiles, unpackedTiles } = dialect;
  const unpacks = unpackedTiles.length > 0;
  return [
    dialectPrelude(dialect),
    ...outs,
    planeFunction(),
    groupConstant(groups),
    maskedTiles.length > 0 ? maskedTile(groups) : "",
    packedTiles.length > 0 ? packedTile(dialect, groups) : "",
    unpacks ? unpackedFunctions(dialect, sliceFeatures, groups) : "",
    unpacks ? unpackFunction() : "",
  ].filter((text) => text !== "").join("\n");
}

function groupConstant(groups?: Groups): string {
  return groups === undefined
    ? zig`
      /// Steps of 16 features whose exact sums are put out together: all of a row.
      const group_steps = 1 << 30;
    `
    : zig`
      /// Steps of 16 features of a group.
      const group_steps = ${groupSteps(groups)};
    `;
}

/** All tokens of a block, then the next block. */
function blockLoop(dialect: Dialect, k: number, out: string, finish: string): string {
  return zig`
    for (blocks[0]..blocks[1]) |block| {
        const w = linear.codes + block * ${stepsOf(k) * STEP_BYTES};
        const row = block * ${BLOCK_ROWS};
        var t: usize = 0;
        ${tileLoops(dialect, k, out)}
        ${finish}
    }
  `;
}

const FIRST_SUMS = zig`
  /// Takes exact sums of all features, which are scaled afterwards.
  const FirstSums = struct {
      y: [*]i32,
      y_stride: usize,

      inline fn start(_: FirstSums, _: usize, _: usize, _: usize) Sums {
          return @splat(0);
      }

      inline fn factorsOf(_: FirstSums, _: usize, _: usize) void {}

      inline fn put(out: FirstSums, t: usize, _: usize, row: usize, sums: Sums, _: void) void {
          out.y[t * out.y_stride + row ..][0..vector_rows].* = sums;
      }
  };
`;

/** One of each tile for few tokens, and of those for many as many as there have to be. */
export function provedTokens(dialect: Dialect): number[] {
  const few = [...dialect.maskedTiles, ...dialect.packedTiles];
  return [few.reduce((sum, { m }) => sum + m, 0), ...unpackedTokens(dialect)];
}

/** Tiles for few tokens, largest first. */
function tileLoops({ maskedTiles, packedTiles }: Dialect, k: number, out: string): string[] {
  const loop = (name: string) => ({ m, vectors }: Tile) =>
    `while (t + ${m} <= tokens) : (t += ${m}) ${name}(${m}, ${vectors}, ${stepsOf(k)}, ${
      activationStride(k)
    }, w, t == 0, x.codes + t * ${activationStride(k)}, ${out});`;
  const tiles = [
    ...maskedTiles.map((tile) => ({ m: tile.m, text: loop("maskedTile")(tile) })),
    ...packedTiles.map((tile) => ({ m: tile.m, text: loop("packedTile")(tile) })),
  ];
  return tiles.sort((a, b) => b.m - a.m).map(({ text }) => text);
}

/**
 * Decode reads its weights from memory once and in order, but what the hardware fetches ahead stops at
 * the end of a page, and the unpacking between two loads hides what comes next. On an Emerald Rapids
 * core 4 KB ahead gave 80 % of the memory peak in place of 50 %; 2 KB gave 68 %, 8 and 16 KB the same.
 */
const AHEAD_BYTES = 8192;
/**
 * With groups, on a Zen 4 core of 32.3 GB/s: 6 KB ahead into the first-level cache 29.6 GB/s, 4 KB 29.1,
 * 8 KB 28.5; as without groups 25.8.
 */
const GROUPS_AHEAD_BYTES = 6144;

/**
 * Fetches a step ahead, into the second-level cache or with groups the first; past the end of the
 * weights that is harmless. Of several tokens, the first ones find weights that nobody has read yet.
 */
function fetchAhead(groups?: Groups): string {
  const [bytes, locality] = groups === undefined ? [AHEAD_BYTES, 2] : [GROUPS_AHEAD_BYTES, 3];
  return zig`
    if (fresh) {
        inline for (0..(vectors * vector_rows * 4 + 63) / 64) |line| @prefetch(from + ${bytes} + 64 * line, .{ .locality = ${locality} });
    }
  `;
}

/**
 * Few tokens leave accumulators to spare, so a plane is masked where it lies instead of shifted: its
 * codes are 4^i times too large, and so is the plane's own sum, which is shifted once at the end.
 * Two instructions for 64 weights in place of three.
 */
function maskedTile(groups?: Groups): string {
  return zig`
    /// Sums of code * x for a block of 32 rows and m tokens. A code is 0, 1 or 2 for weight -1, 0, +1, so
    /// that they are larger than those of weights by the sum of x.
    fn maskedTile(comptime m: usize, comptime vectors: usize, comptime steps: usize, comptime x_stride: usize, w: [*]const u8, fresh: bool, x: [*]const i8, out: anytype) void {
        // A product is at most 128 * 128 in size, and a lane adds four of them a step to each plane.
        comptime if (steps * 4 * 128 * 128 >= 1 << 31) @compileError("sums overflow int32");
        inline for (0..block_vectors / vectors) |part| {
            var g: usize = 0;
            while (g * group_steps < steps) : (g += 1) {
                var acc: [m][vectors][4]Sums = @splat(@splat(@splat(@splat(0))));
                inline for (0..m) |t| {
                    inline for (0..vectors) |v| acc[t][v][0] = out.start(t, g, (part * vectors + v) * vector_rows);
                }
                for (g * group_steps..@min((g + 1) * group_steps, steps)) |step| {
                    const from = w + step * ${STEP_BYTES} + part * vectors * vector_rows * 4;
                    ${fetchAhead(groups)}
                    inline for (0..4) |i| {
                        inline for (0..vectors) |v| {
                            const all: Codes = from[v * vector_rows * 4 ..][0 .. vector_rows * 4].*;
                            const codes = all & @as(Codes, @splat(3 << (2 * i)));
                            inline for (0..m) |t| {
                                const x_t = broadcastFour(x + t * x_stride + step * ${STEP_FEATURES}, i);
                                acc[t][v][i] = addProducts(acc[t][v][i], codes, x_t);
                            }
                        }
                    }
                }
                inline for (0..vectors) |v| {
                    const row = (part * vectors + v) * vector_rows;
                    const factors = out.factorsOf(g, row);
                    inline for (0..m) |t| {
                        var sums = acc[t][v][0];
                        inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
                        out.put(t, g, row, sums, factors);
                    }
                }
            }
        }
    }
  `;
}

function packedTile({ partialGroups }: Dialect, groups?: Groups): string {
  return zig`
    /// Sums of code * x for a block of 32 rows and m tokens. A code is 0, 1 or 2 for weight -1, 0, +1, so
    /// that they are larger than those of weights by the sum of x.
    fn packedTile(comptime m: usize, comptime vectors: usize, comptime steps: usize, comptime x_stride: usize, w: [*]const u8, fresh: bool, x: [*]const i8, out: anytype) void {
        const partial_steps = @min(${Math.floor(partialGroups / 4)}, group_steps, steps);
        inline for (0..block_vectors / vectors) |part| {
            var g: usize = 0;
            while (g * group_steps < steps) : (g += 1) {
                const last: usize = @min((g + 1) * group_steps, steps);
                var sums: [m][vectors]Sums = undefined;
                inline for (0..m) |t| {
                    inline for (0..vectors) |v| sums[t][v] = out.start(t, g, (part * vectors + v) * vector_rows);
                }
                var first = g * group_steps;
                while (first < last) : (first += partial_steps) {
                    // Partial sums that need no widening go on where the sums are.
                    var acc: [m][vectors]Partial = if (Partial == Sums) sums else @splat(@splat(@splat(0)));
                    for (first..@min(first + partial_steps, last)) |step| {
                        const from = w + step * ${STEP_BYTES} + part * vectors * vector_rows * 4;
                        ${fetchAhead(groups)}
                        inline for (0..4) |i| {
                            var codes: [vectors]Codes = undefined;
                            inline for (0..vectors) |v| codes[v] = plane(from[v * vector_rows * 4 ..][0 .. vector_rows * 4].*, i);
                            inline for (0..m) |t| {
                                const x_t = broadcastFour(x + t * x_stride + step * ${STEP_FEATURES}, i);
                                inline for (0..vectors) |v| acc[t][v] = addProducts(acc[t][v], codes[v], x_t);
                            }
                        }
                    }
                    inline for (0..m) |t| {
                        inline for (0..vectors) |v| sums[t][v] = if (Partial == Sums) acc[t][v] else sums[t][v] + widen(acc[t][v]);
                    }
                }
                inline for (0..vectors) |v| {
                    const row = (part * vectors + v) * vector_rows;
                    const factors = out.factorsOf(g, row);
                    inline for (0..m) |t| out.put(t, g, row, sums[t][v], factors);
                }
            }
        }
    }
  `;
}

/** Bits 2i, 2i+1 of every byte. x86 has no 8-bit shift: lanes of 16 bits, the mask drops what crosses. */
function planeFunction(): string {
  return zig`
    /// The codes in bits 2i, 2i + 1 of every byte.
    inline fn plane(packed_codes: Codes, comptime i: u4) Codes {
        const Words = @Vector(@typeInfo(Codes).vector.len / 2, u16);
        const words: Words = @bitCast(packed_codes);
        const shifted: Codes = @bitCast(words >> @splat(2 * i));
        return shifted & @as(Codes, @splat(3));
    }
  `;
}

function unpackFunction(): string {
  return zig`
    /// Codes of a slice of a block. Returns the number of its steps of 16 features.
    fn unpackSlice(comptime matrix: Matrix, codes: [*]const u8, block: usize, slice: usize, out: *Slice) usize {
        const slice_steps = slice_features / ${STEP_FEATURES};
        const steps = (matrix.features + ${STEP_FEATURES - 1}) / ${STEP_FEATURES};
        const first = slice * slice_steps;
        const from = codes + (block * steps + first) * ${STEP_BYTES};
        const count: usize = @min(slice_steps, steps - first);
        for (0..count) |step| {
            inline for (0..${
    STEP_BYTES / 64
  }) |line| @prefetch(from + step * ${STEP_BYTES} + ${AHEAD_BYTES} + 64 * line, .{ .locality = 2 });
            inline for (0..block_vectors) |v| {
                const all: Codes = from[step * ${STEP_BYTES} + v * vector_rows * 4 ..][0 .. vector_rows * 4].*;
                putCodes(out, step * 4, v, plane(all, 0), plane(all, 1));
                putCodes(out, step * 4 + 2, v, plane(all, 2), plane(all, 3));
            }
        }
        return count;
    }
  `;
}
