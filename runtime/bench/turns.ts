import type { EnergyMeter, EnergyProblem, Joules } from "./energy.ts";
import type { TurnEnergy } from "./energy_report.ts";
import { profileOf } from "./profile.ts";
import { type BenchSession, MAX_BATCH_TOKENS } from "./session.ts";
import { secondsOf } from "./statistics.ts";
import type { BenchOptions, StepProfile } from "./types.ts";
import type { StepCounts } from "./work.ts";

/** One measurement of everything, in turn. */
export interface Turn {
  peakBytesPerSecond: number;
  prefillSeconds: number;
  decodeSeconds: number;
  /** Seconds of as many tokens from position 0 on; with `context`. */
  startSeconds?: number;
  /** Rows of the head that the decoded tokens scored exactly after its sketch. */
  rescoredRows: number;
  /** Seconds of `genTokens` steps of each of `batch`. */
  batchSeconds: number[];
  energy?: TurnEnergy;
}

type Tokens = Pick<BenchOptions, "promptTokens" | "genTokens" | "context">;

export async function measureTurn(
  session: BenchSession,
  options: BenchOptions,
  meter?: EnergyMeter,
): Promise<Turn> {
  const peakBytesPerSecond = await session.peakBytesPerSecond();
  const prefill = await timed(meter, () => session.prefillAll(options.promptTokens));
  const rescoredBefore = session.executor.rescoredRows;
  const decode = await timed(meter, () => decodeAll(session, options));
  const rescoredRows = session.executor.rescoredRows - rescoredBefore;
  const startSeconds = options.context === undefined
    ? undefined
    : await secondsOf(() => decodeTogether(session, 1, options));
  const batchSeconds: number[] = [];
  for (const sequences of options.batch ?? []) {
    options.signal?.throwIfAborted();
    batchSeconds.push(await secondsOf(() => decodeTogether(session, sequences, options)));
  }
  const times = { prefillSeconds: prefill.seconds, decodeSeconds: decode.seconds };
  const turn = { peakBytesPerSecond, startSeconds, rescoredRows, batchSeconds, ...times };
  if (prefill.energy === undefined || decode.energy === undefined) return turn;
  return { ...turn, energy: { prefill: prefill.energy, decode: decode.energy, ...times } };
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

/** At the start of the sequences' contexts. */
async function decodeTogether(
  session: BenchSession,
  sequences: number,
  { genTokens }: Tokens,
): Promise<void> {
  for (let i = 0; i < genTokens; i++) await session.decode(i, sequences);
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
