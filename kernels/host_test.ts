import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { zig as source } from "../codegen/writer.ts";
import { compileExecutable, compileLibrary, hostTarget } from "./compile.ts";
import { detectCpu } from "./cpu.ts";
import { type NativeLibrary, openLibrary, pointerToBigInt, viewOf } from "./ffi.ts";
import { inFolder } from "./test_helpers.ts";
import { ensureZig } from "./toolchain.ts";
import { VOCABULARY } from "./vocabulary.ts";

/** A root as the generator writes them, with bodies that the tests need. */
const ROOT = source`
  const std = @import("std");
  const host = @import("host.zig");
  const Team = @import("team.zig").Team;

  comptime {
      _ = host;
  }

  fn healthy() void {}

  fn illegal() void {
      @trap();
  }

  fn crashing() void {
      const nowhere: *allowzero volatile u8 = @ptrFromInt(0);
      nowhere.* = 1;
  }

  export fn probe(which: i32) i32 {
      return switch (which) {
          0 => host.survives(healthy),
          1 => host.survives(illegal),
          else => host.survives(crashing),
      };
  }

  const Sum = struct {
      values: []const u32,
      partial: [64]u64,
      total: u64,
  };

  /// Sums in parts, then thread 0 adds the parts: right only if the barrier orders the two.
  export fn parallel_sum(team: *Team, values: [*]const u32, count: u32) u64 {
      var sum: Sum = .{ .values = values[0..count], .partial = @splat(0), .total = 0 };
      team.run(@ptrCast(&sum), addPart);
      return sum.total;
  }

  fn addPart(context: *anyopaque, team: *Team, thread: u32) void {
      const sum: *Sum = @ptrCast(@alignCast(context));
      const count = sum.values.len;
      const from = count * thread / team.threads;
      const to = count * (thread + 1) / team.threads;
      for (sum.values[from..to]) |value| sum.partial[thread] += value;
      team.barrier();
      if (thread == 0) {
          for (sum.partial[0..team.threads]) |part| sum.total += part;
      }
  }
`;

const SYMBOLS = {
  trilith_alloc: { parameters: ["u64"], result: "pointer" },
  trilith_free: { parameters: ["pointer", "u64"], result: "void" },
  trilith_map_file: { parameters: ["buffer", "u64", "u64"], result: "pointer" },
  trilith_unmap: { parameters: ["pointer", "u64"], result: "void" },
  trilith_team_create: { parameters: ["i32"], result: "pointer" },
  trilith_team_destroy: { parameters: ["pointer"], result: "void" },
  trilith_team_run_test: { parameters: ["pointer", "i32", "i32"], result: "u64", async: true },
  trilith_read_peak: { parameters: ["pointer", "pointer", "u64", "i32"], result: "u64" },
  parallel_sum: { parameters: ["pointer", "buffer", "u32"], result: "u64", async: true },
  probe: { parameters: ["i32"], result: "i32" },
} as const;
type Host = NativeLibrary<typeof SYMBOLS>["symbols"];

let host: Promise<Host> | undefined;

/** Compiled and opened once; it stays open until the tests end. */
async function openHost(): Promise<Host> {
  const sources = new Map([...VOCABULARY, ["kernels.zig", ROOT]]);
  const { path } = await compileLibrary(await ensureZig(), { sources, isa: "portable" });
  return openLibrary(path, SYMBOLS).symbols;
}

function test(name: string, fn: (host: Host) => unknown): void {
  Deno.test({
    name: `host: ${name}`,
    // The library is left open.
    sanitizeResources: false,
    async fn() {
      await fn(await (host ??= openHost()));
    },
  });
}

const residentBytes = () =>
  Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"))![1]) * 1024;

test("allocated memory is zeroed and aligned", (host) => {
  for (const bytes of [1, 100, 4096, 100_000, 2 ** 21 - 1, 2 ** 21, 5_000_001]) {
    const memory = host.trilith_alloc(BigInt(bytes));
    assert.ok(memory !== null);
    const alignment = bytes >= 2 ** 21 ? 2n ** 21n : 4096n;
    assert.equal(pointerToBigInt(memory) % alignment, 0n, `${bytes} bytes`);
    const view = viewOf(memory, bytes);
    assert.ok(view.every((byte) => byte === 0));
    view.fill(0xa5);
    host.trilith_free(memory, BigInt(bytes));
  }
});

test("memory that was freed is zeroed when it comes back", (host) => {
  for (let round = 0; round < 20; round++) {
    const memory = host.trilith_alloc(3_000_000n)!;
    const view = viewOf(memory, 3_000_000);
    assert.equal(view.indexOf(1), -1);
    view.fill(1);
    host.trilith_free(memory, 3_000_000n);
  }
});

test("allocated memory takes room only where it is touched", (host) => {
  if (process.platform !== "linux") return;
  const bytes = 2 ** 30;
  const before = residentBytes();
  const memory = host.trilith_alloc(BigInt(bytes));
  assert.ok(memory !== null);
  viewOf(memory, bytes)[bytes / 2] = 1;
  assert.ok(residentBytes() - before < 64e6);
  host.trilith_free(memory, BigInt(bytes));
});

test("what can't be allocated is null", (host) => {
  assert.equal(host.trilith_alloc(0n), null);
  assert.equal(host.trilith_alloc(2n ** 62n), null);
  assert.equal(host.trilith_alloc(2n ** 64n - 1n), null);
  host.trilith_free(null, 8n);
});

test("a file is mapped, and one that is short or absent is not", async (host) => {
  if (process.platform === "win32") return;
  await inFolder((folder) => {
    const file = path.join(folder, "weights é.bin");
    const content = crypto.getRandomValues(new Uint8Array(10_000));
    fs.writeFileSync(file, new Uint8Array([...new Uint8Array(65_536), ...content]));
    const name = (text: string) => new TextEncoder().encode(text + "\0");
    const mapped = host.trilith_map_file(name(file), 10_000n, 65_536n);
    assert.ok(mapped !== null);
    assert.deepEqual(viewOf(mapped, 10_000).slice(), content);
    host.trilith_unmap(mapped, 10_000n);
    assert.equal(host.trilith_map_file(name(file), 10_001n, 65_536n), null);
    assert.equal(host.trilith_map_file(name(file), 0n, 0n), null);
    assert.equal(host.trilith_map_file(name(`${file}x`), 1n, 0n), null);
    assert.equal(host.trilith_map_file(name(folder), 10n ** 12n, 0n), null);
    host.trilith_unmap(null, 8n);
  });
});

const THREADS = [1, 2, 3, 8];

test("barriers order all threads, also with more threads than CPUs", async (host) => {
  for (const threads of THREADS) {
    const team = host.trilith_team_create(threads);
    assert.ok(team !== null);
    const runs = threads <= 2 ? 1000 : 200;
    assert.equal(await host.trilith_team_run_test(team, runs, 10), 0n, `${threads} threads`);
    host.trilith_team_destroy(team);
  }
});

test("a phase without its barrier is caught", async () => {
  const host = VOCABULARY.get("host.zig")!;
  const broken = host.replace("mine.value += 1;\n            team.barrier();", "mine.value += 1;");
  assert.notEqual(broken, host);
  const sources = new Map([...VOCABULARY, ["host.zig", broken], ["kernels.zig", ROOT]]);
  const { path } = await compileLibrary(await ensureZig(), { sources, isa: "portable" });
  const library = openLibrary(path, SYMBOLS);
  const team = library.symbols.trilith_team_create(3)!;
  assert.ok(await library.symbols.trilith_team_run_test(team, 20, 10) > 0n);
  library.symbols.trilith_team_destroy(team);
});

test("many short runs give right sums", async (host) => {
  const values = Uint32Array.from({ length: 1003 }, (_, i) => i * i);
  const expected = values.reduce((sum, value) => sum + BigInt(value), 0n);
  for (const threads of THREADS) {
    const team = host.trilith_team_create(threads)!;
    for (let run = 0; run < 200; run++) {
      assert.equal(await host.parallel_sum(team, values, values.length), expected);
    }
    host.trilith_team_destroy(team);
  }
});

test("workers that have gone to sleep between runs wake up", async (host) => {
  const team = host.trilith_team_create(3)!;
  for (let run = 0; run < 10; run++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(await host.trilith_team_run_test(team, 1, 3), 0n);
  }
  host.trilith_team_destroy(team);
});

test("two teams work at the same time", async (host) => {
  const teams = [2, 3].map((threads) => host.trilith_team_create(threads)!);
  const tests = teams.map((team) => host.trilith_team_run_test(team, 200, 5));
  assert.deepEqual(await Promise.all(tests), [0n, 0n]);
  teams.forEach((team) => host.trilith_team_destroy(team));
});

test("teams come and go without leaving threads", async (host) => {
  const threadsNow = () =>
    process.platform === "linux" ? fs.readdirSync("/proc/self/task").length : 0;
  const before = threadsNow();
  for (let cycle = 0; cycle < 100; cycle++) {
    const team = host.trilith_team_create(1 + cycle % 5)!;
    if (cycle % 3 === 0) assert.equal(await host.trilith_team_run_test(team, 2, 2), 0n);
    host.trilith_team_destroy(team);
  }
  // The runtime's own pool may have grown by the threads of its asynchronous calls.
  assert.ok(threadsNow() <= before + 8, `${before} threads before, ${threadsNow()} after`);
});

test("a run leaves the caller on the CPUs that it had", (host) => {
  if (process.platform !== "linux") return;
  const place = () =>
    /^Cpus_allowed_list:.*$/m.exec(fs.readFileSync("/proc/thread-self/status", "utf8"))![0];
  const before = place();
  const memory = host.trilith_alloc(4096n)!;
  // As many threads as CPUs: such a team keeps each on its own while it runs.
  const team = host.trilith_team_create(detectCpu().allowedCores)!;
  for (let run = 0; run < 10; run++) host.trilith_read_peak(team, memory, 4096n, 3);
  assert.equal(place(), before);
  host.trilith_team_destroy(team);
  host.trilith_free(memory, 4096n);
});

test("an impossible team is null", (host) => {
  for (const threads of [0, -1, 1_000_000]) assert.equal(host.trilith_team_create(threads), null);
  host.trilith_team_destroy(null);
});

test("the read peak is a bandwidth that a memory can have", (host) => {
  const bytes = 64e6;
  const memory = host.trilith_alloc(BigInt(bytes))!;
  viewOf(memory, bytes).fill(3);
  for (const threads of [1, 2]) {
    const team = host.trilith_team_create(threads)!;
    const nanoseconds = host.trilith_read_peak(team, memory, BigInt(bytes), 5);
    const gigabytesPerSecond = bytes / Number(nanoseconds);
    assert.ok(gigabytesPerSecond > 0.2 && gigabytesPerSecond < 2000, `${gigabytesPerSecond} GB/s`);
    // Four times the bytes must take longer: a loop that the compiler dropped would not.
    const quarter = host.trilith_read_peak(team, memory, BigInt(bytes / 4), 5);
    assert.ok(nanoseconds > quarter * 3n / 2n, `${nanoseconds} against ${quarter} ns`);
    host.trilith_team_destroy(team);
  }
  host.trilith_free(memory, BigInt(bytes));
});

/** A program that prints what the team's own test finds, for teams of 1, 2, 3 and 8. */
const MAIN = source`
  const host = @import("host.zig");
  const linux = @import("std").os.linux;

  pub fn main() u8 {
      for ([_]i32{ 1, 2, 3, 8 }) |threads| {
          const team = host.trilith_team_create(threads) orelse return 1;
          defer host.trilith_team_destroy(team);
          if (host.trilith_team_run_test(team, 20, 10) != 0) return 2;
      }
      const memory = host.trilith_alloc(5_000_000) orelse return 3;
      host.trilith_free(memory, 5_000_000);
      if (host.survives(healthy) != 0) return 4;
      _ = linux.write(1, "all well", 8);
      return 0;
  }

  fn healthy() void {}
`;

const emulator = "qemu-aarch64";
Deno.test({
  name: "host: threads and memory on aarch64, under an emulator",
  ignore: spawnSync(emulator, ["--version"]).status !== 0,
  async fn() {
    const { path } = await compileExecutable(await ensureZig(), {
      sources: new Map([...VOCABULARY, ["main.zig", MAIN]]),
      root: "main.zig",
      isa: "neon",
      target: { arch: "aarch64", os: "linux" },
    });
    const { status, stdout } = spawnSync(emulator, [path], { encoding: "utf8", timeout: 60_000 });
    assert.deepEqual({ status, stdout }, { status: 0, stdout: "all well" });
  },
});

test("a probe survives what is legal and reports the signal of what is not", (host) => {
  assert.equal(host.probe(0), 0);
  if (process.platform === "win32") return;
  const illegal = hostTarget().arch === "x86_64" ? "SIGILL" : "SIGTRAP";
  assert.equal(
    host.probe(1),
    process.platform === "linux" ? { SIGILL: 4, SIGTRAP: 5 }[illegal] : 4,
  );
  assert.equal(host.probe(2), 11);
  for (let i = 0; i < 20; i++) assert.equal(host.probe(0), 0);
});
