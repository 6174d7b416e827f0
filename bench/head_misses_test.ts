import assert from "node:assert/strict";
import { countMisses, isMiss, totalOf } from "./head_misses.ts";

const STATES = 4000;

Deno.test("head misses: none in some thousand hidden states, and few rows are scored", async () => {
  const reports = await countMisses({ states: STATES, mostGolden: 3 });
  const { states, misses } = totalOf(reports);
  assert.ok(states >= STATES);
  assert.equal(misses, 0, JSON.stringify(reports));
  const [{ model, vocabSize, counts: [one, forty] }] = reports;
  assert.match(model, /^story model/);
  assert.ok(
    one.rescoredPerState >= 1 && one.rescoredPerState < vocabSize / 10,
    JSON.stringify(reports),
  );
  assert.ok(
    forty.rescoredPerState >= 40 && forty.rescoredPerState < vocabSize / 2,
    JSON.stringify(reports),
  );
});

Deno.test("head misses: a head without margins is caught", async () => {
  const edit = (text: string) => {
    const edited = text.replace(
      /(fn marginOf\(candidates: usize\) f32 \{\s*return if \(candidates == 1\)) \S+ else [^;]+;/,
      "$1 0 else 0;",
    );
    assert.notEqual(edited, text);
    return edited;
  };
  const reports = await countMisses({ states: STATES, mostGolden: 0, edit });
  const [story] = reports;
  for (const { candidates, misses } of story.counts) assert.ok(misses > 0, `${candidates}`);
  const adversarial = reports.filter(({ model }) => model.startsWith("adversarial"));
  assert.ok(totalOf(adversarial).misses > 0, JSON.stringify(adversarial));
});

Deno.test("head misses: a row is missed if a large logit is left out, tied or wrong", () => {
  const full = Float32Array.of(1, 5, 4, 4, 2);
  const rows: [string, number[], number, boolean][] = [
    ["all", [1, 5, 4, 4, 2], 3, false],
    ["the least are left out", [-Infinity, 5, 4, 4, -Infinity], 3, false],
    ["the largest is left out", [1, -Infinity, 4, 4, 2], 1, true],
    ["one of those that tie for the second place", [-Infinity, 5, 4, -Infinity, 2], 2, true],
    ["the same when one is enough", [-Infinity, 5, -Infinity, -Infinity, -Infinity], 1, false],
    ["a small one is wrong", [1.5, 5, 4, 4, 2], 1, true],
    ["a bound stayed where its logit belongs", [1, 5.5, 4, 4, 2], 1, true],
    ["not a number", [NaN, 5, 4, 4, 2], 1, true],
  ];
  for (const [what, quick, candidates, expected] of rows) {
    assert.equal(isMiss(full, Float32Array.from(quick), candidates), expected, what);
  }
});
