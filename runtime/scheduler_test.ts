import assert from "node:assert/strict";
import type { Batch } from "../codegen/step/batch.ts";
import type { Executor } from "./executor.ts";
import { Scheduler, type SequenceWork } from "./scheduler.ts";

const VOCAB_SIZE = 4;

/** Remembers its batches; the logits of a token are its id in every place. */
class FakeExecutor implements Executor {
  readonly kernels = "fake";
  readonly threads = 1;
  readonly head = "full";
  readonly batches: Batch[] = [];
  fail: Error | null = null;

  step(batch: Batch): Promise<Float32Array> {
    this.batches.push(batch);
    if (this.fail !== null) return Promise.reject(this.fail);
    const rows = Array.from(batch.logitRows, (row) => new Array(VOCAB_SIZE).fill(batch.ids[row]));
    return Promise.resolve(Float32Array.from(rows.flat()));
  }

  hiddenStates(): Float32Array {
    return new Float32Array();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** Runs a prompt, then `answers` tokens that each are one more than the last. */
class FakeWork implements SequenceWork {
  readonly pending: number[];
  readonly maxTokens: number;
  readonly seen: number[] = [];
  readonly finished: Promise<unknown>;
  #settle!: (error: unknown) => void;
  #left: number;
  #length: number;

  constructor(prompt: readonly number[], answers: number) {
    this.pending = [...prompt];
    this.#length = prompt.length;
    this.maxTokens = prompt.length + answers;
    this.#left = answers;
    this.finished = new Promise((resolve) => this.#settle = resolve);
  }

  get active(): boolean {
    return this.#left > 0;
  }

  stop(): void {
    this.#left = 0;
  }

  candidatesAt(position: number): number | null {
    return position >= this.#length - 1 ? 0 : null;
  }

  accept(position: number, logits: Float32Array): void {
    assert.equal(position, this.#length - 1);
    this.seen.push(logits[0]);
    this.pending.push(logits[0] + 1);
    this.#length++;
    this.#left--;
  }

  finish(error?: unknown): void {
    this.#settle(error);
  }
}

function schedulerOf(options: { kvBlocks?: number; maxBatchTokens?: number } = {}) {
  const executor = new FakeExecutor();
  const scheduler = new Scheduler({
    executor,
    vocabSize: VOCAB_SIZE,
    kvBlocks: options.kvBlocks ?? 8,
    maxBatchTokens: options.maxBatchTokens ?? 64,
  });
  return { executor, scheduler };
}

Deno.test("scheduler: a prompt goes in chunks, then one token a step", async () => {
  const { executor, scheduler } = schedulerOf({ maxBatchTokens: 4 });
  const work = new FakeWork([10, 11, 12, 13, 14, 15], 3);
  scheduler.add(work);
  assert.equal(await work.finished, undefined);
  assert.deepEqual(executor.batches.map(({ ids }) => [...ids]), [
    [10, 11, 12, 13],
    [14, 15],
    [16],
    [17],
  ]);
  assert.deepEqual(executor.batches.map(({ positions }) => positions[0]), [0, 4, 6, 7]);
  assert.deepEqual(work.seen, [15, 16, 17]);
});

Deno.test("scheduler: sequences that start together share steps and not blocks", async () => {
  const { executor, scheduler } = schedulerOf();
  const works = [new FakeWork([1, 2], 2), new FakeWork([5], 2)];
  works.forEach((work) => scheduler.add(work));
  await Promise.all(works.map((work) => work.finished));
  // The one that decodes comes first.
  assert.deepEqual([...executor.batches[0].ids], [5, 1, 2]);
  assert.deepEqual([...executor.batches[0].tablesOf], [0, 1, 1]);
  const { tables } = executor.batches[0];
  assert.equal(new Set(tables).size, tables.length);
  assert.deepEqual(works.map((work) => work.seen), [[2, 3], [5, 6]]);
});

Deno.test("scheduler: a long prompt does not hold up a decoding sequence", async () => {
  const { executor, scheduler } = schedulerOf({ maxBatchTokens: 3 });
  const long = new FakeWork([20, 21, 22, 23, 24, 25, 26], 1);
  const short = new FakeWork([1], 4);
  scheduler.add(long);
  scheduler.add(short);
  await Promise.all([long.finished, short.finished]);
  const withShort = executor.batches.filter(({ ids }) => ids.some((id) => id < 20));
  assert.deepEqual(withShort, executor.batches.slice(0, 4), "short decodes in each of its steps");
});

Deno.test("scheduler: who finds no memory waits for it", async () => {
  const { executor, scheduler } = schedulerOf({ kvBlocks: 2 });
  const first = new FakeWork(new Array(20).fill(1), 2);
  const second = new FakeWork([7], 2);
  scheduler.add(first);
  scheduler.add(second);
  await second.finished;
  assert.ok(executor.batches.every(({ tablesOf }) => tablesOf.every((row) => row === 0)));
  assert.deepEqual(second.seen, [7, 8]);
});

Deno.test("scheduler: what can never fit is refused at once", () => {
  const { scheduler } = schedulerOf({ kvBlocks: 2 });
  assert.throws(() => scheduler.add(new FakeWork(new Array(32).fill(1), 1)), {
    name: "RangeError",
    message: /33 tokens as the KV cache holds 32/,
  });
});

Deno.test("scheduler: a sequence that stops gives its blocks back", async () => {
  const { scheduler } = schedulerOf({ kvBlocks: 1 });
  const abandoned = new FakeWork([1], 10);
  scheduler.add(abandoned);
  abandoned.stop();
  await abandoned.finished;
  const next = new FakeWork([2], 1);
  scheduler.add(next);
  assert.equal(await next.finished, undefined);
  assert.deepEqual(abandoned.seen, []);
});

Deno.test("scheduler: a failed step fails its sequences, and later ones run", async () => {
  const { executor, scheduler } = schedulerOf();
  executor.fail = new Error("no");
  const failing = new FakeWork([1], 1);
  scheduler.add(failing);
  assert.equal(await failing.finished, executor.fail);
  executor.fail = null;
  const next = new FakeWork([1], 1);
  scheduler.add(next);
  assert.equal(await next.finished, undefined);
});

Deno.test("scheduler: closing ends what runs, and refuses what comes", async () => {
  const { scheduler } = schedulerOf();
  const work = new FakeWork([1], 100);
  scheduler.add(work);
  const closed = scheduler.close();
  assert.match(String(await work.finished), /The model was closed/);
  await closed;
  assert.throws(() => scheduler.add(new FakeWork([1], 1)), /the model is closed/);
});

/** Runs as long as it is let, and wants logits of its last token alone. */
const longWork = (prompt: readonly number[], answers = 100) => new FakeWork(prompt, answers);

Deno.test("scheduler: a beginning that is known is not computed again", async () => {
  const { executor, scheduler } = schedulerOf();
  const prompt = Array.from({ length: 40 }, (_, i) => i);
  const first = new FakeWork(prompt, 1);
  scheduler.add(first);
  await first.finished;
  const second = new FakeWork([...prompt.slice(0, 36), 99], 1);
  scheduler.add(second);
  await second.finished;
  assert.deepEqual([...executor.batches.at(-1)!.ids], [...prompt.slice(32, 36), 99]);
  assert.deepEqual(second.seen, [99]);
  assert.equal(scheduler.status.totals.cachedTokens, 32);
  // All of a prompt may be known: its last token is run for its logits.
  const third = new FakeWork(prompt.slice(0, 32), 1);
  scheduler.add(third);
  await third.finished;
  assert.deepEqual([...executor.batches.at(-1)!.ids], prompt.slice(16, 32));
});

Deno.test("scheduler: equal prompts that come together are computed once", async () => {
  const { executor, scheduler } = schedulerOf({ kvBlocks: 20 });
  const prompt = Array.from({ length: 50 }, (_, i) => i);
  const works = Array.from({ length: 4 }, () => new FakeWork(prompt, 2));
  works.forEach((work) => scheduler.add(work));
  await Promise.all(works.map((work) => work.finished));
  const tokens = executor.batches.reduce((sum, { ids }) => sum + ids.length, 0);
  assert.equal(tokens, 50 + 3 * 2 + 4);
  for (const work of works) assert.deepEqual(work.seen, [49, 50]);
});

Deno.test("scheduler: where memory runs out the youngest waits, and nothing is lost", async () => {
  const { scheduler } = schedulerOf({ kvBlocks: 4 });
  const works = [1, 2, 3].map((first) => new FakeWork([1000 * first], 50));
  works.forEach((work) => scheduler.add(work));
  await Promise.all(works.map((work) => work.finished));
  works.forEach(({ seen }, i) =>
    assert.deepEqual(seen, Array.from({ length: 50 }, (_, at) => 1000 * (i + 1) + at))
  );
  assert.ok(scheduler.status.totals.preemptions > 0);
  assert.equal(scheduler.status.kvBlocks.used, 0);
});

Deno.test("scheduler: more than may wait are refused, and the status counts", async () => {
  const executor = new FakeExecutor();
  const limits = { maxSequences: 1, maxWaiting: 2 };
  const scheduler = new Scheduler({
    executor,
    vocabSize: VOCAB_SIZE,
    kvBlocks: 8,
    maxBatchTokens: 8,
    ...limits,
  });
  const works = [1, 2, 3].map((id) => longWork([id]));
  works.forEach((work) => scheduler.add(work));
  assert.throws(() => scheduler.add(longWork([4])), {
    name: "QueueFullError",
    message: /3 wait already/,
  });
  await Promise.resolve();
  await Promise.resolve();
  const { slots, waiting } = scheduler.status;
  assert.equal(slots.length, 1);
  assert.equal(waiting, 2);
  // Who gives up in the queue leaves it at the next step, and makes room.
  works[2].stop();
  assert.equal(await works[2].finished, undefined);
  scheduler.add(longWork([5], 1));
  works.forEach((work) => work.stop());
  await scheduler.close();
});

Deno.test("scheduler: one sequence's failure is not another's", async () => {
  const { scheduler } = schedulerOf();
  const failing = new FakeWork([1], 5);
  failing.accept = () => {
    throw new RangeError("every token is banned");
  };
  const other = new FakeWork([2], 5);
  scheduler.add(failing);
  scheduler.add(other);
  assert.match(String(await failing.finished), /every token is banned/);
  assert.equal(await other.finished, undefined);
  assert.equal(scheduler.status.kvBlocks.used, 0);
});

Deno.test("scheduler: a token whose logits were too few is run again", async () => {
  const { executor, scheduler } = schedulerOf();
  const work = new FakeWork([5], 2);
  const accept = work.accept.bind(work);
  let refused = 0;
  Object.assign(work, {
    accept: (position: number, logits: Float32Array) =>
      refused++ === 0 ? "again" : accept(position, logits),
  });
  scheduler.add(work);
  await work.finished;
  assert.deepEqual(executor.batches.map(({ ids, positions }) => [ids[0], positions[0]]), [
    [5, 0],
    [5, 0],
    [6, 1],
  ]);
});

Deno.test("scheduler: a prompt of many chunks leaves turns to a short one", async () => {
  const { executor, scheduler } = schedulerOf({ maxBatchTokens: 4, kvBlocks: 20 });
  const long = new FakeWork(Array.from({ length: 100 }, (_, i) => 100 + i), 1);
  scheduler.add(long);
  await Promise.resolve();
  const short = new FakeWork([1, 2, 3], 1);
  scheduler.add(short);
  await short.finished;
  assert.ok(executor.batches.length <= 4, `${executor.batches.length} steps for a prompt of 3`);
  await long.finished;
});
