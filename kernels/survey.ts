/** What a person may want to know of the chosen kernel: other numbers of threads, and small batches. */
import type { TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import type { LinearWork } from "../codegen/ternary_linear/work.ts";
import { type Candidate, compare, Contender, type Measurement, median, spreadOf } from "./race.ts";

/** Sequences that decode together, or drafts of one: weights are read once for all of them. */
const SMALL_BATCHES = [2, 4, 8, 16];

const ROUNDS = 7;
/** Rounds that are measured even if the time is up, prompts too. */
const LEAST_ROUNDS = 3;

/** More threads have to be quicker by this much: they take time from others, and power. */
const WORTH_A_THREAD = 0.03;

/** All ternary linears with so many threads. */
export interface ThreadTime {
  /** Native threads. */
  threads: number;
  /** Of one generated token. */
  decodeNs: number;
  /** Of one token of a prompt. */
  promptNs: number;
}

/** Figures that say what else the chosen kernel can do. */
export interface Survey {
  /** One a number of threads. */
  threadTimes: ThreadTime[];
  /** The fewest threads that are as quick as any number of them, within 3 %. */
  advisedThreads: number;
  /** One linear for small batches, weights from memory. */
  batches: Measurement[];
}

/** 1, 2, 4, ... and `most` itself. */
export function threadCounts(most: number): number[] {
  const powers = Array.from({ length: 11 }, (_, i) => 2 ** i).filter((count) => count < most);
  return [...powers, most];
}

/**
 * Measures the chosen kernel some more.
 *
 * @param candidates The kernel with each number of threads; all have the same weights.
 * @param pause Called between rounds; what it throws ends the survey. False once the time is up.
 */
export async function survey(
  { kernel, works, promptTokensPerToken, threads }: {
    kernel: TernaryKernel;
    works: readonly LinearWork[];
    promptTokensPerToken: number;
    threads: number;
  },
  candidates: ReadonlyMap<number, Candidate>,
  pause: () => Promise<boolean>,
): Promise<Survey> {
  const contenders = new Map([...candidates].map(([count, candidate]) => [
    count,
    new Contender(kernel, candidate, works, promptTokensPerToken),
  ]));
  for (let round = 1; round <= ROUNDS; round++) {
    if (!await pause() && round > LEAST_ROUNDS) break;
    works.forEach((_, work) => {
      for (const contender of contenders.values()) contender.sample(work, round <= LEAST_ROUNDS);
    });
  }
  const batches = await measureBatches(candidates.get(threads)!, works, pause);
  return { ...adviceOf(contenders), batches };
}

function adviceOf(
  contenders: ReadonlyMap<number, Contender>,
): Pick<Survey, "threadTimes" | "advisedThreads"> {
  const [first] = contenders.values();
  const ratio = (contender: Contender) => compare(contender, first).ratio;
  const best = Math.min(...[...contenders.values()].map(ratio));
  const ascending = [...contenders].sort(([a], [b]) => a - b);
  const [advisedThreads] = ascending.find(([, contender]) =>
    ratio(contender) <= best * (1 + WORTH_A_THREAD)
  )!;
  const threadTimes = ascending.map(([threads, contender]) => {
    const { decodeNs, promptNs } = contender.times();
    return { threads, decodeNs, promptNs };
  });
  return { threadTimes, advisedThreads };
}

async function measureBatches(
  candidate: Candidate,
  works: readonly LinearWork[],
  pause: () => Promise<boolean>,
): Promise<Measurement[]> {
  const measurements: Measurement[] = [];
  for (const work of works) {
    for (const tokens of SMALL_BATCHES) {
      if (!await pause()) return measurements;
      const samples = Array.from({ length: ROUNDS }, () => candidate.timeNs(work, tokens));
      const { n, k } = work;
      measurements.push({ n, k, tokens, medianNs: median(samples), spread: spreadOf(samples) });
    }
  }
  return measurements;
}
