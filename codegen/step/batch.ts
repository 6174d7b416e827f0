/** Words before the lists of a batch: tokens, block table stride, logit rows. */
export const BATCH_HEADER = 4;

/**
 * One step's work: any mix of sequences, each with a prefill chunk or a single decode token.
 * `ids`, `positions` and `tablesOf` have one element a token.
 */
export interface Batch {
  /** Token ids. */
  ids: Int32Array;
  /** Position of each token in its sequence, from 0. */
  positions: Int32Array;
  /** Which row of `tables` belongs to each token's sequence. */
  tablesOf: Int32Array;
  /** Tokens whose logits are wanted. */
  logitRows: Int32Array;
  /**
   * For each of `logitRows` how much of it must be exact: 0 is all of it, by the full head. c >= 1 are
   * the c largest logits at least, by the two-stage head where the model has one: then the others are
   * exact or -Infinity. See `codegen/head/template.ts`.
   */
  logitCandidates: Int32Array;
  /** Tokens whose hidden states after the final norm are wanted; none of them is in `logitRows`. */
  hiddenRows?: Int32Array;
  /** (sequences, tableStride) KV block numbers: block i of a sequence holds positions 16i .. 16i + 15. */
  tables: Int32Array;
  /** Blocks that a row of `tables` has room for. */
  tableStride: number;
}

/** The batch as the native step reads it: counts, then the lists. */
export function encodeBatch(batch: Batch): Int32Array<ArrayBuffer> {
  const tokens = batch.ids.length;
  const { ids, positions, tablesOf, logitRows, logitCandidates, tables } = batch;
  const hiddenRows = batch.hiddenRows ?? new Int32Array();
  const lists = [ids, positions, tablesOf, logitRows, hiddenRows, logitCandidates, tables];
  const rows = logitRows.length + hiddenRows.length;
  const words = new Int32Array(lists.reduce((sum, { length }) => sum + length, BATCH_HEADER));
  words.set([tokens, batch.tableStride, logitRows.length, rows]);
  let at = BATCH_HEADER;
  for (const list of lists) {
    words.set(list, at);
    at += list.length;
  }
  return words;
}
