import { SKETCH_TOKENS } from "../codegen/head/sketch.ts";
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import type { Batch } from "../codegen/step/batch.ts";
import { BlockPool, SequenceMemory } from "./block_pool.ts";
import { QueueFullError } from "./errors.ts";
import type { Executor } from "./executor.ts";
import { BusyClock } from "./pause.ts";
import { type Drafter, DraftPlanner, MOST_STEP_TOKENS } from "./speculation.ts";
import { StepPace } from "./step_pace.ts";
import type { EngineStatus, SlotStatus } from "./types.ts";

/** One sequence's side of the work: which tokens come next, and what to do with their logits. */
export interface SequenceWork {
  /** Most tokens that the sequence will ever have. */
  readonly maxTokens: number;
  /** Tokens not yet run, in order. The scheduler takes them from the front. */
  readonly pending: number[];
  /** True while the sequence has more to do; asked after each `accept`. */
  readonly active: boolean;
  /** Guesses the tokens after `pending`, to be run with them; absent: nothing is guessed. */
  readonly drafter?: Drafter | null;
  /** Whether keys and values of equal beginnings may be read, and this one's be kept for others. */
  readonly cachePrompt?: boolean;
  /** Names it in the status. */
  readonly label?: string;
  /**
   * How many of the largest logits after the token at `position` must be there, the others being
   * exact or -Infinity; 0: all logits; null: none are wanted. Also asked of drafted tokens, and again
   * of tokens that are computed anew after their memory was given away.
   */
  candidatesAt(position: number): number | null;
  /** Whether the hidden state of a token is wanted: then its logits are not. */
  wantsHiddenAt?(position: number): boolean;
  /** Called before the first step, with the tokens whose keys and values were there already. */
  started?(cachedTokens: number): void;
  /**
   * Logits, (vocabSize,), valid only during the call. May add to `pending`.
   *
   * @param candidates What `candidatesAt` said, or 0 where the step made all logits: another sequence
   * needed them, or there were too many rows.
   * @returns "again" if these logits were too few: the token is run once more, and `candidatesAt` is
   * asked again.
   */
  accept(position: number, logits: Float32Array, candidates: number): void | "again";
  /** A hidden state after the final norm, (hiddenSize,), valid only during the call. */
  acceptHidden?(position: number, state: Float32Array): void;
  /** Called once, when the sequence has left: with the error that ended it, or without. */
  finish(error?: unknown): void;
}

/** A sequence from its arrival to its end. */
interface Sequence {
  /** In order of arrival: who came first is let in first and gives its memory up last. */
  readonly id: number;
  readonly work: SequenceWork;
  readonly promptTokens: number;
  readonly memory: SequenceMemory;
  /** Tokens whose keys and values are in the cache. */
  readonly computed: number[];
  cachedTokens: number;
  hasStarted: boolean;
}

/** A sequence in its prompt. */
interface Prefilling {
  sequence: Sequence;
  /** Its tokens, computed and pending. */
  all: readonly number[];
}

/** Tokens of one sequence that go into the coming step. */
interface Share {
  sequence: Sequence;
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

/** Sequences at once, unless the caller says otherwise. */
export const DEFAULT_MAX_SEQUENCES = 64;

export interface SchedulerOptions {
  executor: Executor;
  vocabSize: number;
  kvBlocks: number;
  /** Most tokens a step. */
  maxBatchTokens: number;
  maxSequences?: number;
  /** Sequences that may wait; default: any number. */
  maxWaiting?: number;
}

/**
 * Continuous batching: every step takes one token of each decoding sequence first, so that a long
 * prompt delays nobody by more than one chunk, and fills up with prompt tokens, of each prompt in
 * turn. A sequence is let in when its tokens so far fit in the cache. Where the cache is full later,
 * the youngest gives its memory to the others and is computed again when there is room: the numbers,
 * and so its text, are the same.
 */
export class Scheduler {
  readonly #options: Required<SchedulerOptions>;
  readonly #pool: BlockPool;
  readonly #planner = new DraftPlanner();
  readonly #pace = new StepPace();
  readonly #clock = new BusyClock();
  readonly #totals = {
    steps: 0,
    stepMs: 0,
    prefillTokens: 0,
    cachedTokens: 0,
    decodeTokens: 0,
    preemptions: 0,
  };
  /** In order of arrival. */
  #waiting: Sequence[] = [];
  /** Who goes first in the next step's room for prompts. */
  #running: Sequence[] = [];
  #arrivals = 0;
  #loop: Promise<void> | null = null;
  #closed = false;

  constructor(options: SchedulerOptions) {
    const { maxSequences = DEFAULT_MAX_SEQUENCES, maxWaiting = Infinity } = options;
    this.#options = { ...options, maxSequences, maxWaiting };
    this.#pool = new BlockPool(options.kvBlocks);
  }

  /**
   * Queues a sequence.
   *
   * @throws {RangeError} If it can never fit in the KV cache.
   * @throws {QueueFullError} If too many wait already.
   */
  add(work: SequenceWork): void {
    if (this.#closed) throw new Error("Cannot generate as the model is closed: load it again");
    this.#checkRoom(work);
    this.#waiting.push({
      id: this.#arrivals++,
      work,
      promptTokens: work.pending.length,
      memory: this.#pool.open(),
      computed: [],
      cachedTokens: 0,
      hasStarted: false,
    });
    this.#loop ??= this.#run();
  }

  #checkRoom(work: SequenceWork): void {
    if (SequenceMemory.blocksFor(work.maxTokens) > this.#pool.count) {
      throw new RangeError(
        `Cannot run a sequence of ${work.maxTokens} tokens as the KV cache holds ${
          this.#pool.count * KV_BLOCK_POSITIONS
        }: raise --ctx or shorten the prompt`,
      );
    }
    const { maxSequences, maxWaiting } = this.#options;
    const room = Math.max(0, maxSequences - this.#running.length);
    const waiting = this.#waiting.filter(({ work }) => work.active).length;
    if (waiting < maxWaiting + room) return;
    throw new QueueFullError(
      `Cannot take one more request as ${waiting} wait already and ${this.#running.length} run` +
        `: try again later`,
    );
  }

  get status(): EngineStatus {
    return {
      slots: this.#running.map(slotOf).sort((a, b) => a.id - b.id),
      maxSequences: this.#options.maxSequences,
      waiting: this.#waiting.length,
      kvBlocks: { ...this.#pool.counts, positions: KV_BLOCK_POSITIONS },
      totals: { ...this.#totals },
    };
  }

  /** Ends all sequences and waits for the step that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#loop;
  }

  async #run(): Promise<void> {
    // Callers that start together, before they await anything, share the first step.
    await Promise.resolve();
    for (let step = this.#begin(); step !== null; step = this.#begin()) {
      try {
        // The next step begins right after the last token was drawn, before anybody writes its text out:
        // that is done while the step runs.
        this.#arrive(step, await step.logits);
        for (const row of step.wanted) {
          // A large vocabulary takes milliseconds a row.
          if (this.#clock.isLate) await this.#clock.pause();
          this.#accept(row);
        }
        this.#settle(step);
      } catch (error) {
        this.#failAll(error);
      }
    }
    // Here and not when the promise settles: whoever adds between the two would never be run.
    this.#loop = null;
  }

  /** Starts the next step; null when nobody has anything to do. */
  #begin(): Step | null {
    while (true) {
      this.#dropFinished();
      this.#admit();
      if (this.#running.length === 0) return null;
      const shares = this.#nextShares();
      if (shares.length > 0) return this.#stepOf(shares);
    }
  }

  #dropFinished(): void {
    if (this.#closed) return this.#failAll(new Error("The model was closed"));
    for (const sequence of this.#running) if (!sequence.work.active) this.#leave(sequence);
    for (const { work } of this.#waiting) if (!work.active) work.finish();
    this.#running = this.#running.filter(({ work }) => work.active);
    this.#waiting = this.#waiting.filter(({ work }) => work.active);
  }

  #leave(sequence: Sequence, error?: unknown): void {
    sequence.memory.release();
    sequence.work.finish(error);
  }

  /** One sequence can't go on; the others can. */
  #fail(sequence: Sequence, error: unknown): void {
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#leave(sequence, error);
  }

  #failAll(error: unknown): void {
    for (const sequence of this.#running.splice(0)) this.#leave(sequence, error);
    for (const { work } of this.#waiting.splice(0)) work.finish(error);
  }

  // -------------------------------------------------------------- admission

  /** Lets waiting sequences in, in order of arrival, until one finds no memory. */
  #admit(): void {
    const { maxSequences } = this.#options;
    if (this.#waiting.length === 0 || this.#running.length >= maxSequences) return;
    let prefilling = this.#prefilling();
    for (const sequence of this.#waiting.slice(0, maxSequences)) {
      if (this.#running.length >= maxSequences) return;
      if (this.#isBeingComputed(sequence, prefilling)) continue;
      if (!this.#makeRoom(sequence)) return;
      this.#waiting.splice(this.#waiting.indexOf(sequence), 1);
      this.#start(sequence);
      prefilling = this.#prefilling();
    }
  }

  /**
   * Whether a running sequence is about to compute more of this one's beginning than is known yet:
   * then waiting for it costs less than doing the same twice.
   */
  #isBeingComputed({ work, memory }: Sequence, prefilling: readonly Prefilling[]): boolean {
    if (work.cachePrompt === false || prefilling.length === 0) return false;
    // The last token is always computed, for its logits.
    const usable = work.pending.slice(0, -1);
    return prefilling.some(({ sequence, all }) => memory.isAhead(sequence.memory, usable, all));
  }

  /** Running sequences whose beginnings others may soon read. */
  #prefilling(): Prefilling[] {
    return this.#running
      .filter(({ work }) => work.pending.length > 1 && work.cachePrompt !== false)
      .map((sequence) => ({ sequence, all: [...sequence.computed, ...sequence.work.pending] }));
  }

  /** Known blocks are held, and the memory for all tokens so far is taken; or nothing is. */
  #makeRoom({ work, memory }: Sequence): boolean {
    // The last token is always computed, for its logits.
    if (work.cachePrompt !== false) memory.reuse(work.pending.slice(0, -1));
    // One more block for each of the others, so that nobody is thrown out in the next steps.
    const isEnough = memory.reserve(work.pending.length) &&
      (this.#running.length === 0 || this.#pool.available >= this.#running.length);
    if (!isEnough) memory.release();
    return isEnough;
  }

  #start(sequence: Sequence): void {
    const { work, computed, hasStarted } = sequence;
    const known = sequence.memory.knownBlocks * KV_BLOCK_POSITIONS;
    computed.push(...work.pending.splice(0, known));
    this.#running.push(sequence);
    this.#totals.cachedTokens += known;
    if (hasStarted) return;
    sequence.hasStarted = true;
    sequence.cachedTokens = known;
    work.started?.(known);
    this.#planner.welcome(this.#running.length === 1);
  }

  // -------------------------------------------------------------- memory

  /**
   * Gives every share the memory for its tokens, the oldest sequences first; where there is none left
   * the youngest one that runs gives its own. The oldest always goes on, so that all come to an end.
   */
  #withMemory(shares: readonly Share[]): Share[] {
    const left = new Set(shares);
    const byAge = shares.toSorted((a, b) => a.sequence.id - b.sequence.id);
    for (const share of byAge) {
      const { sequence, ids } = share;
      while (left.has(share) && !sequence.memory.reserve(sequence.computed.length + ids.length)) {
        const youngest = this.#running.reduce((a, b) => a.id > b.id ? a : b);
        this.#preempt(youngest);
        for (const other of left) if (other.sequence === youngest) left.delete(other);
      }
    }
    return shares.filter((share) => left.has(share));
  }

  /** Back to the queue, with all its tokens to be computed again as far as nobody keeps them. */
  #preempt(sequence: Sequence): void {
    const { work, computed, memory } = sequence;
    memory.release();
    work.pending.unshift(...computed.splice(0));
    this.#running = this.#running.filter((other) => other !== sequence);
    const at = this.#waiting.findIndex(({ id }) => id > sequence.id);
    this.#waiting.splice(at < 0 ? this.#waiting.length : at, 0, sequence);
    this.#totals.preemptions++;
  }

  // -------------------------------------------------------------- steps

  /** Decoding sequences first (one token each), then prompts in turn. */
  #nextShares(): Share[] {
    const decoding = this.#running.filter(({ work }) => work.pending.length === 1);
    const prefilling = this.#running.filter(({ work }) => work.pending.length > 1);
    const { maxBatchTokens, vocabSize } = this.#options;
    let room = maxBatchTokens;
    let logitRoom = Math.max(1, Math.floor(MAX_LOGITS / vocabSize));
    const promptRoom = this.#pace.tokens(decoding.length) - decoding.length;
    const planned: Share[] = [];
    for (const sequence of [...decoding, ...prefilling]) {
      if (sequence === prefilling[0]) room = Math.min(room, promptRoom);
      const { count, logitRows } = shareOf(sequence, room, logitRoom);
      if (count === 0) break;
      const ids = sequence.work.pending.slice(0, count);
      planned.push({ sequence, ids, drafted: 0, accepted: 0 });
      room -= count;
      logitRoom -= logitRows;
    }
    const shares = this.#withMemory(planned);
    if (this.#isSmallDecode(shares)) this.#addDrafts(shares, Math.min(room, logitRoom));
    this.#rotate(shares);
    return shares;
  }

  /** Who had no room this time comes first the next time. */
  #rotate(shares: readonly Share[]): void {
    const served = new Set(shares.map(({ sequence }) => sequence));
    this.#running = [
      ...this.#running.filter((sequence) => !served.has(sequence)),
      ...served,
    ];
  }

  /** Whether drafts may pay: all sequences decode, and they are few. */
  #isSmallDecode(shares: readonly Share[]): boolean {
    return shares.length === this.#running.length && shares.length <= MOST_DRAFTING_SEQUENCES &&
      shares.every(({ sequence }) => sequence.work.pending.length === 1);
  }

  /** @param room Tokens and their logits that the step still has room for. */
  #addDrafts(shares: readonly Share[], room: number): void {
    const most = Math.min(room, MOST_STEP_TOKENS - shares.length);
    const drafts = shares.map(({ sequence: { work, computed } }) =>
      // The last token of all is drawn from logits and never run.
      work.drafter?.draft(Math.min(most, work.maxTokens - computed.length - 2)) ?? null
    );
    if (drafts.every((draft) => draft === null)) return;
    this.#planner.plan(drafts, shares.length + most).forEach((count, i) => {
      const { sequence: { memory, computed }, ids } = shares[i];
      // Nobody gives its memory for guesses.
      if (count === 0 || !memory.reserve(computed.length + ids.length + count)) return;
      ids.push(...drafts[i]!.ids.slice(0, count));
      shares[i].drafted = count;
    });
  }

  #stepOf(shares: readonly Share[]): Step {
    const built = batchOf(shares);
    const isDecode = this.#isSmallDecode(shares);
    const startedMs = performance.now();
    const logits = this.#options.executor.step(built.batch);
    return { ...built, shares, isDecode, startedMs, ms: 0, logits };
  }

  /** The step has ended. */
  #arrive(step: Step, logits: Float32Array): void {
    step.ms = performance.now() - step.startedMs;
    this.#clock.restart();
    this.#account(step);
    for (const { sequence, ids, drafted } of step.shares) {
      sequence.computed.push(...sequence.work.pending.splice(0, ids.length - drafted));
    }
    const { vocabSize } = this.#options;
    step.wanted.forEach((row, l) =>
      row.logits = logits.subarray(l * vocabSize, (l + 1) * vocabSize)
    );
    this.#acceptHidden(step.hidden);
  }

  #account({ shares, batch, ms }: Step): void {
    const isDecoding = ({ sequence }: Share) => sequence.work.pending.length === 1;
    this.#totals.steps++;
    this.#totals.stepMs += ms;
    for (const share of shares) {
      if (isDecoding(share)) this.#totals.decodeTokens++;
      else this.#totals.prefillTokens += share.ids.length;
    }
    this.#pace.record(batch.ids.length, ms);
  }

  /** All logits have been handed out. */
  #settle({ shares, batch, isDecode, ms }: Step): void {
    for (const { sequence: { work, memory, computed } } of shares) {
      // A sequence that failed has no memory any more.
      if (work.cachePrompt !== false && memory.blocks.length > 0) memory.publish(computed);
    }
    const accepted = shares.reduce((sum, share) => sum + share.accepted, 0);
    this.#totals.decodeTokens += accepted;
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

  #acceptHidden(hidden: readonly HiddenRow[]): void {
    if (hidden.length === 0) return;
    const states = this.#options.executor.hiddenStates();
    const hiddenSize = states.length / hidden.length;
    hidden.forEach(({ sequence: { work }, position }, l) => {
      if (!work.active) return;
      work.acceptHidden!(position, states.subarray(l * hiddenSize, (l + 1) * hiddenSize));
    });
  }

  #accept(row: Wanted): void {
    const { sequence } = row.share;
    if (!sequence.work.active || row.position >= sequence.computed.length) return;
    try {
      this.#acceptRow(row);
    } catch (error) {
      this.#fail(sequence, error);
    }
  }

  /**
   * A drafted token counts once the sequence itself has asked for it: then its keys and values are in
   * the cache already, and its logits are those of the sequence. The rows after a wrong one are
   * skipped; what they left in the cache is overwritten by the right tokens before anything reads it.
   */
  #acceptRow({ share, position, candidates, next, logits }: Wanted): void {
    const { work, computed } = share.sequence;
    if (work.accept(position, logits, candidates) === "again") {
      work.pending.unshift(computed.pop()!);
      return;
    }
    const isLast = position === computed.length - 1;
    if (!work.active || !isLast || next === undefined || work.pending[0] !== next) return;
    computed.push(work.pending.shift()!);
    share.accepted++;
  }
}

function slotOf({ id, work, promptTokens, computed, cachedTokens }: Sequence): SlotStatus {
  const tokens = computed.length + work.pending.length;
  return {
    id,
    label: work.label ?? null,
    state: work.pending.length > 1 ? "prefill" : "decode",
    promptTokens,
    cachedTokens,
    computedTokens: computed.length,
    completionTokens: tokens - promptTokens,
  };
}

/** As many of a sequence's pending tokens as there is room for, and for their logits. */
function shareOf({ work, computed }: Sequence, room: number, logitRoom: number) {
  const most = Math.min(room, work.pending.length);
  let logitRows = 0;
  for (let count = 0; count < most; count++) {
    if (work.candidatesAt(computed.length + count) === null) continue;
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
  /** (vocabSize,) Empty until the step has ended. */
  logits: Float32Array;
}

/** A token whose hidden state is wanted. */
interface HiddenRow {
  sequence: Sequence;
  position: number;
}

interface StepBatch {
  batch: Batch;
  wanted: Wanted[];
  hidden: HiddenRow[];
}

/** A step that is under way. */
interface Step extends StepBatch {
  shares: readonly Share[];
  isDecode: boolean;
  startedMs: number;
  ms: number;
  logits: Promise<Float32Array>;
}

const NO_LOGITS = new Float32Array();

function batchOf(shares: readonly Share[]): StepBatch {
  const tableStride = Math.max(...shares.map(({ sequence }) => sequence.memory.blocks.length));
  const tables = new Int32Array(shares.length * tableStride);
  const ids: number[] = [];
  const positions: number[] = [];
  const tablesOf: number[] = [];
  const logitRows: number[] = [];
  const hiddenRows: number[] = [];
  const wanted: Wanted[] = [];
  const hidden: HiddenRow[] = [];
  shares.forEach((share, row) => {
    const { sequence, ids: own } = share;
    tables.set(sequence.memory.blocks, row * tableStride);
    own.forEach((id, i) => {
      const position = sequence.computed.length + i;
      const candidates = sequence.work.candidatesAt(position);
      if (candidates !== null) {
        logitRows.push(ids.length);
        wanted.push({ share, position, candidates, next: own[i + 1], logits: NO_LOGITS });
      } else if (sequence.work.wantsHiddenAt?.(position)) {
        hiddenRows.push(ids.length);
        hidden.push({ sequence, position });
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
    hiddenRows: Int32Array.from(hiddenRows),
    logitCandidates: Int32Array.from(wanted, ({ candidates }) => candidates),
    tables,
    tableStride,
  };
  return { batch, wanted, hidden };
}
