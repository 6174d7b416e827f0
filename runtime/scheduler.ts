import { SKETCH_TOKENS } from "../codegen/head/sketch.ts";
import type { Batch } from "../codegen/step/batch.ts";
import type { Executor } from "./executor.ts";
import { KvBlocks } from "./kv_cache.ts";
import { type Drafter, DraftPlanner, MOST_STEP_TOKENS } from "./speculation.ts";

/** One sequence's side of the work: which tokens come next, and what to do with their logits. */
export interface SequenceWork {
  /** Most tokens that the sequence will ever have: the memory it is given. */
  readonly maxTokens: number;
  /** Tokens not yet run, in order. The scheduler takes them from the front. */
  readonly pending: number[];
  /** True while the sequence has more to do; asked after each `accept`. */
  readonly active: boolean;
  /** Guesses the tokens after `pending`, to be run with them; absent: nothing is guessed. */
  readonly drafter?: Drafter | null;
  /**
   * How many of the largest logits after the token at `position` must be there, the others being
   * exact or -Infinity; 0: all logits; null: none are wanted. Also asked of drafted tokens.
   */
  candidatesAt(position: number): number | null;
  /**
   * Logits, (vocabSize,), valid only during the call. May add to `pending`.
   *
   * @param candidates What `candidatesAt` said, or 0 where the step made all logits: another sequence
   * needed them, or there were too many rows.
   */
  accept(position: number, logits: Float32Array, candidates: number): void;
  /** Called once, when the sequence has left: with the error that ended it, or without. */
  finish(error?: unknown): void;
}

interface Running {
  work: SequenceWork;
  blocks: Int32Array;
  /** Tokens whose keys and values are in the cache. */
  computed: number;
}

/** Tokens of one sequence that go into the coming step. */
interface Share {
  sequence: Running;
  /** Pending tokens, then drafted ones. */
  ids: number[];
  /** How many of `ids` were drafted, and how many of these came true. */
  drafted: number;
  accepted: number;
}

/** Most logits of one step: 64 MB of float32. */
const MAX_LOGITS = 16 << 20;

/** With more sequences than this a step has enough to do without drafts. */
const MOST_DRAFTING_SEQUENCES = 4;

export interface SchedulerOptions {
  executor: Executor;
  vocabSize: number;
  kvBlocks: number;
  /** Most tokens a step. */
  maxBatchTokens: number;
}

/**
 * Continuous batching: every step takes one token of each decoding sequence first, so that a long
 * prompt delays nobody by more than one chunk, and fills up with prompt tokens. A sequence is let
 * in when the memory for its longest form is free, so that none ever has to be thrown out.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #blocks: KvBlocks;
  readonly #waiting: SequenceWork[] = [];
  readonly #planner = new DraftPlanner();
  #running: Running[] = [];
  #loop: Promise<void> | null = null;
  #closed = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#blocks = new KvBlocks(options.kvBlocks);
  }

  /**
   * Queues a sequence.
   *
   * @throws {RangeError} If it can never fit in the KV cache.
   */
  add(work: SequenceWork): void {
    if (this.#closed) throw new Error("Cannot generate as the model is closed: load it again");
    if (KvBlocks.needed(work.maxTokens) > this.#blocks.count) {
      throw new RangeError(
        `Cannot run a sequence of ${work.maxTokens} tokens as the KV cache holds ${
          this.#blocks.count * 16
        }: raise --ctx or shorten the prompt`,
      );
    }
    this.#waiting.push(work);
    this.#loop ??= this.#run();
  }

  /** Ends all sequences and waits for the step that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#loop;
  }

  async #run(): Promise<void> {
    // Callers that start together, before they await anything, share the first step.
    await Promise.resolve();
    while (true) {
      this.#dropFinished();
      this.#admit();
      if (this.#running.length === 0) {
        // Here and not when the promise settles: whoever adds between the two would never be run.
        this.#loop = null;
        return;
      }
      const shares = this.#nextShares();
      try {
        await this.#step(shares);
      } catch (error) {
        this.#failAll(error);
      }
    }
  }

  #admit(): void {
    while (this.#waiting.length > 0) {
      const work = this.#waiting[0];
      const blocks = work.active ? this.#blocks.take(KvBlocks.needed(work.maxTokens)) : null;
      if (work.active && blocks === null) return;
      this.#waiting.shift();
      if (blocks === null) work.finish();
      else this.#start({ work, blocks, computed: 0 });
    }
  }

  #start(sequence: Running): void {
    this.#running.push(sequence);
    this.#planner.welcome(this.#running.length === 1);
  }

  #dropFinished(): void {
    if (this.#closed) return this.#failAll(new Error("The model was closed"));
    this.#running = this.#running.filter((sequence) => {
      if (sequence.work.active) return true;
      this.#leave(sequence);
      return false;
    });
  }

  #leave(sequence: Running, error?: unknown): void {
    this.#blocks.give(sequence.blocks);
    sequence.work.finish(error);
  }

  #failAll(error: unknown): void {
    for (const sequence of this.#running.splice(0)) this.#leave(sequence, error);
    for (const work of this.#waiting.splice(0)) work.finish(error);
  }

  /** Decoding sequences first (one token each), then prompts in order of arrival. */
  #nextShares(): Share[] {
    let room = this.#options.maxBatchTokens;
    const decoding = this.#running.filter(({ work }) => work.pending.length === 1);
    const prefilling = this.#running.filter(({ work }) => work.pending.length > 1);
    let logitRoom = Math.max(1, Math.floor(MAX_LOGITS / this.#options.vocabSize));
    const shares: Share[] = [];
    for (const sequence of [...decoding, ...prefilling]) {
      const { count, logitRows } = shareOf(sequence, room, logitRoom);
      if (count === 0) break;
      const ids = sequence.work.pending.slice(0, count);
      shares.push({ sequence, ids, drafted: 0, accepted: 0 });
      room -= count;
      logitRoom -= logitRows;
    }
    if (this.#isSmallDecode(shares)) this.#addDrafts(shares, Math.min(room, logitRoom));
    // Who had no room this time comes first the next time.
    this.#running = [
      ...this.#running.filter((sequence) => !shares.some((share) => share.sequence === sequence)),
      ...shares.map((share) => share.sequence),
    ];
    return shares;
  }

  /** Whether drafts may pay: all sequences decode, and they are few. */
  #isSmallDecode(shares: readonly Share[]): boolean {
    return shares.length === this.#running.length && shares.length <= MOST_DRAFTING_SEQUENCES &&
      shares.every(({ sequence }) => sequence.work.pending.length === 1);
  }

  /** @param room Tokens and their logits that the step still has room for. */
  #addDrafts(shares: Share[], room: number): void {
    const most = Math.min(room, MOST_STEP_TOKENS - shares.length);
    const drafts = shares.map(({ sequence: { work, computed } }) =>
      // The last token of all is drawn from logits and never run.
      work.drafter?.draft(Math.min(most, work.maxTokens - computed - 2)) ?? null
    );
    if (drafts.every((draft) => draft === null)) return;
    this.#planner.plan(drafts, shares.length + most).forEach((count, i) => {
      if (count === 0) return;
      shares[i].ids.push(...drafts[i]!.ids.slice(0, count));
      shares[i].drafted = count;
    });
  }

  async #step(shares: Share[]): Promise<void> {
    const isDecode = this.#isSmallDecode(shares);
    const { batch, wanted } = batchOf(shares);
    const startedMs = performance.now();
    const logits = await this.#options.executor.step(batch);
    const ms = performance.now() - startedMs;
    for (const { sequence, ids, drafted } of shares) {
      sequence.computed += ids.length - drafted;
      sequence.work.pending.splice(0, ids.length - drafted);
    }
    this.#accept(wanted, logits);
    const accepted = shares.reduce((sum, share) => sum + share.accepted, 0);
    for (const { sequence, drafted, accepted } of shares) {
      if (drafted > 0) sequence.work.drafter!.settle(drafted, accepted);
    }
    if (!isDecode) return;
    this.#planner.settle({
      sequences: shares.length,
      tokens: batch.ids.length,
      gained: shares.length + accepted,
      head: batch.logitCandidates[0] > 0 ? "two-stage" : "full",
      ms,
    });
  }

  /**
   * Hands the logits out in order. A drafted token counts once the sequence itself has asked for it:
   * then its keys and values are in the cache already, and its logits are those of the sequence. The
   * rows after a wrong one are skipped; what they left in the cache is overwritten by the right tokens
   * before anything reads it.
   */
  #accept(wanted: readonly Wanted[], logits: Float32Array): void {
    const { vocabSize } = this.#options;
    wanted.forEach(({ share, position, candidates, next }, l) => {
      const { sequence } = share;
      const { work } = sequence;
      if (!work.active || position >= sequence.computed) return;
      const row = logits.subarray(l * vocabSize, (l + 1) * vocabSize);
      work.accept(position, row, candidates);
      const isLast = position === sequence.computed - 1;
      if (!work.active || !isLast || next === undefined || work.pending[0] !== next) return;
      work.pending.shift();
      sequence.computed++;
      share.accepted++;
    });
  }
}

/** As many of a sequence's pending tokens as there is room for, and for their logits. */
function shareOf({ work, computed }: Running, room: number, logitRoom: number) {
  const most = Math.min(room, work.pending.length);
  let logitRows = 0;
  for (let count = 0; count < most; count++) {
    if (work.candidatesAt(computed + count) === null) continue;
    if (logitRows === logitRoom) return { count, logitRows };
    logitRows++;
  }
  return { count: most, logitRows };
}

/** A row of logits. */
interface Wanted {
  share: Share;
  position: number;
  candidates: number;
  /** The token that was run after this one; undefined after the share's last. */
  next: number | undefined;
}

function batchOf(shares: readonly Share[]): { batch: Batch; wanted: Wanted[] } {
  const tableStride = Math.max(...shares.map(({ sequence }) => sequence.blocks.length));
  const tables = new Int32Array(shares.length * tableStride);
  const ids: number[] = [];
  const positions: number[] = [];
  const tablesOf: number[] = [];
  const logitRows: number[] = [];
  const wanted: Wanted[] = [];
  shares.forEach((share, row) => {
    const { sequence, ids: own } = share;
    tables.set(sequence.blocks, row * tableStride);
    own.forEach((id, i) => {
      const position = sequence.computed + i;
      const candidates = sequence.work.candidatesAt(position);
      if (candidates !== null) {
        logitRows.push(ids.length);
        wanted.push({ share, position, candidates, next: own[i + 1] });
      }
      ids.push(id);
      positions.push(position);
      tablesOf.push(row);
    });
  });
  // A step has one head: for those who need all logits, or for many rows, it makes all of everybody's.
  if (wanted.length > SKETCH_TOKENS || wanted.some(({ candidates }) => candidates === 0)) {
    wanted.forEach((row) => row.candidates = 0);
  }
  const batch: Batch = {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(positions),
    tablesOf: Int32Array.from(tablesOf),
    logitRows: Int32Array.from(logitRows),
    logitCandidates: Int32Array.from(wanted, ({ candidates }) => candidates),
    tables,
    tableStride,
  };
  return { batch, wanted };
}
