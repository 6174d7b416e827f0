import assert from "node:assert/strict";
import type { Batch } from "../codegen/step/batch.ts";
import type { Executor } from "./executor.ts";
import { KvBlocks } from "./kv_cache.ts";
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

Deno.test("KV blocks: all or nothing, low numbers first, all come back", () => {
  const blocks = new KvBlocks(3);
  const taken = blocks.take(2)!;
  assert.deepEqual([...taken], [0, 1]);
  assert.equal(blocks.take(2), null);
  assert.equal(blocks.freeCount, 1);
  blocks.give(taken);
  assert.deepEqual([...blocks.take(3)!].sort(), [0, 1, 2]);
  assert.deepEqual([0, 1, 16, 17].map((positions) => KvBlocks.needed(positions)), [0, 1, 1, 2]);
});
