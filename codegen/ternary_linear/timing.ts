import { blocksOf, paddedRows } from "../layouts/layout.ts";
import { activationStride } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { linearSymbol, prepareSymbol, type Scheme, type Shape } from "./scheme.ts";
import { kernelName, type TernaryKernel } from "./spec.ts";
import { groupCount } from "./groups.ts";
import {
  bareLinear,
  inputBytes,
  linearPrelude,
  linears,
  matrixBytes,
  uniqueShapes,
} from "./template.ts";

/** Symbol that makes a timer of a linear. */
export function timerSymbol(shape: Shape): string {
  return `trilith_time_${linearSymbol(shape)}`;
}

/** Matrices to be timed begin on cache lines of their own, as in a packed file. */
export function timedMatrixBytes(scheme: Scheme, shape: Shape): number {
  return Math.ceil(matrixBytes(scheme, shape) / 64) * 64;
}

/**
 * A `kernels.zig` that has nothing but linears, each with a timer: what proofs of single kernels,
 * benchmarks and the tuner compile, which takes a fraction of what a whole step takes.
 */
export function linearsSource(kernel: TernaryKernel, shapes: readonly Shape[]): string {
  return [
    header(kernel),
    linearPrelude(kernel.scheme),
    linears(kernel.scheme, shapes),
    timer(),
    ...uniqueShapes(shapes).map((shape) => timerOf(kernel.scheme, shape)),
    probe(kernel.scheme, uniqueShapes(shapes)),
  ].join("\n");
}

function header(kernel: TernaryKernel): string {
  return zig`
    //! Trilith: ternary linears of ${
    kernelName(kernel)
  } by themselves. Generated from codegen/ternary_linear/timing.ts; do not edit.
    const std = @import("std");
    const math = @import("math.zig");
    const host = @import("host.zig");
    const team_zig = @import("team.zig");
    const Team = team_zig.Team;

    comptime {
        _ = host;
    }
  `;
}

function timer(): string {
  return zig`
    /// A linear that is run over and over, with its inputs and outputs.
    const Timer = struct {
        team: *Team,
        run: *const fn (Linear, Quantized, usize, [*]f32, usize, [2]usize) void,
        /// The linear of a matrix at an address.
        linear: *const fn ([*]const u8) Linear,
        prepare: *const fn (Quantized, usize) void,
        x: Quantized,
        tokens: usize,
        y: [*]f32,
        y_stride: usize,
        blocks: usize,
        /// Matrices that lie one after the other, taken in turn: one stays in the caches, many do not.
        weights: [*]const u8,
        matrix_bytes: usize,
        matrices: usize,
        next: usize = 0,
        rounds: usize = 0,
        with_inputs: bool = false,
        memory: [*]u8,
        memory_bytes: usize,

        fn body(context: *anyopaque, team: *Team, thread: u32) void {
            const timer: *const Timer = @ptrCast(@alignCast(context));
            const blocks = math.share(timer.blocks, thread, team.threads);
            const tokens = math.share(timer.tokens, thread, team.threads);
            for (timer.next..timer.next + timer.rounds) |round| {
                if (timer.with_inputs) {
                    for (tokens[0]..tokens[1]) |t| timer.prepare(timer.x, t);
                    team.barrier();
                }
                const weights = timer.weights + round % timer.matrices * timer.matrix_bytes;
                timer.run(timer.linear(weights), timer.x, timer.tokens, timer.y, timer.y_stride, blocks);
                team.barrier();
            }
        }
    };

    /// Nanoseconds of \`rounds\` linears, each with the barrier after it; the next call goes on with the
    /// matrix after the last. with_inputs is 1 to count what each input is made into, 0 to leave it out.
    pub export fn trilith_timer_run(timer: *Timer, rounds: i32, with_inputs: i32) u64 {
        timer.rounds = @intCast(rounds);
        timer.with_inputs = with_inputs != 0;
        const start = team_zig.now();
        timer.team.run(@ptrCast(timer), Timer.body);
        const end = team_zig.now();
        timer.next += timer.rounds;
        return end - start;
    }

    pub export fn trilith_timer_destroy(timer: *Timer) void {
        host.trilith_free(timer.memory, timer.memory_bytes);
        std.heap.page_allocator.destroy(timer);
    }
  `;
}

function timerOf(scheme: Scheme, shape: Shape): string {
  const { n, k } = shape;
  const bytes = inputBytes(scheme, k);
  const { groups } = scheme;
  const inverses = groups === undefined
    ? "x.inverse[t] = 1;"
    : `@memset(x.inverse[t * ${groupCount(groups, k)} ..][0..${groupCount(groups, k)}], 1);`;
  return zig`
    fn timed_${linearSymbol(shape)}(weights: [*]const u8) Linear {
        return ${bareLinear(scheme, shape)};
    }

    /// A timer of ${n} x ${k}: matrices of ${
    timedMatrixBytes(scheme, shape)
  } bytes each, the first one offset bytes from weights. codes: (tokens, ${k}) int8, copied. Null if
    /// memory is short. The team and the weights are the caller's, and must outlive it.
    pub export fn ${
    timerSymbol(shape)
  }(team: *Team, weights: [*]const u8, offset: u64, matrices: i32, codes: [*]const i8, tokens: i32) ?*Timer {
        const count: usize = @intCast(tokens);
        const input_bytes = std.mem.alignForward(usize, count * ${bytes}, 64);
        const memory_bytes = input_bytes + count * ${4 * paddedRows(n)};
        const timer = std.heap.page_allocator.create(Timer) catch return null;
        const memory: [*]u8 = @ptrCast(host.trilith_alloc(memory_bytes) orelse {
            std.heap.page_allocator.destroy(timer);
            return null;
        });
        const x = inputIn_k${k}(memory, count);
        for (0..count) |t| {
            @memcpy(x.codes[t * ${activationStride(k)} ..][0..${k}], codes[t * ${k} ..][0..${k}]);
            ${inverses}
            ${prepareSymbol(k)}(x, t);
        }
        timer.* = .{
            .team = team,
            .run = ${linearSymbol(shape)},
            .linear = timed_${linearSymbol(shape)},
            .prepare = ${prepareSymbol(k)},
            .x = x,
            .tokens = count,
            .y = @ptrCast(@alignCast(memory + input_bytes)),
            .y_stride = ${paddedRows(n)},
            .blocks = ${blocksOf(n)},
            .weights = weights + offset,
            .matrix_bytes = ${timedMatrixBytes(scheme, shape)},
            .matrices = @intCast(matrices),
            .memory = memory,
            .memory_bytes = memory_bytes,
        };
        return timer;
    }
  `;
}

/** Bytes of the codes, and inverses, that a bare linear takes. */
export function codeBytes({ groups }: Scheme, k: number, tokens: number): number {
  if (groups === undefined) return tokens * k;
  return Math.ceil(tokens * k / 64) * 64 + 4 * tokens * groupCount(groups, k);
}

/** Every tile of every linear, on all blocks of a matrix of zero bytes. */
function probe(scheme: Scheme, shapes: readonly Shape[]): string {
  const tokens = Math.max(...scheme.provedTokens);
  const most = (bytesOf: (shape: Shape) => number) =>
    Math.ceil(Math.max(...shapes.map(bytesOf)) / 64) * 64;
  const codesAt = most((shape) => matrixBytes(scheme, shape));
  const outputsAt = codesAt + most(({ k }) => codeBytes(scheme, k, tokens));
  const bytes = outputsAt + most(({ n }) => 4 * tokens * paddedRows(n));
  const calls = shapes.flatMap((shape) =>
    scheme.provedTokens.map((count) =>
      `_ = trilith_${linearSymbol(shape)}(weights, codes, ${count}, y, 0, ${blocksOf(shape.n)});`
    )
  );
  return zig`
    /// 0 when this CPU runs every linear, else the signal that stopped a child process.
    pub export fn trilith_probe() i32 {
        return host.survives(touchInstructions);
    }

    fn touchInstructions() void {
        const weights: [*]u8 = @ptrCast(host.trilith_alloc(${bytes}) orelse return);
        const codes: [*]const i8 = @ptrCast(weights + ${codesAt});
        const y: [*]f32 = @ptrCast(@alignCast(weights + ${outputsAt}));
        ${calls}
        host.trilith_free(weights, ${bytes});
    }
  `;
}
