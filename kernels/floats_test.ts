/** Products of float matrices: the native ones against doubles, on edge shapes and every instruction set. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import { randomOf } from "../codegen/random.ts";
import { multiplyInDoubles } from "../runtime/convert/float_products.ts";
import { compileFloats } from "./choose.ts";
import { compileExecutable } from "./compile.ts";
import { detectCpu, supportedIsas } from "./cpu.ts";
import { NativeFloats } from "./floats.ts";
import { ensureZig } from "./toolchain.ts";
import { VOCABULARY } from "./vocabulary.ts";

/** About the edges of tiles of rows and of inputs, of vectors, and of the inputs' blocks. */
const SHAPES = [[1, 1, 1], [5, 16, 7], [8, 33, 12], [3, 100, 6], [9, 30000, 13]] as const;

function randomMatrix(kind: "f32" | "f16" | "bf16", n: number, k: number): StoredMatrix {
  const random = randomOf(n * k);
  const values = Float32Array.from({ length: n * k }, () => (random() - 0.5) * 4);
  if (kind === "f32") return { kind, bytes: new Uint8Array(values.buffer), n, k };
  const words = new Uint32Array(values.buffer);
  const halves = kind === "f16"
    ? Float16Array.from(values)
    : Uint16Array.from(words, (word) => word >>> 16);
  return { kind, bytes: new Uint8Array(halves.buffer), n, k };
}

for (const isa of supportedIsas(detectCpu())) {
  Deno.test(`float products of ${isa} are those of doubles, but for rounding`, async () => {
    const path = await compileFloats(isa);
    for (const threads of [1, 3]) {
      using native = new NativeFloats(path, threads);
      for (const [n, k, count] of SHAPES) {
        const random = randomOf(k);
        const x = Array.from(
          { length: count },
          () => Float64Array.from({ length: k }, () => Math.fround(random() - 0.5)),
        );
        for (const kind of ["f32", "f16", "bf16"] as const) {
          const matrix = randomMatrix(kind, n, k);
          const expected = multiplyInDoubles(matrix, x);
          const actual = await native.multiply(matrix, x);
          assert.deepEqual([actual.length, actual[0].length], [count, n]);
          // The sum of k products of at most 1, in 16 lanes.
          const most = 2 ** -23 * k ** 1.5 / 4 + 1e-7;
          actual.forEach((row, t) =>
            row.forEach((value, r) => {
              const off = Math.abs(value - expected[t][r]);
              assert.ok(off <= most, `${kind} ${n} x ${k}, row ${r} of input ${t}: ${off}`);
            })
          );
        }
      }
    }
  });
}

/** Whole numbers, whose sums are exact in any order. Ends with 0 if all are right. */
const MAIN = `
  const std = @import("std");
  const floats = @import("floats.zig");
  const Team = @import("team.zig").Team;
  const n = 5;
  const k = 35;
  const padded = 48;
  const count = 7;

  fn weight(row: usize, i: usize) f32 {
      return @as(f32, @floatFromInt((row * 3 + i) % 7)) - 3;
  }

  fn input(t: usize, i: usize) f32 {
      return @as(f32, @floatFromInt((t + i * 5) % 11)) - 5;
  }

  fn isRight(comptime T: type, kind: i32, team: *Team) bool {
      var weights: [n * k]T align(64) = undefined;
      for (&weights, 0..) |*w, at| {
          const value = weight(at / k, at % k);
          w.* = if (T == u16) @truncate(@as(u32, @bitCast(value)) >> 16) else @floatCast(value);
      }
      var x: [count * padded]f32 align(64) = @splat(0);
      for (0..count) |t| {
          for (0..k) |i| x[t * padded + i] = input(t, i);
      }
      var y: [count * n]f32 = undefined;
      floats.trilith_float_product(team, kind, @ptrCast(&weights), n, k, &x, count, &y);
      for (y, 0..) |value, at| {
          var sum: f32 = 0;
          for (0..k) |i| sum += weight(at % n, i) * input(at / n, i);
          if (value != sum) return false;
      }
      return true;
  }

  pub fn main() u8 {
      const team = Team.create(2) orelse return 2;
      defer team.destroy();
      if (!isRight(f32, 2, team)) return 3;
      if (!isRight(f16, 3, team)) return 4;
      if (!isRight(u16, 4, team)) return 5;
      return 0;
  }
`;

const emulator = "qemu-aarch64";
Deno.test({
  name: "float products of neon are exact where sums are, under an emulator",
  ignore: spawnSync(emulator, ["--version"]).status !== 0,
  async fn() {
    const { path } = await compileExecutable(await ensureZig(), {
      sources: new Map([...VOCABULARY, ["main.zig", MAIN]]),
      root: "main.zig",
      isa: "neon",
      target: { arch: "aarch64", os: "linux" },
    });
    assert.equal(spawnSync(emulator, [path], { timeout: 60_000 }).status, 0);
  },
});
