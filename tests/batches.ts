/** Batches for executors that are called without a scheduler. */
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";
import type { Batch } from "../codegen/step/batch.ts";

/** One sequence's tokens from a position on, with the logits of all of them. */
export function prefillBatch(
  ids: readonly number[],
  { from = 0, blocks }: { from?: number; blocks?: readonly number[] } = {},
): Batch {
  const count = Math.ceil((from + ids.length) / KV_BLOCK_POSITIONS);
  const table = blocks ?? Array.from({ length: count }, (_, i) => i);
  return {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(ids, (_, i) => from + i),
    tablesOf: new Int32Array(ids.length),
    logitRows: Int32Array.from(ids, (_, i) => i),
    logitCandidates: new Int32Array(ids.length),
    tables: Int32Array.from(table),
    tableStride: table.length,
  };
}
