import type { Isa } from "../codegen/isa.ts";
import { integerPeakSource, peakMacsPerRound } from "../codegen/ternary_linear/peak.ts";
import { compileLibrary, type CompileOptions } from "./compile.ts";
import { openLibrary } from "./ffi.ts";
import { allocate, HOST_SYMBOLS, NativeTeam, writeBytes } from "./native_model.ts";
import type { Zig } from "./toolchain.ts";
import { VOCABULARY } from "./vocabulary.ts";

const PEAK_SYMBOLS = {
  ...HOST_SYMBOLS,
  trilith_integer_peak: { parameters: ["pointer", "i32"], result: "u64", async: true },
} as const;

/** What a number of threads can do at most. */
export interface MachinePeak {
  /** Native threads. */
  threads: number;
  /** Read from memory. */
  bytesPerSecond: number;
  /** int8 multiply-adds on registers. */
  macsPerSecond: number;
}

/** Some 30 ms at 250 G MAC/s. */
const ROUNDS = 1 << 21;
const REPEATS = 5;

/** More than the last-level cache. */
const MEMORY_BYTES = 512 << 20;

/**
 * Measures both roofs, each the best of several rounds.
 *
 * @throws {CompileError} If Zig reports errors.
 * @throws {Error} If the system gives no memory or threads.
 */
export async function measurePeak(
  zig: Zig,
  isa: Isa,
  threads: number,
  options: CompileOptions & { memoryBytes?: number } = {},
): Promise<MachinePeak> {
  const sources = new Map([...VOCABULARY, ["kernels.zig", integerPeakSource(isa)]]);
  const { path } = await compileLibrary(zig, { sources, isa }, options);
  const library = openLibrary(path, PEAK_SYMBOLS);
  const team = new NativeTeam(library, threads);
  const memory = allocate(library, options.memoryBytes ?? MEMORY_BYTES);
  try {
    // Pages that nobody has written to are all one page of zeros.
    const some = new Uint8Array(1 << 20).fill(1);
    for (let at = 0; at < memory.bytes; at += some.length) {
      writeBytes(library, memory, some.subarray(0, memory.bytes - at), at);
    }
    const readNs = await team.readPeakNs(memory, REPEATS);
    let bestNs = Infinity;
    for (let i = 0; i < REPEATS; i++) {
      const ns = await library.symbols.trilith_integer_peak(team.pointer, ROUNDS);
      bestNs = Math.min(bestNs, Number(ns));
    }
    const macs = threads * ROUNDS * peakMacsPerRound(isa);
    return {
      threads,
      bytesPerSecond: memory.bytes / readNs * 1e9,
      macsPerSecond: macs / bestNs * 1e9,
    };
  } finally {
    memory.release();
    team.destroy();
    library.close();
  }
}
