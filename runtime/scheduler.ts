import type { Batch } from "../codegen/step/batch.ts";
import type { Executor } from "./executor.ts";
import { KvBlocks } from "./kv_cache.ts";

/** One sequence's side of the work: which tokens come next, and what to do with their logits. */
export interface SequenceWork {
  /** Most tokens that the sequence will ever have: the memory it is given. */
  readonly maxTokens: number;
  /** Tokens not yet run, in order. The scheduler takes them from the front. */
  readonly pending: number[];
  /** True while the sequence has more to do; asked after each `accept`. */
  readonly active: boolean;
  /** Whether the logits after the token at `position` are wanted. */
  wantsLogits(position: number): boolean;
  /** Logits, (vocabSize,), valid only during the call. May add to `pending`. */
  accept(position: number, logits: Float32Array): void;
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
  ids: number[];
}

/** Most logits of one step: 64 MB of float32. */
const MAX_LOGITS = 16 << 20;

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
      else this.#running.push({ work, blocks, computed: 0 });
    }
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
      shares.push({ sequence, ids: sequence.work.pending.slice(0, count) });
      room -= count;
      logitRoom -= logitRows;
    }
    // Who had no room this time comes first the next time.
    this.#running = [
      ...this.#running.filter((sequence) => !shares.some((share) => share.sequence === sequence)),
      ...shares.map((share) => share.sequence),
    ];
    return shares;
  }

  async #step(shares: Share[]): Promise<void> {
    const { batch, wanted } = batchOf(shares);
    const logits = await this.#options.executor.step(batch);
    for (const { sequence, ids } of shares) {
      sequence.computed += ids.length;
      sequence.work.pending.splice(0, ids.length);
    }
    const { vocabSize } = this.#options;
    wanted.forEach(({ work, position }, l) => {
      if (work.active) work.accept(position, logits.subarray(l * vocabSize, (l + 1) * vocabSize));
    });
  }
}

/** As many of a sequence's pending tokens as there is room for, and for their logits. */
function shareOf({ work, computed }: Running, room: number, logitRoom: number) {
  const most = Math.min(room, work.pending.length);
  let logitRows = 0;
  for (let count = 0; count < most; count++) {
    if (!work.wantsLogits(computed + count)) continue;
    if (logitRows === logitRoom) return { count, logitRows };
    logitRows++;
  }
  return { count: most, logitRows };
}

interface Wanted {
  work: SequenceWork;
  position: number;
}

function batchOf(shares: readonly Share[]): { batch: Batch; wanted: Wanted[] } {
  const tableStride = Math.max(...shares.map(({ sequence }) => sequence.blocks.length));
  const tables = new Int32Array(shares.length * tableStride);
  const ids: number[] = [];
  const positions: number[] = [];
  const tablesOf: number[] = [];
  const logitRows: number[] = [];
  const wanted: Wanted[] = [];
  shares.forEach(({ sequence, ids: own }, row) => {
    tables.set(sequence.blocks, row * tableStride);
    own.forEach((id, i) => {
      const position = sequence.computed + i;
      if (sequence.work.wantsLogits(position)) {
        logitRows.push(ids.length);
        wanted.push({ work: sequence.work, position });
      }
      ids.push(id);
      positions.push(position);
      tablesOf.push(row);
    });
  });
  const batch: Batch = {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(positions),
    tablesOf: Int32Array.from(tablesOf),
    logitRows: Int32Array.from(logitRows),
    logitCandidates: new Int32Array(logitRows.length),
    tables,
    tableStride,
  };
  return { batch, wanted };
}
