import type { EnergyMeter, EnergyProblem, Joules } from "./energy.ts";
import type { TurnEnergy } from "./energy_report.ts";
import { profileOf } from "./profile.ts";
import { type BenchSession, MAX_BATCH_TOKENS } from "./session.ts";
import { secondsOf } from "./statistics.ts";
import type { BenchOptions, StepProfile } from "./types.ts";
import type { StepCounts } from "./work.ts";

/** One measurement of everything, in turn. */
export interface Turn {
  prefillSeconds: number;
  decode: Stretch;
  /** As many tokens from position 0 on; with `context`. */
  start?: Stretch;
  /** `genTokens` steps of each of `batch`. */
  batches: Stretch[];
  energy?: TurnEnergy;
}

/** Steps that decode, and reads of all weights in between. */
export interface Stretch {
  seconds: number;
  /** Bytes a second of the reads: on a shared machine both meet the same neighbours. */
  peakBytesPerSecond: number;
  /** Rows of the head that were scored exactly after its sketch. */
  rescoredRows: number;
}

/** Reads of the weights in a stretch. */
const READS = 8;

type Tokens = Pick<BenchOptions, "promptTokens" | "genTokens" | "context">;

export async function measureTurn(
  session: BenchSession,
  options: BenchOptions,
  meter?: EnergyMeter,
): Promise<Turn> {
  const { genTokens, context, batch = [] } = options;
  const prefill = await timed(meter, () => session.prefillAll(options.promptTokens));
  const first = contextTokensOf(options);
  const decode = await stretchOf(session, genTokens, (i) => session.decode(first + i));
  const turn: Turn = { prefillSeconds: prefill.seconds, decode, batches: [] };
  const fromStart = (sequences: number) =>
    stretchOf(session, genTokens, (i) => session.decode(i, sequences));
  if (context !== undefined) turn.start = await fromStart(1);
  for (const sequences of batch) {
    options.signal?.throwIfAborted();
    turn.batches.push(await fromStart(sequences));
  }
  if (meter === undefined || prefill.energy === undefined) return turn;
  const { energy, seconds } = await timed(meter, () => decodeAll(session, options));
  const times = { prefillSeconds: prefill.seconds, decodeSeconds: seconds };
  return { ...turn, energy: { prefill: prefill.energy, decode: energy!, ...times } };
}

/** Runs steps 0 .. steps. */
async function stretchOf(
  session: BenchSession,
  steps: number,
  step: (i: number) => Promise<unknown>,
): Promise<Stretch> {
  const rescoredBefore = session.executor.rescoredRows;
  const some = Math.ceil(steps / READS);
  let [seconds, readSeconds, reads] = [0, 0, 0];
  for (let from = 0; from < steps; from += some) {
    readSeconds += await session.readSeconds();
    reads++;
    seconds += await secondsOf(async () => {
      for (let i = from; i < Math.min(from + some, steps); i++) await step(i);
    });
  }
  const peakBytesPerSecond = reads * session.plan.totalBytes / readSeconds;
  const rescoredRows = session.executor.rescoredRows - rescoredBefore;
  return { seconds, peakBytesPerSecond, rescoredRows };
}

/** Seconds of some work, and what it used where there is a meter. */
async function timed(
  meter: EnergyMeter | undefined,
  work: () => Promise<unknown>,
): Promise<{ seconds: number; energy?: Joules | EnergyProblem }> {
  if (meter === undefined) return { seconds: await secondsOf(work) };
  let seconds = 0;
  const energy = await meter.measure(async () => {
    seconds = await secondsOf(work);
  });
  return { seconds, energy };
}

/** Prefill and decode with the stopwatch on, `repeat` times each. */
export async function profileTurns(
  session: BenchSession,
  options: BenchOptions,
): Promise<{ prefill: StepProfile; decode: StepProfile }> {
  const { repeat } = options;
  const prefill = await profileOf(session, prefillCounts(options), async () => {
    for (let i = 0; i < repeat; i++) await session.prefillAll(options.promptTokens);
  });
  const decode = await profileOf(session, decodeCounts(options), async () => {
    for (let i = 0; i < repeat; i++) await decodeAll(session, options);
  });
  return { prefill, decode };
}

async function decodeAll(
  session: BenchSession,
  options: Tokens,
): Promise<void> {
  const from = contextTokensOf(options);
  for (let i = 0; i < options.genTokens; i++) await session.decode(from + i);
}

function prefillCounts({ promptTokens, repeat }: BenchOptions): StepCounts {
  const steps = Math.ceil(promptTokens / MAX_BATCH_TOKENS);
  return {
    steps: steps * repeat,
    tokens: promptTokens * repeat,
    logitRows: steps * repeat,
    positionsSeen: rangeSum(1, promptTokens) * repeat,
    positionsRead: repeat *
      Array.from({ length: steps }, (_, i) => Math.min((i + 1) * MAX_BATCH_TOKENS, promptTokens))
        .reduce((sum, positions) => sum + positions, 0),
  };
}

/** Positions before the first token that is decoded. */
export function contextTokensOf({ promptTokens, context = promptTokens }: Tokens): number {
  return context;
}

function decodeCounts(options: BenchOptions): StepCounts {
  const { genTokens, repeat } = options;
  const context = contextTokensOf(options);
  const positions = rangeSum(context + 1, context + genTokens) * repeat;
  const tokens = genTokens * repeat;
  return {
    steps: tokens,
    tokens,
    logitRows: tokens,
    positionsSeen: positions,
    positionsRead: positions,
  };
}

/** first + ... + last. */
export function rangeSum(first: number, last: number): number {
  return (first + last) * (last - first + 1) / 2;
}
