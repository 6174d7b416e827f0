import type { Isa } from "../isa.ts";
import { zig } from "../writer.ts";
import {
  AVX2,
  AVX512,
  AVX_VNNI,
  type Dialect,
  dialectPrelude,
  NEON,
  NEON_DOTPROD,
  NEON_I8MM,
  PORTABLE,
} from "./dialects.ts";

const DIALECTS: Record<Isa, Dialect> = {
  avx512: AVX512,
  avxvnni: AVX_VNNI,
  avx2: AVX2,
  "neon-i8mm": NEON_I8MM,
  "neon-dotprod": NEON_DOTPROD,
  neon: NEON,
  portable: PORTABLE,
};

/** Registers of activations and of codes, each of which is multiplied by each of the others. */
const ACTIVATIONS = 4;

/** Turns of the loop in one, so that it costs nothing. */
const UNROLL = 4;

function codesOf(isa: Isa): number {
  return isa === "avx512" || isa.startsWith("neon") ? 4 : 2;
}

/** Multiply-adds of one round of a thread. */
export function peakMacsPerRound(isa: Isa): number {
  return UNROLL * ACTIVATIONS * codesOf(isa) * 4 * DIALECTS[isa].rows;
}

/**
 * A `kernels.zig` that multiplies int8 in registers as fast as an instruction set can, without
 * unpacking, widening or memory: the roof of arithmetic. Lookups, which do not multiply, may be above
 * it.
 */
export function integerPeakSource(isa: Isa): string {
  const codes = codesOf(isa);
  return zig`
    //! Trilith: the most int8 multiply-adds of ${isa}. Generated from codegen/ternary_linear/peak.ts; do not edit.
    const std = @import("std");
    const host = @import("host.zig");
    const team_zig = @import("team.zig");
    const Team = team_zig.Team;

    comptime {
        _ = host;
    }

    ${dialectPrelude(DIALECTS[isa])}

    /// Codes are read anew in each round, so that no product is left out as known.
    var some_codes: [${codes}]Codes = @splat(@splat(1));

    fn multiply(rounds: usize) void {
        var x: [${ACTIVATIONS}]Activations = undefined;
        const activations: [16]i8 = @splat(3);
        inline for (&x, 0..) |*of, i| of.* = broadcastFour(&activations, i % 4);
        std.mem.doNotOptimizeAway(&x);
        var sums: [${codes}][${ACTIVATIONS}]Partial = @splat(@splat(@splat(0)));
        for (0..rounds) |_| {
            inline for (0..${UNROLL * codes}) |i| {
                const c = i % ${codes};
                const codes = @as(*const volatile Codes, &some_codes[c]).*;
                inline for (0..${ACTIVATIONS}) |a| sums[c][a] = addProducts(sums[c][a], codes, x[a]);
            }
        }
        var all: Sums = @splat(0);
        for (sums) |row| {
            for (row) |sum| all +%= widen(sum);
        }
        std.mem.doNotOptimizeAway(&all);
    }

    const Rounds = struct {
        count: usize,

        fn body(context: *anyopaque, team: *Team, thread: u32) void {
            _ = team;
            _ = thread;
            const rounds: *const Rounds = @ptrCast(@alignCast(context));
            multiply(rounds.count);
        }
    };

    /// Nanoseconds that the team needs for \`count\` rounds of each thread.
    pub export fn trilith_integer_peak(team: *Team, count: i32) u64 {
        var rounds: Rounds = .{ .count = @intCast(count) };
        const start = team_zig.now();
        team.run(@ptrCast(&rounds), Rounds.body);
        return team_zig.now() - start;
    }
  `;
}
