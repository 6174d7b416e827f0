import type { Isa } from "../isa.ts";
import { zig } from "../writer.ts";

/**
 * Sums of four int8 products in each of 16 lanes, exact in 32 bits, so that all give the same:
 *
 * - `dotKeys(acc, keys, query)`: keys are u8 with 128 added, query int8 from -127 to 127. `key_excess`
 *   is what is left of the 128: the caller takes key_excess * sum(query) off.
 * - `dotValues(acc, weights, values)`: weights are 0 to 127, values int8.
 */
export function dots(isa: Isa): string {
  return zig`
    const DotBytes = @Vector(64, u8);

    ${ISA_DOTS[isa]}
  `;
}

/** One instruction: unsigned keys or weights times signed queries or values. */
const AVX512 = zig`
  const key_excess = 128;
  /// Ternary linears may declare the same ones.
  const intrinsics = struct {
      extern fn @"llvm.x86.avx512.vpdpbusd.512"(math.I, math.I, math.I) callconv(.{ .x86_64_sysv = .{} }) math.I;
  };

  inline fn dotKeys(acc: math.I, keys: DotBytes, query: [4]i8) math.I {
      const four: i32 = @bitCast(query);
      return intrinsics.@"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(keys), @splat(four));
  }

  inline fn dotValues(acc: math.I, weights: [4]u8, values: DotBytes) math.I {
      const four: i32 = @bitCast(weights);
      return intrinsics.@"llvm.x86.avx512.vpdpbusd.512"(acc, @splat(four), @bitCast(values));
  }
`;

/**
 * vpmaddubsw adds two products in 16 bits: 2 * 127 * 127 = 32,258 fits. Keys lose their 128, and give
 * their sign to the query's size; no key that was stored is -128, and a sum that saturates because
 * memory was never written is of a position that nobody sees.
 */
const PAIRWISE = zig`
  const key_excess = 0;
  /// Ternary linears may declare the same ones.
  const intrinsics = struct {
      extern fn @"llvm.x86.avx2.pmadd.ub.sw"(@Vector(32, u8), @Vector(32, i8)) callconv(.{ .x86_64_sysv = .{} }) @Vector(16, i16);
      extern fn @"llvm.x86.avx2.pmadd.wd"(@Vector(16, i16), @Vector(16, i16)) callconv(.{ .x86_64_sysv = .{} }) @Vector(8, i32);
      extern fn @"llvm.x86.avx2.psign.b"(@Vector(32, i8), @Vector(32, i8)) callconv(.{ .x86_64_sysv = .{} }) @Vector(32, i8);
  };

  inline fn dotKeys(acc: math.I, keys: DotBytes, query: [4]i8) math.I {
      const four: i32 = @bitCast(query);
      const q: @Vector(32, i8) = @bitCast(@as(@Vector(8, i32), @splat(four)));
      const signed: [2]@Vector(32, i8) = @bitCast(keys ^ @as(DotBytes, @splat(0x80)));
      return addHalves(acc, .{
          intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(@abs(q), intrinsics.@"llvm.x86.avx2.psign.b"(signed[0], q)),
          intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(@abs(q), intrinsics.@"llvm.x86.avx2.psign.b"(signed[1], q)),
      });
  }

  inline fn dotValues(acc: math.I, weights: [4]u8, values: DotBytes) math.I {
      const four: i32 = @bitCast(weights);
      const w: @Vector(32, u8) = @bitCast(@as(@Vector(8, i32), @splat(four)));
      const signed: [2]@Vector(32, i8) = @bitCast(values);
      return addHalves(acc, .{
          intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(w, signed[0]),
          intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(w, signed[1]),
      });
  }

  /// Adds neighbouring 16-bit lanes to the 32-bit ones.
  inline fn addHalves(acc: math.I, pairs: [2]@Vector(16, i16)) math.I {
      const sums: [2]@Vector(8, i32) = .{
          intrinsics.@"llvm.x86.avx2.pmadd.wd"(pairs[0], @splat(1)),
          intrinsics.@"llvm.x86.avx2.pmadd.wd"(pairs[1], @splat(1)),
      };
      return acc + @as(math.I, @bitCast(sums));
  }
`;

/** sdot, four lanes at a time. */
const NEON_DOTPROD = zig`
  const key_excess = 0;
  /// Ternary linears may declare the same ones.
  const intrinsics = struct {
      extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(@Vector(4, i32), @Vector(16, i8), @Vector(16, i8)) @Vector(4, i32);
  };

  inline fn dotKeys(acc: math.I, keys: DotBytes, query: [4]i8) math.I {
      return dotSigned(acc, keys ^ @as(DotBytes, @splat(0x80)), @bitCast(query));
  }

  inline fn dotValues(acc: math.I, weights: [4]u8, values: DotBytes) math.I {
      return dotSigned(acc, values, @bitCast(weights));
  }

  inline fn dotSigned(acc: math.I, bytes: DotBytes, four: i32) math.I {
      const factor: @Vector(16, i8) = @bitCast(@as(@Vector(4, i32), @splat(four)));
      const parts: [4]@Vector(16, i8) = @bitCast(bytes);
      var sums: [4]@Vector(4, i32) = @bitCast(acc);
      inline for (&sums, parts) |*sum, part| sum.* = intrinsics.@"llvm.aarch64.neon.sdot.v4i32.v16i8"(sum.*, part, factor);
      return @bitCast(sums);
  }
`;

/**
 * Plain vectors of 16 bits: even and odd bytes apart, two products to a lane, 2 * 127 * 127 = 32,258
 * being below 2^15. DotBytes are little-endian, as on every CPU that we have kernels for.
 */
const WIDENING = zig`
  const key_excess = 0;
  const Shorts = @Vector(32, i16);

  inline fn dotKeys(acc: math.I, keys: DotBytes, query: [4]i8) math.I {
      return dotSigned(acc, keys ^ @as(DotBytes, @splat(0x80)), @bitCast(query));
  }

  inline fn dotValues(acc: math.I, weights: [4]u8, values: DotBytes) math.I {
      return dotSigned(acc, values, @bitCast(weights));
  }

  inline fn dotSigned(acc: math.I, bytes: DotBytes, four: i32) math.I {
      const factor: Shorts = @bitCast(@as(math.I, @splat(four)));
      const both: Shorts = @bitCast(bytes);
      const pairs = evenBytes(both) * evenBytes(factor) + oddBytes(both) * oddBytes(factor);
      const lanes: math.I = @bitCast(pairs);
      return acc + ((lanes << @splat(16)) >> @splat(16)) + (lanes >> @splat(16));
  }

  inline fn evenBytes(bytes: Shorts) Shorts {
      return (bytes << @splat(8)) >> @splat(8);
  }

  inline fn oddBytes(bytes: Shorts) Shorts {
      return bytes >> @splat(8);
  }
`;

const ISA_DOTS: Record<Isa, string> = {
  avx512: AVX512,
  avxvnni: PAIRWISE,
  avx2: PAIRWISE,
  "neon-i8mm": NEON_DOTPROD,
  "neon-dotprod": NEON_DOTPROD,
  neon: WIDENING,
  portable: WIDENING,
};
