/**
 * Whether the two-stage head ever misses: hidden states of the embedded model on real text, of the
 * golden models on random tokens, and adversarial ones, each by the full head and by two stages.
 *
 *     deno run -A bench/head_misses.ts --tokens 1000000
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import { SKETCH_TOKENS } from "../codegen/head/sketch.ts";
import { planOf } from "../codegen/plan.ts";
import type { Batch } from "../codegen/step/batch.ts";
import { compilePacker, librarySources } from "../kernels/choose.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { type NativeExecutor, openPacked } from "../runtime/native_executor.ts";
import { packModel } from "../runtime/pack.ts";
import { joinedTables } from "../runtime/rope.ts";
import { openPacker } from "../runtime/ternary_packer.ts";
import { prefillBatch } from "../tests/batches.ts";
import {
  ADVERSARIAL_STATES,
  ADVERSARIAL_SUBJECTS,
  CONTEXT,
  goldenSubjects,
  type Opener,
  storySubject,
  type Subject,
} from "./head_subjects.ts";
import { KERNELS, THREADS, ZIG } from "./machine.ts";

/** The margin is another one for a single logit. 40 is what top-k samplers ask for. */
const CANDIDATES = [1, 40] as const;

export interface MissOptions {
  /**
   * Hidden states in all: three tenths the embedded model's, the rest the golden ones'. Beside them
   * come the adversarial ones, as many at most as these heads have.
   */
  states: number;
  /** Most golden models; they share their part. Default: all. */
  mostGolden?: number;
  /** Changes the emitted Zig: for a head that must be caught. */
  edit?: (text: string) => string;
  onModel?: (report: ModelReport) => void;
}

export interface ModelReport {
  model: string;
  vocabSize: number;
  states: number;
  counts: CandidateCount[];
}

export interface CandidateCount {
  candidates: number;
  /** States of which one of the so many largest logits was left out, or any logit was wrong. */
  misses: number;
  /** Rows of the head that were scored exactly, a state. */
  rescoredPerState: number;
}

/**
 * Whether two stages failed: a logit is neither the full head's nor left out, or one that was left out
 * is among the `candidates` largest. Ties with the least of these are among them.
 *
 * @param full (vocabSize,) logits. @param quick The same of two stages, -Infinity where left out.
 */
export function isMiss(full: Float32Array, quick: Float32Array, candidates: number): boolean {
  let largestLeft = -Infinity;
  for (let i = 0; i < full.length; i++) {
    if (quick[i] === full[i]) continue;
    if (quick[i] !== -Infinity) return true;
    if (full[i] > largestLeft) largestLeft = full[i];
  }
  let larger = 0;
  for (let i = 0; i < full.length && larger < candidates; i++) if (full[i] > largestLeft) larger++;
  return larger < candidates;
}

/** Runs all models, one after the other. */
export async function countMisses(options: MissOptions): Promise<ModelReport[]> {
  const golden = goldenSubjects().slice(0, options.mostGolden);
  const { states } = options;
  const shares: [Opener, number][] = [
    [storySubject, states * 0.3],
    ...golden.map((open): [Opener, number] => [open, states * 0.7 / golden.length]),
    ...ADVERSARIAL_SUBJECTS.map(
      (open): [Opener, number] => [open, Math.min(states / 10, ADVERSARIAL_STATES)],
    ),
  ];
  const reports: ModelReport[] = [];
  for (const [open, share] of shares) {
    await using subject = await open();
    // Whole steps; the sum is no less than what was asked for.
    const steps = Math.ceil(share / SKETCH_TOKENS);
    const report = await countModel(subject, steps, options.edit);
    options.onModel?.(report);
    reports.push(report);
  }
  return reports;
}

async function countModel(
  subject: Subject,
  steps: number,
  edit?: MissOptions["edit"],
): Promise<ModelReport> {
  const { name, spec: { vocabSize } } = subject;
  await using executor = await openExecutor(subject, edit);
  const states = steps * SKETCH_TOKENS;
  const ids = await subject.read(states);
  const tallies = CANDIDATES.map((candidates) => ({ candidates, misses: 0, rescored: 0 }));
  for (let first = 0; first < states; first += SKETCH_TOKENS) {
    const batch = batchAt(ids, first);
    const full = (await executor.step(batch)).slice();
    for (const tally of tallies) await countStep(executor, batch, full, tally);
  }
  return {
    model: name,
    vocabSize,
    states,
    counts: tallies.map(({ candidates, misses, rescored }) => ({
      candidates,
      misses,
      rescoredPerState: rescored / states,
    })),
  };
}

interface Tally {
  candidates: number;
  misses: number;
  rescored: number;
}

/** The same tokens again, at the same positions: keys and values are overwritten by the same ones. */
async function countStep(
  executor: NativeExecutor,
  batch: Batch,
  full: Float32Array,
  tally: Tally,
): Promise<void> {
  const { candidates } = tally;
  const before = executor.rescoredRows;
  const logitCandidates = new Int32Array(batch.ids.length).fill(candidates);
  const quick = await executor.step({ ...batch, logitCandidates });
  tally.rescored += executor.rescoredRows - before;
  const vocabSize = full.length / batch.ids.length;
  for (let at = 0; at < full.length; at += vocabSize) {
    const [a, b] = [full, quick].map((logits) => logits.subarray(at, at + vocabSize));
    if (isMiss(a, b, candidates)) tally.misses++;
  }
}

/** Tokens first .. first + SKETCH_TOKENS, in sequences of CONTEXT, with all logits. */
function batchAt(ids: readonly number[], first: number): Batch {
  return prefillBatch(ids.slice(first, first + SKETCH_TOKENS), { from: first % CONTEXT });
}

async function openExecutor(
  { spec, rope, weights: source }: Subject,
  edit: (text: string) => string = (text) => text,
): Promise<NativeExecutor> {
  const [kernel] = KERNELS;
  const sources = new Map(librarySources(spec, kernel, "f32"));
  sources.set("kernels.zig", edit(sources.get("kernels.zig")!));
  const { path } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
  const packed = new Uint8Array(planOf(spec, kernel.scheme.layout).totalBytes);
  const { layout } = kernel.scheme;
  using packer = openPacker(await compilePacker(layout, kernel.isa), layout, THREADS);
  await packModel(spec, source, (bytes, offset) => packed.set(bytes, offset), { packer });
  return openPacked(path, packed, {
    kernels: kernel.isa,
    head: "two-stage",
    threads: THREADS,
    vocabSize: spec.vocabSize,
    hiddenSize: spec.hiddenSize,
    maxBatchTokens: SKETCH_TOKENS,
    contextSize: CONTEXT,
    kvBlocks: CONTEXT / KV_BLOCK_POSITIONS,
    rope: joinedTables(rope),
  });
}

/** Sums over all models. */
export function totalOf(reports: readonly ModelReport[]): { states: number; misses: number } {
  const misses = reports.flatMap(({ counts }) => counts.map((count) => count.misses));
  return {
    states: reports.reduce((sum, report) => sum + report.states, 0),
    misses: misses.reduce((a, b) => a + b, 0),
  };
}

function printed({ model, vocabSize, states, counts }: ModelReport): string {
  const cells = counts.map(({ candidates, misses, rescoredPerState }) =>
    `c = ${candidates}: ${misses} missed, ${rescoredPerState.toFixed(1)} rescored`
  );
  return [model.padEnd(32), `${states} states`, ...cells, `of ${vocabSize} rows`].join("  ");
}

/** @throws {RangeError} If it is no count. */
function statesOf(text: string): number {
  const states = Number(text);
  if (Number.isSafeInteger(states) && states > 0) return states;
  throw new RangeError(
    `Cannot count ${
      JSON.stringify(text)
    } tokens: give a whole number from 1 on, as --tokens 100000`,
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { tokens: { type: "string", default: "1000000" }, json: { type: "boolean" } },
  });
  const print = (text: string) => process.stdout.write(`${text}\n`);
  const models = await countMisses({
    states: statesOf(values.tokens),
    onModel: values.json ? undefined : (report) => print(printed(report)),
  });
  const total = totalOf(models);
  const each = CANDIDATES.join(" and ");
  print(
    values.json
      ? JSON.stringify({ ...total, models })
      : `${total.states} hidden states, the ${each} largest logits of each: ${total.misses} missed`,
  );
}

if (import.meta.main) {
  await main().catch((error) => {
    if (!(error instanceof RangeError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
