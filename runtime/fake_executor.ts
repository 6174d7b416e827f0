/**
 * An executor for tests that is quick and merciless: it keeps token ids where keys and values would
 * be, and every logit depends on all of them, so that a token that was left in the cache, run at a
 * wrong place or not run at all changes what comes out. Its texts repeat themselves.
 */
import assert from "node:assert/strict";
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import type { Batch } from "../codegen/step/batch.ts";
import type { Executor } from "./executor.ts";
import type { GenerationContext } from "./generation.ts";
import { Scheduler } from "./scheduler.ts";
import type { HeadKind, Tokenizer } from "./types.ts";

export const TOY_VOCAB_SIZE = 60;
/** How much a logit hangs on the whole prefix rather than on the last two tokens. */
const PREFIX_WEIGHT = 0.1;

export interface ToyOptions {
  head?: HeadKind;
  kvBlocks?: number;
  maxBatchTokens?: number;
  maxSequences?: number;
  eosTokenIds?: readonly number[];
}

interface Cached {
  id: number;
  /** Hash of the ids up to here, as a key depends on all tokens before it. */
  prefix: number;
}

export class ToyExecutor implements Executor {
  readonly kernels = "toy";
  readonly threads = 1;
  readonly batches: Batch[] = [];
  readonly #cache = new Map<number, Cached>();

  constructor(readonly head: HeadKind) {}

  async step(batch: Batch): Promise<Float32Array> {
    await Promise.resolve();
    this.batches.push(batch);
    const rows = new Map(Array.from(batch.logitRows, (token, row) => [token, row]));
    const logits = new Float32Array(rows.size * TOY_VOCAB_SIZE);
    batch.ids.forEach((id, t) => {
      const before = this.#before(batch, t);
      const prefix = mix(before.at(-1)?.prefix ?? 17, id);
      this.#cache.set(slotOf(batch, t, batch.positions[t]), { id, prefix });
      const row = rows.get(t);
      if (row === undefined) return;
      const values = logitsOf(before.at(-1)?.id ?? 0, id, prefix);
      const kept = this.head === "two-stage" ? largest(values, batch.logitCandidates[row]) : values;
      logits.set(kept, row * TOY_VOCAB_SIZE);
    });
    return logits;
  }

  /** The id itself: what was asked for can be told from what was not. */
  hiddenStates(): Float32Array {
    const { ids, hiddenRows = new Int32Array() } = this.batches.at(-1)!;
    return Float32Array.from(hiddenRows, (t) => ids[t]);
  }

  /** What the cache has before a token: each entry must go on from the one before it. */
  #before(batch: Batch, t: number): Cached[] {
    const before: Cached[] = [];
    for (let position = 0; position < batch.positions[t]; position++) {
      const entry = this.#cache.get(slotOf(batch, t, position))!;
      assert.equal(entry.prefix, mix(before.at(-1)?.prefix ?? 17, entry.id), "a stale cache entry");
      before.push(entry);
    }
    return before;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

function slotOf(batch: Batch, t: number, position: number): number {
  const at = batch.tablesOf[t] * batch.tableStride + Math.floor(position / KV_BLOCK_POSITIONS);
  assert.ok(at < (batch.tablesOf[t] + 1) * batch.tableStride, "a position without a block");
  return batch.tables[at] * KV_BLOCK_POSITIONS + position % KV_BLOCK_POSITIONS;
}

function mix(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ Math.imul(value + 1, 0x9e3779b1), 0x85ebca77);
  return (mixed ^ (mixed >>> 13)) | 0;
}

/** In [0, 1). */
function unit(hash: number): number {
  return (mix(hash, 5) >>> 0) / 2 ** 32;
}

/** Some are equal, so that ties count. */
function logitsOf(previous: number, id: number, prefix: number): Float32Array {
  return Float32Array.from({ length: TOY_VOCAB_SIZE }, (_, other) => {
    const usual = unit(mix(mix(previous % 2, id), other));
    return Math.round(12 * (usual ** 3 + PREFIX_WEIGHT * unit(mix(prefix, other)))) / 2 - 6;
  });
}

/** What a two-stage head may leave out: a tenth of what is below the `count` largest stays. */
function largest(values: Float32Array, count: number): Float32Array {
  if (count === 0) return values;
  const least = values.toSorted().at(-Math.min(count, values.length))!;
  return values.map((value, id) =>
    value >= least || unit(mix(id, Math.round(value * 8))) < 0.1 ? value : -Infinity
  );
}

/** Token 0 is "0", 17 "A", 49 "a". */
const FIRST_CHARACTER = "0".charCodeAt(0);
const CHARACTERS: Tokenizer = {
  vocabSize: TOY_VOCAB_SIZE,
  encode: (text) => [...text].map((letter) => letter.charCodeAt(0) - FIRST_CHARACTER),
  decode: (ids) => ids.map((id) => String.fromCharCode(FIRST_CHARACTER + id)).join(""),
  tokenText: (id) => String.fromCharCode(FIRST_CHARACTER + id),
  tokenId: (token) => token.charCodeAt(0) - FIRST_CHARACTER,
  isSpecial: () => false,
  tokenBytes: (id) => Uint8Array.of(FIRST_CHARACTER + id),
};

/** What `startGeneration` needs, and the executor behind it. */
export function toyContext(
  { head = "full", kvBlocks = 16, maxBatchTokens = 64, maxSequences, eosTokenIds = [] }:
    ToyOptions = {},
): GenerationContext & { executor: ToyExecutor } {
  const executor = new ToyExecutor(head);
  const vocabSize = TOY_VOCAB_SIZE;
  return {
    executor,
    scheduler: new Scheduler({ executor, vocabSize, kvBlocks, maxBatchTokens, maxSequences }),
    tokenizer: CHARACTERS,
    vocabSize,
    contextSize: kvBlocks * KV_BLOCK_POSITIONS,
    eosTokenIds,
    head,
    compileMs: 0,
    loadMs: 0,
  };
}
