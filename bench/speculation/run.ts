/**
 * What self-speculation gains and what it may cost: the same answers decoded with and without it, in
 * turns, in one run.
 *
 *     deno run -A bench/speculation/run.ts --shape bitnet-2b-4t --threads 1 --sample edit
 *
 * Made-up weights say nothing that makes sense, so the answers are given: after each step the sampler
 * draws as ever, and the sample's next token takes the place of what it drew. Drafts are taken or
 * not by these tokens, and every step runs what it would run with a model that answers so. Each
 * decode starts with a scheduler that has measured nothing yet.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import type { Batch } from "../../codegen/step/batch.ts";
import { KV_BLOCK_POSITIONS } from "../../codegen/attention/cache.ts";
import { BenchSession } from "../../runtime/bench/session.ts";
import { median } from "../../runtime/bench/statistics.ts";
import { embeddedModelFolder } from "../../runtime/embedded.ts";
import { createSampler } from "../../runtime/sampler.ts";
import { Scheduler, type SequenceWork } from "../../runtime/scheduler.ts";
import { Drafter, MOST_STEP_TOKENS } from "../../runtime/speculation.ts";
import { loadTokenizer } from "../../runtime/tokenizer.ts";
import { type Sample, SAMPLES } from "./texts.ts";

export interface SpeculationOptions {
  /** Made-up weights of this shape; else the embedded story model. */
  shape?: string;
  samples: readonly string[];
  threads?: number;
  repeat: number;
  /** Only the first tokens of each answer. */
  mostTokens?: number;
}

export interface SampleReport {
  sample: string;
  tokens: number;
  /** Medians over the repeats. */
  plainTokensPerSecond: number;
  tokensPerSecond: number;
  /** Time without drafts over time with them: the median of the pairs, and the least of them. */
  ratio: number;
  leastRatio: number;
  draftTokens: number;
  acceptedTokens: number;
}

export interface SpeculationReport {
  shape: string;
  threads: number;
  samples: SampleReport[];
  /** Milliseconds of steps of one sequence's tokens, each with its logits, medians. */
  steps: { tokens: number; ms: number }[];
}

/** A sequence whose answer is given. */
class GivenAnswer implements SequenceWork {
  readonly pending: number[];
  readonly maxTokens: number;
  readonly drafter: Drafter | null;
  readonly finished: Promise<unknown>;
  firstMs = 0;
  lastMs = 0;
  readonly #history: number[];
  readonly #answer: Iterator<number>;
  readonly #sampler;
  #settle!: (error: unknown) => void;

  constructor(ids: SampleIds, vocabSize: number, speculates: boolean) {
    this.pending = [...ids.prompt];
    this.#history = [...ids.prompt];
    this.maxTokens = ids.prompt.length + ids.answer.length;
    this.drafter = speculates ? new Drafter(this.#history, this.maxTokens, "auto") : null;
    this.#sampler = createSampler({ temperature: 0 }, vocabSize);
    this.finished = new Promise((resolve) => this.#settle = resolve);
    this.#answer = ids.answer.values();
  }

  get active(): boolean {
    return this.#history.length < this.maxTokens;
  }

  candidatesAt(position: number): number | null {
    const ahead = position - (this.#history.length - 1);
    return ahead < 0 ? null : this.#sampler.candidates(this.#history, ahead);
  }

  accept(_position: number, logits: Float32Array): void {
    this.#sampler.sample(logits, this.#history);
    const id: number = this.#answer.next().value;
    this.lastMs = performance.now();
    if (this.firstMs === 0) this.firstMs = this.lastMs;
    this.#history.push(id);
    this.drafter?.grown();
    if (this.active) this.pending.push(id);
  }

  finish(error?: unknown): void {
    this.#settle(error);
  }
}

interface SampleIds {
  prompt: number[];
  answer: number[];
}

interface Decoded {
  ms: number;
  draftTokens: number;
  acceptedTokens: number;
}

async function decode(
  session: BenchSession,
  ids: SampleIds,
  speculates: boolean,
): Promise<Decoded> {
  const { vocabSize } = session.spec;
  const work = new GivenAnswer(ids, vocabSize, speculates);
  const scheduler = new Scheduler({
    executor: session.executor,
    vocabSize,
    kvBlocks: Math.ceil(work.maxTokens / KV_BLOCK_POSITIONS),
    maxBatchTokens: 256,
  });
  scheduler.add(work);
  const error = await work.finished;
  if (error !== undefined) throw error;
  const { draftTokens = 0, acceptedTokens = 0 } = work.drafter ?? {};
  return { ms: work.lastMs - work.firstMs, draftTokens, acceptedTokens };
}

/**
 * Decodes each sample with and without drafts, in turns, after one unmeasured turn.
 *
 * @throws {RangeError} If the shape or a sample is unknown, or the model does not fit in memory.
 */
export async function measureSpeculation(options: SpeculationOptions): Promise<SpeculationReport> {
  const samples = await sampleIds(options);
  const longest = Math.max(...samples.map(({ prompt, answer }) => prompt.length + answer.length));
  await using session = await BenchSession.open({
    ...options,
    promptTokens: longest,
    genTokens: MOST_STEP_TOKENS,
  });
  const reports: SampleReport[] = [];
  for (const ids of samples) {
    reports.push(await measureSample(session, ids, options.repeat));
  }
  const steps = await measureSteps(session, longest, options.repeat);
  return { shape: session.source.name, threads: session.threads, samples: reports, steps };
}

async function sampleIds({ samples, mostTokens }: SpeculationOptions) {
  const tokenizer = await loadTokenizer(embeddedModelFolder());
  return samples.map((name) => {
    const { prompt, answer } = sampleOf(name);
    return {
      name,
      prompt: tokenizer.encode(prompt),
      answer: tokenizer.encode(answer, { addSpecialTokens: false }).slice(0, mostTokens),
    };
  });
}

function sampleOf(name: string): Sample {
  if (Object.hasOwn(SAMPLES, name)) return SAMPLES[name];
  const known = Object.keys(SAMPLES).join(", ");
  throw new RangeError(`Cannot measure sample ${JSON.stringify(name)}: give one of ${known}`);
}

async function measureSample(
  session: BenchSession,
  ids: SampleIds & { name: string },
  repeat: number,
): Promise<SampleReport> {
  const plain: Decoded[] = [];
  const drafted: Decoded[] = [];
  for (let turn = 0; turn <= repeat; turn++) {
    const without = await decode(session, ids, false);
    const withDrafts = await decode(session, ids, true);
    if (turn === 0) continue;
    plain.push(without);
    drafted.push(withDrafts);
  }
  const ratios = drafted.map(({ ms }, i) => plain[i].ms / ms);
  // The first token comes from the prompt's step.
  const rate = (runs: readonly Decoded[]) =>
    (ids.answer.length - 1) / (median(runs.map(({ ms }) => ms)) / 1000);
  return {
    sample: ids.name,
    tokens: ids.answer.length,
    plainTokensPerSecond: rate(plain),
    tokensPerSecond: rate(drafted),
    ratio: median(ratios),
    leastRatio: Math.min(...ratios),
    draftTokens: median(drafted.map(({ draftTokens }) => draftTokens)),
    acceptedTokens: median(drafted.map(({ acceptedTokens }) => acceptedTokens)),
  };
}

/** Steps of several sizes after `from` tokens, in turns. */
async function measureSteps(session: BenchSession, from: number, repeat: number) {
  const sizes = [1, 2, 4, 8, MOST_STEP_TOKENS];
  const times: number[][] = sizes.map(() => []);
  for (let turn = 0; turn < repeat; turn++) {
    for (const [i, tokens] of sizes.entries()) {
      const startedMs = performance.now();
      await session.executor.step(stepOf(from, tokens));
      times[i].push(performance.now() - startedMs);
    }
  }
  return sizes.map((tokens, i) => ({ tokens, ms: median(times[i]) }));
}

/** Tokens from position `from` on of one sequence, the largest logit of each. */
function stepOf(from: number, tokens: number): Batch {
  const each = (value: (i: number) => number) =>
    Int32Array.from({ length: tokens }, (_, i) => value(i));
  const tableStride = Math.ceil((from + tokens) / KV_BLOCK_POSITIONS);
  return {
    ids: each((i) => 7 + i),
    positions: each((i) => from + i),
    tablesOf: each(() => 0),
    logitRows: each((i) => i),
    logitCandidates: each(() => 1),
    tables: Int32Array.from({ length: tableStride }, (_, i) => i),
    tableStride,
  };
}

function printed({ shape, threads, samples, steps }: SpeculationReport): string {
  const rows = samples.map((report) =>
    [
      report.sample.padEnd(8),
      `${report.tokens} tokens`,
      `${report.plainTokensPerSecond.toFixed(1)} -> ${report.tokensPerSecond.toFixed(1)} tokens/s`,
      `x ${report.ratio.toFixed(2)} (least ${report.leastRatio.toFixed(2)})`,
      `${report.acceptedTokens} of ${report.draftTokens} drafts`,
    ].join("  ")
  );
  const costs = steps.map(({ tokens, ms }) => `${tokens}: ${(ms / steps[0].ms).toFixed(2)}`);
  return [
    `${shape}, ${threads} threads`,
    ...rows,
    `steps of so many tokens, in steps of one (${steps[0].ms.toFixed(1)} ms): ${costs.join(", ")}`,
  ].join("\n");
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      shape: { type: "string" },
      sample: { type: "string", multiple: true },
      threads: { type: "string" },
      repeat: { type: "string", default: "5" },
      tokens: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const report = await measureSpeculation({
    shape: values.shape,
    samples: values.sample ?? Object.keys(SAMPLES),
    threads: values.threads === undefined ? undefined : Number(values.threads),
    repeat: Number(values.repeat),
    mostTokens: values.tokens === undefined ? undefined : Number(values.tokens),
  });
  process.stdout.write(`${values.json ? JSON.stringify(report) : printed(report)}\n`);
}
