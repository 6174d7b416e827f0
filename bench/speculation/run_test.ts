import assert from "node:assert/strict";
import { MOST_STEP_TOKENS } from "../../runtime/speculation.ts";
import { measureSpeculation } from "./run.ts";

Deno.test("speculation benchmark: runs small, and only repeating answers are drafted", async () => {
  const samples = ["edit", "new"];
  const report = await measureSpeculation({ samples, threads: 1, repeat: 1, mostTokens: 40 });
  const [edit, other] = report.samples;
  assert.deepEqual([edit.sample, other.sample], samples);
  assert.deepEqual([edit.tokens, other.tokens], [40, 40]);
  assert.ok(edit.draftTokens >= edit.acceptedTokens && edit.acceptedTokens >= other.acceptedTokens);
  assert.ok(report.samples.every(({ ratio, leastRatio }) => ratio >= leastRatio && leastRatio > 0));
  assert.deepEqual(report.steps.map(({ tokens }) => tokens), [1, 2, 4, 8, MOST_STEP_TOKENS]);
  await assert.rejects(
    measureSpeculation({ samples: ["poem"], repeat: 1 }),
    /sample "poem": give one of edit, summary, new/,
  );
});
