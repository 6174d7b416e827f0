/**
 * Times ternary linears by themselves: what the tuner and benchmarks ask. A small library holds the
 * linears of one kernel; weights lie in native memory and are read by a team of threads.
 */
import { packMatrix } from "../codegen/layouts/layout.ts";
import { randomOf } from "../codegen/random.ts";
import { packFactors } from "../codegen/ternary_linear/factors.ts";
import { groupCount } from "../codegen/ternary_linear/groups.ts";
import type { Shape } from "../codegen/ternary_linear/scheme.ts";
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { linearsSource, timedMatrixBytes, timerSymbol } from "../codegen/ternary_linear/timing.ts";
import { compileLibrary, type CompileOptions } from "./compile.ts";
import { type NativeLibrary, openLibrary, type Pointer } from "./ffi.ts";
import {
  allocate,
  HOST_SYMBOLS,
  type NativeMemory,
  type NativeTeam,
  writeBytes,
} from "./native_model.ts";
import { proveShapes } from "./proof.ts";
import type { Zig } from "./toolchain.ts";
import { VOCABULARY } from "./vocabulary.ts";

const TIMER_SYMBOLS = {
  ...HOST_SYMBOLS,
  trilith_timer_run: { parameters: ["pointer", "i32", "i32"], result: "u64" },
  trilith_timer_destroy: { parameters: ["pointer"], result: "void" },
  trilith_probe: { parameters: [], result: "i32" },
} as const;

const CREATE = {
  parameters: ["pointer", "pointer", "u64", "i32", "buffer", "i32"],
  result: "pointer",
} as const;

/** Matrices of one shape in native memory, one after the other. */
export interface TimedWeights extends NativeMemory {
  /** Bytes from the memory's start to the first matrix. */
  readonly offset: number;
  readonly shape: Shape;
  /** 1 stays in the caches where it fits; many of them come from memory. */
  readonly matrices: number;
  /** Bytes of one matrix. */
  readonly matrixBytes: number;
}

/** More than the last-level cache of any CPU: matrices that fill it are read from memory. */
export const STREAMED_BYTES = 256 << 20;

/** The sources of a library that has nothing but linears and their timers. */
export function linearsSources(
  kernel: TernaryKernel,
  shapes: readonly Shape[],
): Map<string, string> {
  return new Map([...VOCABULARY, ["kernels.zig", linearsSource(kernel, shapes)]]);
}

/** Linears of one kernel, compiled for this machine. */
export class LinearTimers implements Disposable {
  private constructor(
    readonly kernel: TernaryKernel,
    private readonly shapes: readonly Shape[],
    readonly library: NativeLibrary<typeof TIMER_SYMBOLS>,
    private readonly makers: NativeLibrary<Record<string, typeof CREATE>>,
  ) {}

  /**
   * Compiles the linears, or finds them in the cache, and proves them against the reference.
   *
   * @throws {ProofError} If a sum is wrong on this machine.
   * @throws {CompileError} If Zig reports errors.
   */
  static async open(
    zig: Zig,
    kernel: TernaryKernel,
    shapes: readonly Shape[],
    options: CompileOptions = {},
  ): Promise<LinearTimers> {
    const timers = await LinearTimers.openUnproved(zig, kernel, shapes, options);
    try {
      timers.prove();
      return timers;
    } catch (error) {
      timers[Symbol.dispose]();
      throw error;
    }
  }

  /** As `open`, for who proves later: wrong sums take as long as right ones. */
  static async openUnproved(
    zig: Zig,
    kernel: TernaryKernel,
    shapes: readonly Shape[],
    options: CompileOptions & { withAssembly?: boolean } = {},
  ): Promise<LinearTimers> {
    const sources = linearsSources(kernel, shapes);
    const request = { sources, isa: kernel.isa, withAssembly: options.withAssembly };
    const { path } = await compileLibrary(zig, request, options);
    const makers = Object.fromEntries(shapes.map((shape) => [timerSymbol(shape), CREATE]));
    return new LinearTimers(
      kernel,
      shapes,
      openLibrary(path, TIMER_SYMBOLS),
      openLibrary(path, makers),
    );
  }

  /** Runs all linears in a child process. @returns The signal that stopped it, or 0. */
  probe(): number {
    return this.library.symbols.trilith_probe();
  }

  /** @throws {ProofError} If a sum is wrong on this machine. */
  prove(): void {
    proveShapes(this.library.path, this.shapes, this.kernel);
  }

  /**
   * Random ternary matrices of a shape: as many as take `bytes`, at least one.
   *
   * @throws {Error} If the system has no room.
   */
  weights(shape: Shape, bytes: number): TimedWeights {
    const { scheme } = this.kernel;
    const matrixBytes = timedMatrixBytes(scheme, shape);
    const matrices = Math.max(1, Math.ceil(bytes / matrixBytes));
    const memory = allocate(this.library, matrices * matrixBytes);
    this.fill(memory, { shape, from: 0, to: memory.bytes });
    return { ...memory, offset: 0, shape, matrices, matrixBytes };
  }

  /** Fills a part of a memory with matrices of a shape. */
  fill(
    memory: NativeMemory,
    { shape, from, to }: { shape: Shape; from: number; to: number },
  ): void {
    const { scheme } = this.kernel;
    const pattern = patternOf(this.kernel, shape);
    const codesBytes = scheme.layout.packedBytes(shape.n, shape.k);
    const factors = factorPattern(this.kernel, shape);
    for (let start = from; start < to; start += timedMatrixBytes(scheme, shape)) {
      for (let at = 0; at < codesBytes; at += pattern.length) {
        writeBytes(this.library, memory, pattern.subarray(0, codesBytes - at), start + at);
      }
      writeBytes(this.library, memory, factors, start + codesBytes);
    }
  }

  /**
   * A timer of a linear for `tokens` inputs, random ones unless given. The team is one of
   * `this.library`.
   *
   * @throws {Error} If the system has no room.
   */
  timer(
    team: NativeTeam,
    weights: TimedWeights,
    tokens: number,
    codes: Int8Array = randomInputs(weights.shape.k, tokens),
  ): LinearTimer {
    const { shape, offset, matrices } = weights;
    const make = this.makers.symbols[timerSymbol(shape)];
    const pointer = make(team.pointer, weights.pointer, BigInt(offset), matrices, codes, tokens);
    if (pointer === null) {
      throw new Error(`Cannot allocate the inputs of ${tokens} tokens: the system refused`);
    }
    return new LinearTimer(this.library, pointer);
  }

  [Symbol.dispose](): void {
    this.makers.close();
    this.library.close();
  }
}

/** int8 inputs of k features, (tokens, k). */
export function randomInputs(k: number, tokens: number): Int8Array {
  const random = randomOf(k * 31 + tokens);
  const codes = new Int8Array(tokens * k);
  for (let i = 0; i < codes.length; i++) codes[i] = Math.floor(random() * 255) - 127;
  return codes;
}

/** Rows that are packed for real; the rest of the memory repeats them. */
const PATTERN_ROWS = 128;

/** Factors of all groups of a matrix, if they have any: 1, which every type holds. */
function factorPattern({ scheme: { groups } }: TernaryKernel, shape: Shape): Uint8Array {
  if (!groups?.weightScales) return new Uint8Array();
  const ones = new Float32Array(shape.n * groupCount(groups, shape.k)).fill(1);
  return packFactors(groups, shape, ones) as Uint8Array;
}

function patternOf({ scheme }: TernaryKernel, { n, k }: Shape): Uint8Array {
  const rows = Math.min(n, PATTERN_ROWS);
  const random = randomOf(n * 31 + k);
  const codes = new Uint8Array(rows * k);
  for (let i = 0; i < codes.length; i++) codes[i] = Math.floor(random() * 3);
  return packMatrix(scheme.layout, codes, rows, k);
}

/** What a measurement of a linear is made of. */
export interface MeasureOptions {
  /** Measurements, of which the median counts. */
  repeats: number;
  /** How long one takes at least, in milliseconds. */
  atLeastMs: number;
  /** Count what inputs are made into before a linear can read them. */
  withInputs?: boolean;
}

/** One linear over its weights, ready to be run again and again. */
export class LinearTimer implements Disposable {
  constructor(
    private readonly library: NativeLibrary<typeof TIMER_SYMBOLS>,
    private readonly pointer: Pointer,
  ) {}

  /** Nanoseconds of `rounds` runs by the whole team. Blocks until they are done. */
  run(rounds: number, withInputs = false): number {
    const { trilith_timer_run } = this.library.symbols;
    return Number(trilith_timer_run(this.pointer, rounds, withInputs ? 1 : 0));
  }

  /** Nanoseconds of one run: the median of several measurements, after one that warms up. */
  measureNs({ repeats, atLeastMs, withInputs = false }: MeasureOptions): number {
    const rounds = this.#roundsFor(atLeastMs * 1e6, withInputs);
    const times = Array.from({ length: repeats }, () => this.run(rounds, withInputs) / rounds);
    return times.sort((a, b) => a - b)[repeats >> 1];
  }

  /** Twice as many rounds until they take long enough. */
  #roundsFor(wantedNs: number, withInputs: boolean): number {
    let rounds = 1;
    while (this.run(rounds, withInputs) < wantedNs && rounds < 1 << 20) rounds *= 2;
    return rounds;
  }

  [Symbol.dispose](): void {
    this.library.symbols.trilith_timer_destroy(this.pointer);
  }
}
