import { BLOCK_ROWS } from "../layouts/layout.ts";
import { zig } from "../writer.ts";
import { smmlaTile } from "./smmla.ts";

/** Tokens of a tile, and registers of codes that it multiplies at once by each of them. */
export interface Tile {
  m: number;
  vectors: number;
}

/**
 * What an instruction set brings to multiplication: a register of codes holds four neighbouring
 * features of each of `rows` rows, and is multiplied by four activations that are broadcast.
 */
export interface Dialect {
  rows: number;
  /** Groups of four features whose products a lane of `Partial` holds without overflow. */
  partialGroups: number;
  /** Tiles that multiply codes masked where they lie, instead of shifted; see `maskedTile`. */
  maskedTiles: readonly Tile[];
  /** Tiles that unpack codes as they go, for few tokens; largest first. */
  packedTiles: readonly Tile[];
  /** Tiles over codes that were unpacked to bytes before; largest first. None: unpacking is free. */
  unpackedTiles: readonly Tile[];
  /** Tokens from which on codes are unpacked before. */
  unpackFrom: number;
  /**
   * `Partial`, sums of products as the instructions make them; `addProducts(Partial, Codes,
   * Activations) Partial`; `widen(Partial) Sums`; `broadcastFour(x: [*]const i8, comptime i: usize)
   * Activations`, activations 4i .. 4i + 3 of 16 for each row.
   */
  products: string;
  /**
   * Tiles for models with groups, where they are others: each group ends with a dozen instructions a sum,
   * for which there must be registers.
   */
  groupTiles?: Partial<Pick<Dialect, "packedTiles" | "unpackedTiles">>;
  /** Its own `Slice`, `putCodes` and `unpackedTile`, in place of those of `unpacked.ts`. */
  unpackedTile?: string;
}

/** Registers that hold a block's codes of four features. */
export function vectorsOf({ rows }: Dialect): number {
  return BLOCK_ROWS / rows;
}

/** Types and functions of all tiles, once a file. */
export function dialectPrelude(dialect: Dialect): string {
  const { rows, products } = dialect;
  return zig`
    const vector_rows = ${rows};
    const block_vectors = ${vectorsOf(dialect)};
    const Sums = @Vector(${rows}, i32);
    const Codes = @Vector(${4 * rows}, u8);
    const Activations = @Vector(${4 * rows}, i8);

    ${products}
  `;
}

/** A load that broadcasts: without cost on x86. */
const BROADCAST_LOAD = zig`
  /// Activations 4i .. 4i + 3 of 16, for each row.
  inline fn broadcastFour(x: [*]const i8, comptime i: usize) Activations {
      const four: i32 = @bitCast(x[4 * i ..][0..4].*);
      return @bitCast(@as(Sums, @splat(four)));
  }
`;

/** One load for four groups, of which instructions take a lane: sdot by element. */
const BROADCAST_LANE = zig`
  /// Activations 4i .. 4i + 3 of 16, for each row.
  inline fn broadcastFour(x: [*]const i8, comptime i: usize) Activations {
      const all: @Vector(16, i8) = x[0..16].*;
      const fours: Sums = @bitCast(all);
      return @bitCast(@as(Sums, @shuffle(i32, fours, undefined, [4]i32{ i, i, i, i })));
  }
`;

/** Sums that need no widening: four products are added to a 32-bit lane by one instruction. */
const WHOLE_SUMS = zig`
  const Partial = Sums;

  inline fn widen(partial: Partial) Sums {
      return partial;
  }
`;

/** Four products at a time: no lane overflows for any k that a model has. */
const UNLIMITED = 2 ** 31 / (4 * 2 * 128);

/** vpdpbusd on registers of 512 or 256 bits. */
function vpdpbusd(bits: 256 | 512): string {
  const name = `@"llvm.x86.avx512.vpdpbusd.${bits}"`;
  return zig`
    ${WHOLE_SUMS}

    extern fn ${name}(Sums, Sums, Sums) callconv(.{ .x86_64_sysv = .{} }) Sums;

    /// Lane l: partial + the sum over j < 4 of codes[4l + j] * x[4l + j]: vpdpbusd.
    inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
        return ${name}(partial, @bitCast(codes), @bitCast(x));
    }

    ${BROADCAST_LOAD}
  `;
}

/**
 * 32 registers: 16 accumulators keep both multiply ports busy over a latency of 5, and unpacking finds
 * room beside vpdpbusd: 229 G MAC/s on Zen 4, its peak, against 210 on codes unpacked before.
 */
export const AVX512: Dialect = {
  rows: 16,
  partialGroups: UNLIMITED,
  maskedTiles: [{ m: 2, vectors: 2 }, { m: 1, vectors: 2 }],
  packedTiles: [{ m: 8, vectors: 2 }, { m: 4, vectors: 2 }],
  unpackedTiles: [],
  unpackFrom: Infinity,
  // Groups of 128, 64 tokens: 209 G MAC/s in place of 203.
  groupTiles: { packedTiles: [{ m: 4, vectors: 2 }] },
  products: vpdpbusd(512),
};

/** Groups of 128, 64 tokens, AVX2: 144 G MAC/s in place of 127 with 6 tokens. */
const FOUR_TOKENS = {
  unpackedTiles: [{ m: 4, vectors: 2 }, { m: 2, vectors: 4 }, { m: 1, vectors: 4 }],
};

/** AVX-VNNI: 16 registers of 256 bits. The compiler picks the encoding that the CPU has. */
export const AVX_VNNI: Dialect = {
  rows: 8,
  partialGroups: UNLIMITED,
  maskedTiles: [{ m: 1, vectors: 2 }],
  packedTiles: [{ m: 6, vectors: 1 }, { m: 2, vectors: 4 }],
  unpackedTiles: [{ m: 6, vectors: 2 }, { m: 2, vectors: 4 }, { m: 1, vectors: 4 }],
  unpackFrom: 16,
  groupTiles: FOUR_TOKENS,
  products: vpdpbusd(256),
};

/**
 * AVX2: vpmaddubsw adds two products to a 16-bit lane. A lane holds 64 of them: 64 * 2 * 2 * 127 =
 * 32,512 and 64 * 2 * 2 * -128 = -32,768 fit in int16.
 */
export const AVX2: Dialect = {
  rows: 8,
  partialGroups: 64,
  maskedTiles: [],
  packedTiles: [{ m: 6, vectors: 1 }, { m: 2, vectors: 4 }, { m: 1, vectors: 4 }],
  groupTiles: FOUR_TOKENS,
  // 2 registers of 6 tokens leave room for the codes; 3 of 4 and 4 of 3 spill (183, 128, 124 G MAC/s).
  unpackedTiles: [{ m: 6, vectors: 2 }, { m: 2, vectors: 4 }, { m: 1, vectors: 4 }],
  unpackFrom: 16,
  products: zig`
    const Partial = @Vector(16, i16);
    extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Codes, Activations) callconv(.{ .x86_64_sysv = .{} }) Partial;
    extern fn @"llvm.x86.avx2.pmadd.wd"(Partial, Partial) callconv(.{ .x86_64_sysv = .{} }) Sums;

    /// Lane l: partial + codes[2l] * x[2l] + codes[2l + 1] * x[2l + 1]: vpmaddubsw, which can't saturate here.
    inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
        return partial +% @"llvm.x86.avx2.pmadd.ub.sw"(codes, x);
    }

    /// Adds neighbouring 16-bit lanes into 32-bit ones.
    inline fn widen(partial: Partial) Sums {
        return @"llvm.x86.avx2.pmadd.wd"(partial, @splat(1));
    }

    ${BROADCAST_LOAD}
  `,
};

const SDOT = zig`
  ${WHOLE_SUMS}

  extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(Sums, Activations, Activations) Sums;

  /// Lane l: partial + the sum over j < 4 of codes[4l + j] * x[4l + j]: sdot.
  inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
      return @"llvm.aarch64.neon.sdot.v4i32.v16i8"(partial, @bitCast(codes), x);
  }

  ${BROADCAST_LANE}
`;

/** 32 registers: 8 or 16 accumulators, the codes, and room for the activations. */
export const NEON_DOTPROD: Dialect = {
  rows: 4,
  partialGroups: UNLIMITED,
  // sdot takes codes as signed bytes: 2 << 6 would be -128.
  maskedTiles: [],
  packedTiles: [{ m: 4, vectors: 4 }, { m: 2, vectors: 8 }, { m: 1, vectors: 8 }],
  unpackedTiles: [{ m: 4, vectors: 4 }, { m: 2, vectors: 4 }, { m: 1, vectors: 8 }],
  unpackFrom: 8,
  products: SDOT,
};

/** Matrices of 8 rows by 8 tokens: 16 accumulators, 4 registers of codes and 4 of activations. */
export const NEON_I8MM: Dialect = {
  ...NEON_DOTPROD,
  unpackedTiles: [{ m: 8, vectors: 2 }, { m: 4, vectors: 4 }, { m: 2, vectors: 4 }, {
    m: 1,
    vectors: 4,
  }],
  unpackedTile: smmlaTile(),
};

/**
 * Plain vectors: products widened to 16 bits, added to lanes that hold 128 of them: 128 * 2 * 127 =
 * 32,512 and 128 * 2 * -128 = -32,768 fit in int16. NEON turns the product and sum into smlal; SSE2
 * into pmullw and paddw.
 */
function widening(broadcast: string): Dialect {
  return {
    rows: 4,
    partialGroups: 128,
    maskedTiles: [],
    packedTiles: [{ m: 4, vectors: 2 }, { m: 1, vectors: 4 }],
    unpackedTiles: [{ m: 4, vectors: 2 }, { m: 1, vectors: 4 }],
    unpackFrom: 8,
    products: zig`
      const Partial = @Vector(16, i16);

      /// Lane l: partial + codes[l] * x[l], exact in 16 bits.
      inline fn addProducts(partial: Partial, codes: Codes, x: Activations) Partial {
          const signed: Activations = @bitCast(codes);
          return partial +% @as(Partial, signed) * @as(Partial, x);
      }

      /// Lane r: the sum of products 4r .. 4r + 3, in 32 bits.
      inline fn widen(partial: Partial) Sums {
          const wide: @Vector(16, i32) = partial;
          var sums: Sums = @splat(0);
          inline for (0..4) |j| sums += @shuffle(i32, wide, undefined, [4]i32{ j, 4 + j, 8 + j, 12 + j });
          return sums;
      }

      ${broadcast}
    `,
  };
}

export const NEON: Dialect = widening(BROADCAST_LANE);
export const PORTABLE: Dialect = widening(BROADCAST_LOAD);
