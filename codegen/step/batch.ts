import { BATCH_HEADER } from "./template.ts";

/**
 * One step's work: any mix of sequences, each with a prefill chunk or a single decode token.
 * All lists but `logitRows` and `tables` have one element a token.
 */
export interface Batch {
  ids: Int32Array;
  /** Position of each token in its sequence, from 0. */
  positions: Int32Array;
  /** Which row of `tables` belongs to each token's sequence. */
  tablesOf: Int32Array;
  /** Tokens whose logits are wanted. */
  logitRows: Int32Array;
  /** (sequences, tableStride) KV block numbers: block i of a sequence holds positions 16i .. 16i + 15. */
  tables: Int32Array;
  tableStride: number;
}

/** The batch as the native step reads it: counts, then the lists. */
export function encodeBatch(batch: Batch): Int32Array<ArrayBuffer> {
  const tokens = batch.ids.length;
  const words = new Int32Array(
    BATCH_HEADER + 3 * tokens + batch.logitRows.length + batch.tables.length,
  );
  words.set([tokens, batch.tableStride, batch.logitRows.length]);
  let at = BATCH_HEADER;
  for (const list of [batch.ids, batch.positions, batch.tablesOf, batch.logitRows, batch.tables]) {
    words.set(list, at);
    at += list.length;
  }
  return words;
}
