import assert from "node:assert/strict";
import fc from "fast-check";
import { createSampler, expOfNegative, SAMPLER_RANGES } from "./sampler.ts";
import type { SamplerOptions } from "./types.ts";

interface Likely {
  id: number;
  score: number;
  probability: number;
}

/** The obvious sampler: all tokens with their probabilities, sorted, filtered and normalised. */
function distribution(
  logits: Float32Array,
  history: readonly number[],
  options: SamplerOptions,
): Map<number, number> {
  const scores = adjusted(logits, history, options);
  let tokens = scores.map((score, id) => ({ id, score, probability: 0 })).sort(byScore);
  if (options.topK) tokens = tokens.slice(0, options.topK);
  tokens = withProbabilities(tokens, options.temperature ?? 1);
  if (options.typicalP !== undefined && options.typicalP < 1) {
    tokens = mostTypical(tokens, options.typicalP);
  }
  if (options.topP !== undefined && options.topP < 1) {
    tokens = firstOfMass([...tokens].sort(byScore), options.topP);
  }
  if (options.minP) {
    const least = options.minP * Math.max(...tokens.map((token) => token.probability));
    tokens = normalised(tokens.filter((token) => token.probability >= least));
  }
  return new Map(tokens.map(({ id, probability }) => [id, probability]));
}

function adjusted(
  logits: Float32Array,
  history: readonly number[],
  options: SamplerOptions,
): number[] {
  const { repeatPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = options;
  const lastN = options.penaltyLastN ?? 64;
  const recent = lastN === -1 ? history : history.slice(Math.max(0, history.length - lastN));
  return [...logits].map((logit, id) => {
    const biased = logit + (options.logitBias?.get(id) ?? 0);
    const count = recent.filter((other) => other === id).length;
    if (count === 0) return biased;
    const repeated = biased > 0 ? biased / repeatPenalty : biased * repeatPenalty;
    return repeated - presencePenalty - count * frequencyPenalty;
  });
}

function byScore(a: Likely, b: Likely): number {
  return b.score - a.score || a.id - b.id;
}

function withProbabilities(tokens: Likely[], temperature: number): Likely[] {
  const highest = tokens[0].score;
  return normalised(tokens.map((token) => ({
    ...token,
    probability: Math.exp((token.score - highest) / temperature),
  })));
}

function normalised(tokens: Likely[]): Likely[] {
  const total = tokens.reduce((sum, token) => sum + token.probability, 0);
  return tokens.map((token) => ({ ...token, probability: token.probability / total }));
}

function firstOfMass(tokens: Likely[], p: number): Likely[] {
  let mass = 0;
  const count = tokens.findIndex((token) => (mass += token.probability) >= p);
  return normalised(tokens.slice(0, count < 0 ? tokens.length : count + 1));
}

function mostTypical(tokens: Likely[], p: number): Likely[] {
  const surprises = tokens.map(({ probability }) => -Math.log(probability));
  const entropy = tokens.reduce((sum, { probability }, i) => sum + probability * surprises[i], 0);
  const distance = new Map(tokens.map(({ id }, i) => [id, Math.abs(surprises[i] - entropy)]));
  const sorted = [...tokens].sort((a, b) =>
    distance.get(a.id)! - distance.get(b.id)! || a.id - b.id
  );
  return firstOfMass(sorted, p);
}

function counts(
  logits: Float32Array,
  history: readonly number[],
  options: SamplerOptions,
  draws: number,
) {
  const sampler = createSampler({ seed: 20, ...options }, logits.length);
  const result = new Map<number, number>();
  for (let i = 0; i < draws; i++) {
    const id = sampler.sample(logits, history);
    result.set(id, (result.get(id) ?? 0) + 1);
  }
  return result;
}

/** Logits whose neighbours differ enough that rounding never decides what a filter keeps. */
function spacedLogits(count: number, seed: number): Float32Array {
  const ranks = Array.from({ length: count }, (_, i) => i);
  ranks.sort((a, b) => Math.sin(a * 7.1 + seed) - Math.sin(b * 7.1 + seed));
  return Float32Array.from(ranks, (rank) => 3 - rank * 0.173 - (rank % 7) * 0.0131);
}

const CASES: { name: string; options: SamplerOptions }[] = [
  { name: "nothing set", options: {} },
  { name: "temperature", options: { temperature: 0.6 } },
  { name: "top-k", options: { topK: 5 } },
  { name: "top-k above the vocabulary", options: { topK: 500 } },
  { name: "top-p", options: { topP: 0.83 } },
  { name: "top-p 0", options: { topP: 0 } },
  { name: "min-p", options: { minP: 0.21 } },
  { name: "typical-p", options: { typicalP: 0.4 } },
  {
    name: "all filters",
    options: { temperature: 1.7, topK: 20, typicalP: 0.95, topP: 0.87, minP: 0.06 },
  },
  { name: "repeat penalty", options: { repeatPenalty: 1.6 } },
  {
    name: "presence and frequency over 3 tokens",
    options: { presencePenalty: 0.7, frequencyPenalty: 0.9, penaltyLastN: 3 },
  },
  { name: "penalties over all", options: { frequencyPenalty: 0.4, penaltyLastN: -1 } },
  { name: "penalties over none", options: { frequencyPenalty: 5, penaltyLastN: 0 } },
  { name: "bias", options: { logitBias: new Map([[2, 4], [5, -3], [7, -Infinity]]) } },
];

for (const { name, options } of CASES) {
  Deno.test(`sampler: ${name} draws from the reference's distribution`, () => {
    const logits = spacedLogits(31, 3);
    const history = [2, 2, 9, 30, 30, 30, 2];
    const expected = distribution(logits, history, options);
    const draws = 20_000;
    const drawn = counts(logits, history, options, draws);
    for (const id of drawn.keys()) assert.ok(expected.has(id), `token ${id} must be filtered out`);
    for (const [id, probability] of expected) {
      // Five standard deviations of a binomial count: one false alarm in 1.7 million comparisons.
      const margin = 5 * Math.sqrt(draws * probability * (1 - probability)) + 1;
      const count = drawn.get(id) ?? 0;
      assert.ok(
        Math.abs(count - draws * probability) <= margin,
        `token ${id}: ${count} times, expected ${draws * probability} +- ${margin}`,
      );
    }
  });
}

Deno.test("sampler: on any logits and options the drawn token is one that the reference keeps", () => {
  const optionArbitrary = fc.record({
    temperature: fc.constantFrom(0.3, 1, 2.5),
    topK: fc.integer({ min: 0, max: 40 }),
    topP: fc.constantFrom(0, 0.13, 0.5, 0.77, 1),
    minP: fc.constantFrom(0, 0.037, 0.31, 1),
    typicalP: fc.constantFrom(0.19, 0.61, 1),
    repeatPenalty: fc.constantFrom(1, 1.3),
    seed: fc.integer({ min: 0, max: 1e9 }),
  }, { requiredKeys: ["seed"] });
  // Distinct values: among equal ones, rounding in the reference would decide who is more typical.
  const scores = fc.uniqueArray(fc.integer({ min: -2000, max: 2000 }), {
    minLength: 1,
    maxLength: 60,
  });
  fc.assert(
    fc.property(scores, optionArbitrary, (values, options) => {
      const logits = Float32Array.from(values, (value) => value / 97);
      const kept = distribution(logits, [0], options);
      const loose = distribution(logits, [0], loosened(options));
      const id = createSampler(options, logits.length).sample(logits, [0]);
      // Only rounding at a filter's edge may differ: there a slightly looser filter keeps it.
      assert.ok(kept.has(id) || loose.has(id), `token ${id} of ${[...kept.keys()]}`);
    }),
    { numRuns: 1000, seed: 11 },
  );
});

function loosened(options: SamplerOptions): SamplerOptions {
  const loosen = (p: number | undefined) => p === undefined ? p : Math.min(1, p + 1e-9);
  const minP = options.minP === undefined ? undefined : options.minP * (1 - 1e-9);
  return { ...options, topP: loosen(options.topP), typicalP: loosen(options.typicalP), minP };
}

Deno.test("sampler: top-k keeps the lowest ids among equal logits", () => {
  const logits = Float32Array.from([1, 2, 1, 2, 1, 1, 0, 2]);
  const drawn = counts(logits, [], { topK: 5, temperature: 100 }, 2_000);
  assert.deepEqual([...drawn.keys()].sort(), [0, 1, 2, 3, 7]);
});

Deno.test("sampler: greedy takes the lowest id of the highest logit and ignores the filters", () => {
  const logits = Float32Array.from([-3, 5, 5, -Infinity]);
  assert.equal(createSampler({ temperature: 0, topK: 3, seed: 1 }, 4).sample(logits, []), 1);
  const options = { temperature: 0, repeatPenalty: 2 };
  assert.equal(createSampler(options, 4).sample(logits, [1]), 2);
});

Deno.test("sampler: leaves the logits as they are", () => {
  const logits = Float32Array.from([1, 2, 3]);
  createSampler({ repeatPenalty: 2, logitBias: new Map([[0, 9]]) }, 3).sample(logits, [2]);
  assert.deepEqual([...logits], [1, 2, 3]);
});

Deno.test("sampler: a seed fixes the tokens, in every JavaScript engine", () => {
  const logits = Float32Array.from({ length: 997 }, (_, i) => ((i * 7919) % 997) / 100);
  const tokensOf = (seed: number) => {
    const sampler = createSampler({ seed, temperature: 0.9, topP: 0.95 }, 997);
    return Array.from({ length: 8 }, () => sampler.sample(logits, []));
  };
  assert.deepEqual(tokensOf(42), GOLDEN_TOKENS);
  assert.notDeepEqual(tokensOf(43), GOLDEN_TOKENS);
  assert.notDeepEqual(tokensOf(42 + 2 ** 32), GOLDEN_TOKENS);
});

/** What seed 42 draws above: Deno (V8) and Bun (JavaScriptCore) must both give it. */
const GOLDEN_TOKENS = [841, 700, 210, 490, 753, 963, 214, 578];

Deno.test("sampler: samplers without a seed differ", () => {
  const logits = new Float32Array(1 << 16);
  const once = () => createSampler({}, logits.length).sample(logits, []);
  assert.ok(new Set([once(), once(), once(), once()]).size > 1);
});

Deno.test("sampler: exp is right to 1e-15 and never grows below 1", () => {
  for (let x = 0; x > -699; x -= 0.37) {
    const expected = Math.exp(x);
    assert.ok(Math.abs(expOfNegative(x) - expected) <= 1e-15 * expected, `exp(${x})`);
  }
  assert.equal(expOfNegative(0), 1);
  assert.equal(expOfNegative(-0.0), 1);
  assert.equal(expOfNegative(-Infinity), 0);
});

Deno.test("sampler: unusable logits are refused with the token's id", () => {
  const sampler = createSampler({ temperature: 0 }, 3);
  assert.throws(() => sampler.sample(Float32Array.of(1, NaN, 2), []), /token 1 has NaN/);
  assert.throws(() => sampler.sample(Float32Array.of(1, 2, Infinity), []), /token 2 has Infinity/);
  assert.throws(() => sampler.sample(new Float32Array(3).fill(-Infinity), []), /every token/);
  assert.throws(() => sampler.sample(new Float32Array(2), []), /must have 3 values.*2/);
});

Deno.test("sampler: every numeric option is checked and named with its flag", () => {
  for (const [name, range] of Object.entries(SAMPLER_RANGES)) {
    const outside = [range.least - 1, range.most * 2 + 2, NaN];
    if (range.whole) outside.push(range.least + 0.5);
    if (range.aboveLeast) outside.push(range.least);
    for (const value of outside) {
      assert.throws(
        () => createSampler({ [name]: value }, 10),
        (error: unknown) =>
          error instanceof RangeError && error.message.includes(range.flag) &&
          error.message.endsWith(String(value)),
        `${name} ${value}`,
      );
    }
    createSampler({ [name]: range.most }, 10);
  }
});

Deno.test("sampler: biases must name tokens and be numbers", () => {
  const withBias = (id: number, bias: number) => () =>
    createSampler({ logitBias: new Map([[id, bias]]) }, 10);
  assert.throws(withBias(10, 1), /from 0 to 9: current id is 10/);
  assert.throws(withBias(-1, 1), /current id is -1/);
  assert.throws(withBias(1, NaN), /token 1 .*NaN/);
  assert.throws(withBias(1, Infinity), /Infinity/);
  withBias(9, -Infinity)();
});

/** A row as a two-stage head gives it: the `count` largest, what equals them, and `others`. */
function reduced(logits: Float32Array, count: number, others: (id: number) => boolean) {
  const least = logits.toSorted().at(-count)!;
  return logits.map((logit, id) => logit >= least || others(id) ? logit : -Infinity);
}

Deno.test("sampler: draws the same from the candidates that it asks for as from all logits", () => {
  const optionArbitrary = fc.record({
    temperature: fc.constantFrom(0, 0.4, 1.5),
    topK: fc.constantFrom(1, 3, 20, 100),
    topP: fc.constantFrom(0, 0.6, 1),
    minP: fc.constantFrom(0, 0.2),
    typicalP: fc.constantFrom(0.4, 1),
    repeatPenalty: fc.constantFrom(1, 1.4),
    presencePenalty: fc.constantFrom(0, 0.9),
    frequencyPenalty: fc.constantFrom(0, 0.3),
    penaltyLastN: fc.constantFrom(-1, 0, 5, 64),
    banned: fc.uniqueArray(fc.integer({ min: 0, max: 39 }), { maxLength: 5 }),
    seed: fc.integer({ min: 0, max: 1e9 }),
  });
  let reducedRows = 0;
  fc.assert(
    fc.property(
      // Few different values, so that many are equal.
      fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 40, maxLength: 300 }),
      fc.array(fc.integer({ min: 0, max: 39 }), { maxLength: 30 }),
      optionArbitrary,
      (values, history, { banned, ...options }) => {
        const logits = Float32Array.from(values, (value) => value / 3);
        const logitBias = new Map(banned.map((id) => [id, id % 2 === 0 ? -Infinity : -0.5]));
        const [all, few] = [0, 1].map(() =>
          createSampler({ ...options, logitBias }, logits.length)
        );
        const count = few.candidates(history);
        if (count === 0) return;
        reducedRows++;
        const row = reduced(logits, count, (id) => (id + options.seed) % 29 === 0);
        for (let i = 0; i < 3; i++) {
          assert.equal(few.sample(row, history), all.sample(logits, history));
        }
      },
    ),
    { numRuns: 2000, seed: 4 },
  );
  assert.ok(reducedRows > 1000);
});

Deno.test("sampler: how many candidates it needs", () => {
  const needed = (options: SamplerOptions, history: number[] = [], ahead = 0) =>
    createSampler(options, 1000).candidates(history, ahead);
  assert.equal(needed({ temperature: 0 }), 1);
  assert.equal(needed({ temperature: 0, topK: 40 }), 1);
  assert.equal(needed({ topK: 40, topP: 0.5 }), 40);
  assert.equal(needed({ topK: 1000 }), 0);
  assert.equal(needed({ topK: 0 }), 0);
  assert.equal(needed({ topP: 0.9, minP: 0.1 }), 0);
  const greedy = { temperature: 0 };
  assert.equal(needed({ ...greedy, repeatPenalty: 1.1 }, [7, 8, 7]), 3);
  assert.equal(needed({ ...greedy, repeatPenalty: 1.1 }, [7, 8, 7], 2), 5);
  assert.equal(needed({ ...greedy, presencePenalty: 1, penaltyLastN: 1 }, [7, 8, 7]), 2);
  assert.equal(needed({ ...greedy, frequencyPenalty: 1, penaltyLastN: 0 }, [7, 8, 7]), 1);
  const long = Array.from({ length: 900 }, (_, i) => i);
  assert.equal(needed({ ...greedy, repeatPenalty: 1.1 }, long), 65);
  assert.equal(needed({ ...greedy, repeatPenalty: 1.1, penaltyLastN: -1 }, long), 0);
  assert.equal(needed({ ...greedy, logitBias: new Map([[1, -1], [2, -Infinity], [3, 0]]) }), 3);
  for (
    const raising of [{ repeatPenalty: 0.9 }, { presencePenalty: -1 }, { frequencyPenalty: -1 }]
  ) {
    assert.equal(needed({ ...greedy, ...raising }), 0);
  }
  assert.equal(needed({ ...greedy, logitBias: new Map([[1, 0.1]]) }), 0);
  assert.equal(createSampler({ topK: 40 }, 40).candidates([]), 0, "all of them");
});

Deno.test("sampler: rows that are mostly -Infinity are read right to their ends", () => {
  for (const size of [64, 1000, 1001, 1007, 4096]) {
    for (const id of [0, 1, 7, 8, size - 9, size - 8, size - 1]) {
      const logits = new Float32Array(size).fill(-Infinity);
      logits[id] = -3;
      logits[size >> 1] = -4;
      assert.equal(createSampler({ temperature: 0 }, size).sample(logits, []), id);
      const banned = createSampler({ logitBias: new Map([[id, -Infinity], [5, -2]]) }, size);
      assert.equal(banned.sample(logits, []), size >> 1);
      logits[id] = NaN;
      assert.throws(
        () => createSampler({ temperature: 0 }, size).sample(logits, []),
        new RegExp(`token ${id} has NaN`),
      );
    }
  }
});
