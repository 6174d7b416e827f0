import { BLOCK_ROWS } from "../layouts/layout.ts";
import { ROWS32, STEP_BYTES, STEP_FEATURES, stepsOf } from "../layouts/rows32.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { type Tile, type TileDialect, tileSymbol } from "./dialects.ts";
import type { Scheme } from "./scheme.ts";

/** Multiplies codes 0, 1, 2 by int8 activations: 2 bits a weight, for every instruction set. */
export function multiply(tokenTiles: readonly number[], dialect: TileDialect): Scheme {
  return {
    name: "multiply",
    layout: ROWS32,
    tokenTiles,
    inputBuffers: () => [{ name: "sums", type: "i32", elements: 1 }],
    prelude: zig`
      ${dialect.prelude}

      /// y[t] = sums - sum of x, scaled, for the 32 rows of a block.
      inline fn finishBlock(comptime m: usize, sums: *const [m][32]i32, linear: Linear, x: Quantized, t_0: usize, row: usize, y: [*]f32, y_stride: usize) void {
          inline for (0..m) |t| {
              const offset: math.I = @splat(x.sums[t_0 + t]);
              inline for (0..2) |half| {
                  const coded: math.I = sums[t][half * 16 ..][0..16].*;
                  finish(coded - offset, linear, x.inverse[t_0 + t], row + half * 16, y + (t_0 + t) * y_stride);
              }
          }
      }
    `,
    prepare: sumOfCodes,
    tiles: (k) => tokenTiles.map((m) => dialect.tile(tileOf(m, k))).join("\n"),
    linear({ k }) {
      return zig`
        for (blocks[0]..blocks[1]) |block| {
            const w = linear.codes + block * ${stepsOf(k) * STEP_BYTES};
            const row = block * ${BLOCK_ROWS};
            var t: usize = 0;
            ${tokenTiles.map((m) => tokenLoop(tileOf(m, k)))}
        }
      `;
    },
  };
}

function tileOf(m: number, k: number): Tile {
  return { m, k, steps: stepsOf(k), xStride: activationStride(k) };
}

/** What tiles sum too much, as they multiply by codes 0, 1, 2. Padding activations are zero. */
function sumOfCodes(k: number): string {
  return zig`
    const codes = x.codes + t * ${activationStride(k)};
    var sums: math.I = @splat(0);
    for (0..${stepsOf(k)}) |step| {
        const some: @Vector(${STEP_FEATURES}, i8) = codes[step * ${STEP_FEATURES} ..][0..${STEP_FEATURES}].*;
        sums += @as(math.I, some);
    }
    x.sums[t] = @reduce(.Add, sums);
  `;
}

function tokenLoop(tile: Tile): string {
  return zig`
    while (t + ${tile.m} <= tokens) : (t += ${tile.m}) {
        var sums: [${tile.m}][32]i32 = undefined;
        ${tileSymbol(tile)}(w, x.codes + t * ${tile.xStride}, &sums);
        finishBlock(${tile.m}, &sums, linear, x, t, row, y, y_stride);
    }
  `;
}
