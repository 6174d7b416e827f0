import assert from "node:assert/strict";
import { encodeBatch } from "./batch.ts";

Deno.test("encodeBatch: counts, then ids, positions, tablesOf, logitRows, hiddenRows, candidates, tables", () => {
  const words = encodeBatch({
    ids: Int32Array.of(5, 6, 7),
    positions: Int32Array.of(0, 1, 9),
    tablesOf: Int32Array.of(0, 0, 1),
    logitRows: Int32Array.of(1, 2),
    hiddenRows: Int32Array.of(0),
    logitCandidates: Int32Array.of(0, 40),
    tables: Int32Array.of(3, 4, 8, 2),
    tableStride: 2,
  });
  assert.deepEqual([...words], [3, 2, 2, 3, 5, 6, 7, 0, 1, 9, 0, 0, 1, 1, 2, 0, 0, 40, 3, 4, 8, 2]);
});
