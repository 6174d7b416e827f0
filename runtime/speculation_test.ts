import assert from "node:assert/strict";
import fc from "fast-check";
import { randomOf } from "../codegen/random.ts";
import { LEAST_LENGTH, MOST_LENGTH, NgramIndex } from "./ngram_index.ts";
import {
  checkSpeculate,
  type Draft,
  Drafter,
  DraftPlanner,
  MOST_DRAFT_TOKENS,
  MOST_STEP_TOKENS,
  StepCosts,
} from "./speculation.ts";

/** The obvious search: the longest earlier place, the latest among equals. */
function longestRepetition(tokens: readonly number[]) {
  let best: { next: number; length: number } | null = null;
  for (let next = tokens.length - 1; next > 0; next--) {
    let length = 0;
    while (
      length < Math.min(next, MOST_LENGTH) &&
      tokens[next - 1 - length] === tokens[tokens.length - 1 - length]
    ) length++;
    if (length >= LEAST_LENGTH && length > (best?.length ?? 0)) best = { next, length };
  }
  return best;
}

Deno.test("n-gram index: finds what a search of the whole sequence finds, however it grows", () => {
  const tokens = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 60 });
  fc.assert(
    fc.property(tokens, tokens, (first, more) => {
      const sequence = [...first];
      const index = new NgramIndex(sequence, first.length + more.length);
      assert.deepEqual(index.find(), longestRepetition(sequence));
      for (const token of more) {
        sequence.push(token);
        assert.deepEqual(index.find(), longestRepetition(sequence));
      }
    }),
    { numRuns: 500, seed: 5 },
  );
});

Deno.test("n-gram index: large ids and long sequences; beyond the window nothing is found", () => {
  const random = randomOf(3);
  const start = [128_255, 7, 128_000, 5, 99_999];
  const sequence = [...start];
  const index = new NgramIndex(sequence, 1 << 20);
  while (sequence.length < 60_000) sequence.push(1000 + Math.floor(random() * 2 ** 17));
  sequence.push(...start.slice(0, 3));
  assert.deepEqual(index.find(), { next: 3, length: 3 });
  while (sequence.length < 70_000) sequence.push(1000 + Math.floor(random() * 2 ** 17));
  sequence.push(...start.slice(0, 2));
  assert.notEqual(index.find()?.next, 2);
});

Deno.test("drafter: goes on as the text went on, past its end with the guesses themselves", () => {
  const history = [1, 2, 3, 4, 5, 1, 2];
  const drafter = new Drafter(history, 100, 6);
  assert.deepEqual(drafter.draft(9)?.ids, [3, 4, 5, 1, 2, 3]);
  assert.deepEqual(drafter.draft(2)?.ids, [3, 4]);
  assert.equal(drafter.draft(0), null);
  assert.equal(drafter.draft(-1), null);
  // One other token in a copy, as an edit makes it: on behind it. After two it is no copy.
  history.push(8);
  drafter.grown();
  assert.deepEqual(drafter.draft(3)?.ids, [4, 5, 1]);
  history.push(9);
  drafter.grown();
  assert.equal(drafter.draft(3), null);
});

Deno.test("drafter: chances follow what came true, and never rise along a draft", () => {
  const rising = new Drafter([1, 2, 1, 2], 100, "auto");
  const chancesOf = (drafter: Drafter) => drafter.draft(MOST_DRAFT_TOKENS)?.chances ?? [0];
  const first = chancesOf(rising);
  assert.ok(first.every((chance, i) => chance > 0 && chance < (first[i - 1] ?? 1)));
  const history = [1, 2, 1, 2];
  const good = new Drafter(history, 200, "auto");
  for (let i = 0; i < 50; i++) {
    history.push(1 + i % 2);
    good.grown();
  }
  assert.ok(chancesOf(good)[0] > 0.95);
  // Pairs that are known, each time followed by what never came before.
  const misled = [1, 2, 3];
  const bad = new Drafter(misled, 200, "auto");
  for (let i = 0; i < 60; i++) {
    for (const token of [1, 2, 100 + i]) {
      misled.push(token);
      bad.grown();
    }
  }
  misled.push(1, 2);
  bad.grown();
  assert.ok(chancesOf(bad)[0] < 0.1);
});

Deno.test("step costs: measured, between, beyond; old measurements are forgotten", () => {
  const costs = new StepCosts();
  assert.equal(costs.estimate(1), null);
  costs.record(2, 10);
  // 40 % of 5 ms for each token more.
  assert.equal(costs.estimate(3), 12);
  for (const ms of [18, 1000, 18]) costs.record(4, ms);
  assert.deepEqual([2, 3, 4, 6].map((tokens) => costs.estimate(tokens)), [10, 14, 18, 26]);
  costs.record(6, 12);
  assert.deepEqual([5, 6, 16].map((tokens) => costs.estimate(tokens)), [15, 12, 12]);
  for (let i = 0; i < 600; i++) costs.record(1, 8);
  assert.deepEqual([1, 2].map((tokens) => costs.estimate(tokens)), [8, 8 * 1.4]);
});

const certain = (count: number): Draft => ({
  ids: new Array(count).fill(0),
  chances: new Array(count).fill(1),
  isFixed: false,
});

Deno.test("planner: nothing before a step was measured, fixed drafts always, never over the room", () => {
  const planner = new DraftPlanner();
  assert.deepEqual(planner.plan([certain(8)], 16), [0]);
  const fixed = { ...certain(8), isFixed: true };
  assert.deepEqual(planner.plan([fixed, null, fixed], 12), [8, 0, 1]);
  planner.settle({ sequences: 1, tokens: 1, gained: 1, head: "full", ms: 10 });
  assert.deepEqual(planner.plan([certain(8)], 1), [0]);
});

Deno.test("planner: times with one head say nothing of the other", () => {
  const planner = new DraftPlanner();
  const step = { sequences: 1, gained: 2 } as const;
  planner.settle({ ...step, tokens: 1, head: "full", ms: 40 });
  planner.settle({ ...step, tokens: 2, head: "full", ms: 41 });
  planner.settle({ ...step, tokens: 1, head: "two-stage", ms: 20 });
  assert.deepEqual(planner.plan([certain(1)], 16), [1], "not measured yet, so worth trying");
  planner.settle({ ...step, tokens: 2, head: "two-stage", ms: 40 });
  assert.deepEqual(planner.plan([certain(1)], 16), [0]);
  planner.settle({ ...step, tokens: 1, head: "full", ms: 40 });
  assert.deepEqual(planner.plan([certain(1)], 16), [1]);
});

Deno.test("planner: the likelier sequence gets the tokens that pay", () => {
  const planner = new DraftPlanner();
  for (const tokens of [2, 3, 4]) {
    planner.settle({ sequences: tokens, tokens, gained: tokens, head: "full", ms: 10 + tokens });
  }
  const likely: Draft = { ids: [1, 2], chances: [0.9, 0.8], isFixed: false };
  const unlikely: Draft = { ids: [3, 4], chances: [0.05, 0.01], isFixed: false };
  assert.deepEqual(planner.plan([unlikely, likely], 16), [0, 2]);
});

/** Milliseconds of a step by its tokens. */
type Curve = (tokens: number) => number;
const CURVES: Record<string, Curve> = {
  "memory-bound": (tokens) => 10 + 0.3 * (tokens - 1),
  // BitNet 2B4T's shape on one core: steps of 8 tokens take four times as long as one.
  "arithmetic soon": (tokens) => 10 + 4.6 * (tokens - 1),
  "no gain": (tokens) => 10 * tokens,
};

/** Time of decoding `text` after `prompt` over the time without drafts. */
function speedup(prompt: readonly number[], text: readonly number[], curve: Curve) {
  const planner = new DraftPlanner();
  planner.welcome(true);
  const history = [...prompt];
  const drafter = new Drafter(history, prompt.length + text.length, "auto");
  let ms = 0;
  for (let done = 0; done < text.length;) {
    const draft = drafter.draft(Math.min(MOST_DRAFT_TOKENS, text.length - done - 1));
    const [count] = draft === null ? [0] : planner.plan([draft], MOST_STEP_TOKENS);
    let accepted = 0;
    while (accepted < count && draft!.ids[accepted] === text[done + accepted]) accepted++;
    for (let i = 0; i <= accepted; i++) {
      history.push(text[done++]);
      drafter.grown();
    }
    const step = curve(1 + count);
    const plain = { sequences: 1, head: "full" } as const;
    planner.settle({ ...plain, tokens: 1 + count, gained: 1 + accepted, ms: step });
    ms += step;
  }
  return text.length * curve(1) / ms;
}

function randomTokens(count: number, vocabSize: number, seed: number): number[] {
  const random = randomOf(seed);
  return Array.from({ length: count }, () => Math.floor(random() * vocabSize));
}

/** A copy with every n-th token another one. */
function edited(tokens: readonly number[], n: number): number[] {
  return tokens.map((token, i) => i % n === n - 1 ? token + 50_000 : token);
}

/** Known pairs of tokens whose third is always new. */
function misleading(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i % 3 === 2 ? 1000 + i : i % 3);
}

/** Repeats and then doesn't, in turns. */
function treacherous(prompt: readonly number[], count: number): number[] {
  const parts = Array.from({ length: Math.ceil(count / 32) }, (_, i) => [
    ...prompt.slice(i * 16, i * 16 + 16),
    ...misleading(16).map((token) => token + i * 100_000),
  ]);
  return parts.flat().slice(0, count);
}

const PROMPT = randomTokens(512, 20_000, 1);
const TEXTS: Record<string, number[]> = {
  "new": randomTokens(256, 20_000, 2),
  "few words": randomTokens(256, 12, 3),
  "misleading": misleading(256),
  "treacherous": treacherous(PROMPT, 256),
  "short": misleading(48),
};

for (const [curveName, curve] of Object.entries(CURVES)) {
  for (const [textName, text] of Object.entries(TEXTS)) {
    Deno.test(`speculation: simulated, ${curveName}: ${textName} text loses at most 3 %`, () => {
      const factor = speedup(PROMPT, text, curve);
      assert.ok(factor >= 0.97, `${factor}`);
    });
  }
  Deno.test(`speculation: simulated, ${curveName}: an edited copy`, () => {
    const factor = speedup(PROMPT, edited(PROMPT.slice(0, 256), 24), curve);
    const least = { "memory-bound": 4, "arithmetic soon": 1.4, "no gain": 0.97 }[curveName]!;
    assert.ok(factor >= least, `${factor}`);
  });
}

Deno.test("speculation: what can't be is refused with the rule", () => {
  for (const bad of [0, 1.5, MOST_DRAFT_TOKENS + 1, NaN, "yes" as "auto"]) {
    assert.throws(() => checkSpeculate(bad), /auto, off or a whole number from 1 to 15/);
  }
  for (const good of [undefined, "auto", "off", 1, MOST_DRAFT_TOKENS] as const) {
    checkSpeculate(good);
  }
});
