import { BLOCK_ROWS } from "../layouts/layout.ts";
import { STEP_BYTES, STEP_FEATURES } from "../layouts/rows32.ts";
import { zig } from "../writer.ts";

/** Shape of one tile: a block of 32 rows against `m` tokens of `k` features. */
export interface Tile {
  m: number;
  k: number;
  steps: number;
  /** Bytes from one token's activations to the next. */
  xStride: number;
}

/** What an instruction set brings: its vectors and products, and the tile built from them. */
export interface TileDialect {
  /** Types, intrinsics and small functions, once a file. */
  prelude: string;
  /** `fn tile_k{k}_m{m}(w, x, out)`: out[t][row] = sum of code * x, codes 0..2. */
  tile(tile: Tile): string;
}

export function tileSymbol(tile: { k: number; m: number }): string {
  return `tile_k${tile.k}_m${tile.m}`;
}

function tileDoc(tile: Tile): string {
  return zig`
    /// Sums of code * x for a block of 32 rows and ${tile.m} token(s), k = ${tile.k}. A code is 0, 1 or 2
    /// for weight -1, 0, +1, so the caller subtracts the sum of x.
  `;
}

/** Registers of the 32-bit-lane dialects: a register holds `rows` rows of a block. */
const DOT_FOUR = {
  avx512: {
    rows: 16,
    // 16 accumulators keep both multiply ports busy over a latency of 5.
    group: (_m: number) => 2,
    // 4 planes of 2 vectors and 2 tokens: 16 accumulators again, without the shifts.
    maskedTokens: 2,
    prelude: zig`
      const Sums = @Vector(16, i32);
      const Codes = @Vector(64, u8);
      extern fn @"llvm.x86.avx512.vpdpbusd.512"(Sums, Sums, Sums) callconv(.{ .x86_64_sysv = .{} }) Sums;

      /// acc[lane] += sum over j < 4 of codes[4 lane + j] * x[4 lane + j]: vpdpbusd.
      inline fn dotFour(acc: Sums, codes: Codes, x: Sums) Sums {
          return @"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(codes), x);
      }
    `,
  },
  "neon-dotprod": {
    rows: 4,
    // 32 registers: 8 or 16 accumulators, the codes, and room for the activations.
    group: (m: number) => m === 4 ? 4 : 8,
    // sdot takes codes as signed bytes: 2 << 6 would be -128.
    maskedTokens: 0,
    prelude: zig`
      const Sums = @Vector(4, i32);
      const Codes = @Vector(16, u8);
      extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(Sums, @Vector(16, i8), @Vector(16, i8)) Sums;

      /// acc[lane] += sum over j < 4 of codes[4 lane + j] * x[4 lane + j]: sdot.
      inline fn dotFour(acc: Sums, codes: Codes, x: Sums) Sums {
          return @"llvm.aarch64.neon.sdot.v4i32.v16i8"(acc, @bitCast(codes), @bitCast(x));
      }
    `,
  },
};

/** Four products and their sum added to a 32-bit lane by one instruction: vpdpbusd or sdot. */
export function dotFour(isa: keyof typeof DOT_FOUR): TileDialect {
  const { rows, group, maskedTokens, prelude } = DOT_FOUR[isa];
  return {
    prelude: zig`
      ${prelude}

      ${planeFunction()}

      inline fn broadcastFour(x: [*]const i8) Sums {
          const four: i32 = @bitCast(x[0..4].*);
          return @splat(four);
      }
    `,
    tile: (tile) =>
      tile.m <= maskedTokens ? maskedTile(tile, rows) : dotFourTile(tile, rows, group(tile.m)),
  };
}

/**
 * Few tokens leave accumulators to spare, so a plane is masked where it lies instead of shifted: its
 * codes are 4^i times too large, and so is the plane's own sum, which is shifted once at the end.
 * Two instructions for 64 weights in place of three.
 */
function maskedTile(tile: Tile, rows: number): string {
  const vectors = BLOCK_ROWS / rows;
  // A product is at most 128 * 128 in size, and a lane adds a quarter of them to each plane.
  const largest = tile.k / 4 * 128 * 128;
  if (largest >= 2 ** 31) throw new RangeError(`Sums of ${tile.k} features overflow int32`);
  return zig`
    ${tileDoc(tile)}
    fn ${tileSymbol(tile)}(w: [*]const u8, x: [*]const i8, out: *[${tile.m}][32]i32) void {
        var acc: [${tile.m}][${vectors}][4]Sums = @splat(@splat(@splat(@splat(0))));
        for (0..${tile.steps}) |step| {
            const from = w + step * ${STEP_BYTES};
            ${tile.m === 1 ? fetchAhead(STEP_BYTES) : []}
            inline for (0..4) |i| {
                inline for (0..${vectors}) |v| {
                    const all: Codes = from[v * ${rows * 4} ..][0..${rows * 4}].*;
                    const codes = all & @as(Codes, @splat(3 << (2 * i)));
                    inline for (0..${tile.m}) |t| {
                        const x_t = broadcastFour(x + t * ${tile.xStride} + step * ${STEP_FEATURES} + i * 4);
                        acc[t][v][i] = dotFour(acc[t][v][i], codes, x_t);
                    }
                }
            }
        }
        inline for (0..${tile.m}) |t| {
            inline for (0..${vectors}) |v| {
                var sums = acc[t][v][0];
                inline for (1..4) |i| sums += acc[t][v][i] >> @splat(2 * i);
                out[t][v * ${rows} ..][0..${rows}].* = sums;
            }
        }
    }
  `;
}

/**
 * Decode reads its weights from memory once and in order, but what the hardware fetches ahead stops at
 * the end of a page, and the unpacking between two loads hides what comes next. On an Emerald Rapids
 * core 4 KB ahead gave 80 % of the memory peak in place of 50 %; 2 KB gave 68 %, 8 and 16 KB the same.
 */
const AHEAD_BYTES = 8192;

/** Fetches `bytes` ahead into the second-level cache; past the end of the weights that is harmless. */
function fetchAhead(bytes: number): string[] {
  const lines = Array.from({ length: Math.ceil(bytes / 64) }, (_, i) => AHEAD_BYTES + 64 * i);
  return lines.map((offset) => `@prefetch(from + ${offset}, .{ .locality = 2 });`);
}

function dotFourTile(tile: Tile, rows: number, vectors: number): string {
  const groups = BLOCK_ROWS / rows / vectors;
  const groupBytes = STEP_BYTES / groups;
  return zig`
    ${tileDoc(tile)}
    fn ${tileSymbol(tile)}(w: [*]const u8, x: [*]const i8, out: *[${tile.m}][32]i32) void {
        inline for (0..${groups}) |group| {
            var acc: [${tile.m}][${vectors}]Sums = @splat(@splat(@splat(0)));
            for (0..${tile.steps}) |step| {
                const from = w + step * ${STEP_BYTES} + group * ${groupBytes};
                ${fetchAhead(groupBytes)}
                inline for (0..4) |i| {
                    var codes: [${vectors}]Codes = undefined;
                    inline for (0..${vectors}) |v| codes[v] = plane(from[v * ${rows * 4} ..][0..${
    rows * 4
  }].*, i);
                    inline for (0..${tile.m}) |t| {
                        const x_t = broadcastFour(x + t * ${tile.xStride} + step * ${STEP_FEATURES} + i * 4);
                        inline for (0..${vectors}) |v| acc[t][v] = dotFour(acc[t][v], codes[v], x_t);
                    }
                }
            }
            inline for (0..${tile.m}) |t| {
                inline for (0..${vectors}) |v| out[t][(group * ${vectors} + v) * ${rows} ..][0..${rows}].* = acc[t][v];
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

/**
 * AVX2: vpmaddubsw adds two products to a 16-bit lane. A lane holds 64 of them: 64 * 2 * 2 * 127 =
 * 32,512 and 64 * 2 * 2 * -128 = -32,768 fit in int16. 64 are 16 steps of 4 planes.
 */
export function pairwise(): TileDialect {
  return {
    prelude: zig`
      const Sums = @Vector(8, i32);
      const Pairs = @Vector(16, i16);
      const Codes = @Vector(32, u8);
      extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Codes, @Vector(32, i8)) callconv(.{ .x86_64_sysv = .{} }) Pairs;
      extern fn @"llvm.x86.avx2.pmadd.wd"(Pairs, Pairs) callconv(.{ .x86_64_sysv = .{} }) Sums;

      /// Lane l: codes[2l] * x[2l] + codes[2l + 1] * x[2l + 1]: vpmaddubsw, which can't saturate here.
      inline fn dotTwo(codes: Codes, x: @Vector(32, i8)) Pairs {
          return @"llvm.x86.avx2.pmadd.ub.sw"(codes, x);
      }

      /// Adds neighbouring 16-bit lanes into 32-bit ones.
      inline fn addPairs(pairs: Pairs) Sums {
          return @"llvm.x86.avx2.pmadd.wd"(pairs, @splat(1));
      }

      ${planeFunction()}

      inline fn broadcastFour(x: [*]const i8) @Vector(32, i8) {
          const four: i32 = @bitCast(x[0..4].*);
          return @bitCast(@as(Sums, @splat(four)));
      }
    `,
    // 16 registers: with two vectors of codes, 6 tokens' sums spill (80 instead of 107 G MAC/s).
    tile: (tile) => pairwiseTile(tile, tile.m === 6 ? 1 : 4),
  };
}

function pairwiseTile(tile: Tile, vectors: number): string {
  const groups = 4 / vectors;
  return zig`
    ${tileDoc(tile)}
    fn ${tileSymbol(tile)}(w: [*]const u8, x: [*]const i8, out: *[${tile.m}][32]i32) void {
        inline for (0..${groups}) |group| {
            var sums: [${tile.m}][${vectors}]Sums = @splat(@splat(@splat(0)));
            var first: usize = 0;
            while (first < ${tile.steps}) : (first += 16) {
                var acc: [${tile.m}][${vectors}]Pairs = @splat(@splat(@splat(0)));
                for (first..@min(first + 16, ${tile.steps})) |step| {
                    const from = w + step * ${STEP_BYTES} + group * ${STEP_BYTES / groups};
                    ${tile.m === 1 ? fetchAhead(STEP_BYTES) : []}
                    inline for (0..4) |i| {
                        var codes: [${vectors}]Codes = undefined;
                        inline for (0..${vectors}) |v| codes[v] = plane(from[v * 32 ..][0..32].*, i);
                        inline for (0..${tile.m}) |t| {
                            const x_t = broadcastFour(x + t * ${tile.xStride} + step * ${STEP_FEATURES} + i * 4);
                            inline for (0..${vectors}) |v| acc[t][v] +%= dotTwo(codes[v], x_t);
                        }
                    }
                }
                inline for (0..${tile.m}) |t| {
                    inline for (0..${vectors}) |v| sums[t][v] += addPairs(acc[t][v]);
                }
            }
            inline for (0..${tile.m}) |t| {
                inline for (0..${vectors}) |v| out[t][(group * ${vectors} + v) * 8 ..][0..8].* = sums[t][v];
            }
        }
    }
  `;
}

/**
 * Plain vectors: products widened to 16 bits, added to lanes that hold 128 of them: 128 * 2 * 127 =
 * 32,512 and 128 * 2 * -128 = -32,768 fit in int16. 128 are 32 steps of 4 planes. NEON turns the
 * product and sum into smlal; SSE2 into pmullw and paddw.
 */
export function widening(): TileDialect {
  return {
    prelude: zig`
      const Sums = @Vector(4, i32);
      const Codes = @Vector(16, u8);
      const Products = @Vector(16, i16);

      ${planeFunction()}

      /// codes[l] * x[l], exact in 16 bits.
      inline fn multiply(codes: Codes, x: @Vector(16, i8)) Products {
          const w: @Vector(16, i8) = @bitCast(codes);
          return @as(Products, w) * @as(Products, x);
      }

      /// Lane r: the sum of products 4r .. 4r + 3, in 32 bits.
      inline fn addFours(products: Products) Sums {
          const wide: @Vector(16, i32) = products;
          var sums: Sums = @splat(0);
          inline for (0..4) |j| sums += @shuffle(i32, wide, undefined, [4]i32{ j, 4 + j, 8 + j, 12 + j });
          return sums;
      }

      inline fn broadcastFour(x: [*]const i8) @Vector(16, i8) {
          const four: i32 = @bitCast(x[0..4].*);
          return @bitCast(@as(Sums, @splat(four)));
      }
    `,
    tile: (tile) => wideningTile(tile, tile.m === 1 ? 4 : 2),
  };
}

function wideningTile(tile: Tile, vectors: number): string {
  const groups = 8 / vectors;
  return zig`
    ${tileDoc(tile)}
    fn ${tileSymbol(tile)}(w: [*]const u8, x: [*]const i8, out: *[${tile.m}][32]i32) void {
        inline for (0..${groups}) |group| {
            var sums: [${tile.m}][${vectors}]Sums = @splat(@splat(@splat(0)));
            var first: usize = 0;
            while (first < ${tile.steps}) : (first += 32) {
                var acc: [${tile.m}][${vectors}]Products = @splat(@splat(@splat(0)));
                for (first..@min(first + 32, ${tile.steps})) |step| {
                    const from = w + step * ${STEP_BYTES} + group * ${STEP_BYTES / groups};
                    inline for (0..4) |i| {
                        var codes: [${vectors}]Codes = undefined;
                        inline for (0..${vectors}) |v| codes[v] = plane(from[v * 16 ..][0..16].*, i);
                        inline for (0..${tile.m}) |t| {
                            const x_t = broadcastFour(x + t * ${tile.xStride} + step * ${STEP_FEATURES} + i * 4);
                            inline for (0..${vectors}) |v| acc[t][v] +%= multiply(codes[v], x_t);
                        }
                    }
                }
                inline for (0..${tile.m}) |t| {
                    inline for (0..${vectors}) |v| sums[t][v] += addFours(acc[t][v]);
                }
            }
            inline for (0..${tile.m}) |t| {
                inline for (0..${vectors}) |v| out[t][(group * ${vectors} + v) * 4 ..][0..4].* = sums[t][v];
            }
        }
    }
  `;
}
