import assert from "node:assert/strict";
import { markdownOf, textOf } from "./report.ts";
import { runServerBench } from "./run.ts";

Deno.test("server benchmark: runs small, and reports what was asked for", async () => {
  const report = await runServerBench({
    clients: [1, 2, 16],
    threads: 1,
    maxTokens: 8,
    promptWords: [5, 30],
    prefillWords: 30,
    rounds: 2,
  });
  assert.deepEqual(report.loads.map(({ clients }) => clients), [1, 2, 16]);
  for (const load of report.loads) {
    const { clients, requests, errors, completionTokens, promptTokens, cachedTokens } = load;
    assert.deepEqual(errors, []);
    assert.equal(requests, 2 * clients);
    assert.equal(completionTokens, 8 * requests);
    assert.ok(promptTokens > 50 * requests && cachedTokens < promptTokens);
    assert.ok(load.tokensPerSecond > 0 && load.timeToFirstTokenMs.p50 > 0);
    assert.ok(load.interTokenMs.p50 <= load.interTokenMs.p99);
  }
  // One client's decode is never without a common time.
  assert.ok(report.loads[0].decodeTokensPerSecond > 0);
  assert.ok(report.prefillTokensPerSecond > 0 && report.loads[0].eventLoopLagMs !== null);
  const table = markdownOf(report).split("\n");
  assert.match(table[0], /^\| clients \| decode tokens\/s \|/);
  assert.equal(table[2].split("|").length, table[0].split("|").length);
  assert.match(textOf(report), /2 clients decode \d+\.\d\d x as much as 1/);
});
