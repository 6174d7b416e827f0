/** The machine itself, as the tuner measures on it: compiled kernels, weights in memory, a team of threads. */
import fs from "node:fs";
import path from "node:path";
import { linearSymbol, type Shape } from "../codegen/ternary_linear/scheme.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { uniqueShapes } from "../codegen/ternary_linear/template.ts";
import { timedMatrixBytes } from "../codegen/ternary_linear/timing.ts";
import type { LinearWork } from "../codegen/ternary_linear/work.ts";
import { ASSEMBLY } from "./compile.ts";
import type { Cpu } from "./cpu.ts";
import { macsPerCycle } from "./mca.ts";
import { allocate, type NativeMemory, NativeTeam } from "./native_model.ts";
import type { Candidate } from "./race.ts";
import { LinearTimers, randomInputs, type TimedWeights } from "./timing.ts";
import type { Zig } from "./toolchain.ts";
import { BrokenKernelError, type Lab } from "./tuner.ts";

/**
 * Weights of one layout, all shapes together: four times the last-level cache, so that each part has
 * left it when its turn comes again; but no more than the model has, as a small one stays in the
 * caches.
 */
const STREAM = { cacheMultiple: 4, least: 128 << 20, most: 512 << 20 };

/** Weights of the largest matrix that is measured whole; of a larger one its first rows are. */
const MOST_WEIGHTS = 1 << 25;
const ROWS_UNIT = 128;

/** Batches of more tokens are bound by arithmetic: their weights come from the caches. */
const MOST_STREAMED_TOKENS = 16;

/** A sample is repeated until it has lasted this long: timers and barriers then cost less than 1 %. */
const SAMPLE_NS = 1e6;

export interface LabOptions {
  zig: Zig;
  cpu: Cpu;
  threads: number;
  works: readonly LinearWork[];
  /** Path of llvm-mca; null where it is not asked. */
  mca: string | null;
}

/** Reads of which the quickest is the peak. */
const PEAK_READS = 2;

/** Owns everything that it opened; disposing it ends all candidates. */
export class NativeLab implements Lab, Disposable {
  readonly #opened: { timers: LinearTimers; team: NativeTeam }[] = [];
  readonly #weights = new Map<string, WeightSet>();
  readonly #inputs = new Map<string, Int8Array>();
  readonly #shapes: Shape[];

  constructor(private readonly options: LabOptions) {
    this.#shapes = uniqueShapes(options.works.map(measuredShape));
  }

  nowMs(): number {
    return performance.now();
  }

  deadline(ms: number): AbortSignal {
    return AbortSignal.timeout(ms);
  }

  pause(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, 0));
  }

  open(kernel: TernaryKernel, signal: AbortSignal): Promise<Candidate> {
    return this.openWith(this.options.threads, kernel, signal);
  }

  /** As `open`, with another number of threads. */
  async openWith(threads: number, kernel: TernaryKernel, signal?: AbortSignal): Promise<Candidate> {
    const { zig, mca } = this.options;
    const options = { signal, withAssembly: mca !== null };
    const timers = await LinearTimers.openUnproved(zig, kernel, this.#shapes, options);
    const stopped = timers.probe();
    if (stopped !== 0) {
      timers[Symbol.dispose]();
      throw new BrokenKernelError(`${kernelName(kernel)} stops with signal ${stopped}`);
    }
    const team = new NativeTeam(timers.library, threads);
    this.#opened.push({ timers, team });
    const weights = this.#weightsFor(timers);
    return {
      ...await this.#estimate(timers, signal),
      timeNs: (work, tokens) => this.#time(timers, team, weights, work, tokens),
      prove: () => timers.prove(),
    };
  }

  async peakBytesPerSecond(): Promise<number> {
    const [{ team }] = this.#opened;
    const [{ memory }] = this.#weights.values();
    return memory.bytes / (await team.readPeakNs(memory, PEAK_READS) / 1e9);
  }

  /** A library that was in the cache may lack its assembly: then nothing is known. */
  async #estimate(timers: LinearTimers, signal?: AbortSignal): Promise<{ macsPerCycle?: number }> {
    const { mca } = this.options;
    const file = path.join(path.dirname(timers.library.path), ASSEMBLY);
    if (mca === null || !fs.existsSync(file)) return {};
    const estimate = await macsPerCycle(mca, file, signal);
    return estimate === null ? {} : { macsPerCycle: estimate };
  }

  /** Kernels of one layout share their weights. */
  #weightsFor(timers: LinearTimers): WeightSet {
    const { layout } = timers.kernel.scheme;
    const known = this.#weights.get(layout.name);
    if (known !== undefined) return known;
    const bytes = streamBytes(this.options.cpu) / this.#shapes.length;
    const made = makeWeights(timers, this.options.works, bytes);
    this.#weights.set(layout.name, made);
    return made;
  }

  #time(
    timers: LinearTimers,
    team: NativeTeam,
    weights: WeightSet,
    work: LinearWork,
    tokens: number,
  ): number {
    const shape = measuredShape(work);
    const all = weights.parts.get(linearSymbol(shape))!;
    const isStreamed = tokens <= MOST_STREAMED_TOKENS;
    const part = isStreamed ? all : { ...all, matrices: 1 };
    using timer = timers.timer(team, part, tokens, this.#inputsOf(shape.k, tokens));
    if (!isStreamed) timer.run(1, work.makesInput);
    let rounds = 0;
    let ns = 0;
    while (ns < SAMPLE_NS) {
      ns += timer.run(part.matrices, work.makesInput);
      rounds += part.matrices;
    }
    return ns / rounds * work.n / shape.n;
  }

  #inputsOf(k: number, tokens: number): Int8Array {
    const key = `${k} ${tokens}`;
    const inputs = this.#inputs.get(key) ?? randomInputs(k, tokens);
    this.#inputs.set(key, inputs);
    return inputs;
  }

  [Symbol.dispose](): void {
    for (const { team } of this.#opened) team.destroy();
    for (const { memory } of this.#weights.values()) memory.release();
    for (const { timers } of this.#opened) timers[Symbol.dispose]();
  }
}

/** Matrices of all shapes in one memory. */
interface WeightSet {
  memory: NativeMemory;
  /** By `linearSymbol`. */
  parts: Map<string, TimedWeights>;
}

/** @param bytes Of each shape at most, but for a single matrix. */
function makeWeights(
  timers: LinearTimers,
  works: readonly LinearWork[],
  bytes: number,
): WeightSet {
  const { scheme } = timers.kernel;
  const plans = uniqueShapes(works.map(measuredShape)).map((shape) => {
    const matrixBytes = timedMatrixBytes(scheme, shape);
    const most = Math.max(1, Math.round(bytes / matrixBytes));
    return { shape, matrixBytes, matrices: Math.min(most, countOf(works, shape)) };
  });
  const total = plans.reduce((sum, plan) => sum + plan.matrices * plan.matrixBytes, 0);
  const memory = allocate(timers.library, total);
  const parts = new Map<string, TimedWeights>();
  let from = 0;
  for (const plan of plans) {
    const bytes = plan.matrices * plan.matrixBytes;
    timers.fill(memory, { shape: plan.shape, from, to: from + bytes });
    parts.set(linearSymbol(plan.shape), { ...memory, ...plan, offset: from });
    from += bytes;
  }
  return { memory, parts };
}

/** Matrices of a shape that a token goes through. */
function countOf(works: readonly LinearWork[], { n, k }: Shape): number {
  return works.reduce((sum, work) => {
    const shape = measuredShape(work);
    return shape.n === n && shape.k === k ? sum + work.perToken : sum;
  }, 0);
}

function streamBytes({ cacheBytes }: Cpu): number {
  const wanted = cacheBytes.l3 * STREAM.cacheMultiple;
  return Math.min(Math.max(wanted, STREAM.least), STREAM.most);
}

/** The matrix itself, or so many of its rows that measuring it takes no longer than a large one. */
function measuredShape({ n, k }: Shape): Shape {
  if (n * k <= MOST_WEIGHTS) return { n, k };
  return { n: Math.max(1, Math.floor(MOST_WEIGHTS / k / ROWS_UNIT)) * ROWS_UNIT, k };
}
