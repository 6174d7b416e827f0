import assert from "node:assert/strict";
import { randomOf } from "../codegen/random.ts";
import { compareModels, type CompareProgress } from "./compare.ts";
import { perplexity } from "./perplexity.ts";
import type { Model, PositionLogits, Tokenizer } from "./types.ts";

const VOCAB_SIZE = 30;

interface FakeOptions {
  name?: string;
  /** Added to logits, by position and token. */
  noise?: (position: number, id: number) => number;
  vocabSize?: number;
  letters?: string;
}

/** Letters are tokens. */
function letterModel(
  { name = "a", noise = () => 0, vocabSize = VOCAB_SIZE, letters = "abc" }: FakeOptions = {},
) {
  const tokenizer = {
    encode: (text: string) => [...text].map((letter) => letter.charCodeAt(0) - 97),
    tokenBytes: () => new Uint8Array(1),
    tokenText: (id: number) => letters[id] ?? `token ${id}`,
  } as unknown as Tokenizer;
  const model = {
    ...{
      name,
      kernels: "avx2",
      scheme: "multiply",
      tokenizer,
      contextSize: 64,
      spec: { vocabSize },
    },
    async *logits(
      ids: readonly number[],
      { positions: { from, to } }: { positions: { from: number; to: number } },
    ): AsyncGenerator<PositionLogits> {
      for (let position = from; position < to; position++) {
        await Promise.resolve();
        yield { position, logits: logitsAt(ids, position, noise) };
      }
    },
  };
  return model as unknown as Model;
}

function logitsAt(ids: readonly number[], position: number, noise: FakeOptions["noise"]) {
  return Float32Array.from(
    { length: VOCAB_SIZE },
    (_, id) => 3 * Math.sin(id * 3.7 + ids[position] * 1.3 + position) + noise!(position, id),
  );
}

const TEXT = Array.from({ length: 200 }, (_, i) => String.fromCharCode(97 + (i * 7 + i * i) % 26))
  .join("");
const SIZE = 20;

function probabilities(logits: Float32Array): number[] {
  const weights = [...logits].map(Math.exp);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** As the definitions read. */
function expectedOf(noise: NonNullable<FakeOptions["noise"]>) {
  const ids = [...TEXT].map((letter) => letter.charCodeAt(0) - 97);
  const divergences: number[] = [];
  const differences: number[] = [];
  let [sameTop, identical] = [0, 0];
  for (let start = 0; start + SIZE <= ids.length; start += SIZE) {
    const chunk = ids.slice(start, start + SIZE);
    for (let position = SIZE / 2; position < SIZE - 1; position++) {
      const [a, b] = [() => 0, noise].map((each) => logitsAt(chunk, position, each));
      const [p, q] = [probabilities(a), probabilities(b)];
      divergences.push(p.reduce((sum, share, i) => sum + share * Math.log(share / q[i]), 0));
      const apart = a.map((logit, i) => Math.abs(logit - b[i]));
      differences.push(...apart);
      if (a.indexOf(Math.max(...a)) === b.indexOf(Math.max(...b))) sameTop++;
      if (apart.every((difference) => difference === 0)) identical++;
    }
  }
  return { divergences, differences, sameTop, identical };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function errorOf(values: readonly number[]): number {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}

function near(actual: number, wanted: number, what: string, within = 1e-6): void {
  assert.ok(
    Math.abs(actual - wanted) <= within * Math.abs(wanted) + 1e-12,
    `${what}: ${actual}, not ${wanted}`,
  );
}

Deno.test("compare's figures are their definitions'", async () => {
  const random = randomOf(3);
  const table = Float32Array.from({ length: 64 * VOCAB_SIZE }, () => random() - 0.5);
  // Every third position is as it was.
  const noise = (position: number, id: number) =>
    position % 3 === 0 ? 0 : table[position * VOCAB_SIZE + id];
  const [a, b] = [letterModel(), letterModel({ name: "b", noise })];
  const report = await compareModels(a, b, TEXT, { chunkTokens: SIZE });
  const { divergences, differences, sameTop, identical } = expectedOf(noise);
  const n = divergences.length;
  assert.equal(report.positions, n);
  assert.equal(report.chunks, TEXT.length / SIZE);
  assert.ok(identical > 0 && identical < n);
  assert.equal(report.identicalPositions, identical);
  near(report.divergence.mean, mean(divergences), "mean");
  near(report.divergence.standardError, errorOf(divergences), "its error");
  near(report.divergence.max, Math.max(...divergences), "largest");
  const sorted = divergences.toSorted((x, y) => x - y);
  near(report.divergence.p99, sorted[Math.ceil(0.99 * n) - 1], "99 %", 0.006);
  near(report.divergence.median, sorted[Math.ceil(0.5 * n) - 1], "median", 0.006);
  near(report.topAgreement.mean, sameTop / n, "agreement");
  near(report.logitDifference.mean, mean(differences), "logits");
  near(report.logitDifference.max, Math.max(...differences), "largest of logits");
  for (const [model, side] of [[a, report.a], [b, report.b]] as const) {
    const alone = await perplexity(model, TEXT, { chunkTokens: SIZE });
    assert.equal(side.perplexity, alone.perplexity);
    assert.equal(side.standardError, alone.standardError);
  }
  near(report.perplexityDifference.mean, report.b.perplexity - report.a.perplexity, "difference");
});

Deno.test("the error of a perplexity's difference is that of a difference on the same tokens", async () => {
  // B's losses are A's, a little more for some: far surer than two perplexities by themselves.
  const noise = (position: number, id: number) => position % 2 === 0 && id === 3 ? 0.01 : 0;
  const [a, b] = [letterModel(), letterModel({ name: "b", noise })];
  const report = await compareModels(a, b, TEXT, { chunkTokens: SIZE });
  const { standardError } = report.perplexityDifference;
  assert.ok(standardError > 0 && standardError < report.a.standardError / 20);
});

Deno.test("a model compared with itself is lossless", async () => {
  const seen: CompareProgress[] = [];
  const report = await compareModels(letterModel(), letterModel(), TEXT, {
    chunkTokens: SIZE,
    chunks: 4,
    onChunk: (progress) => seen.push(progress),
  });
  assert.equal(report.identicalPositions, report.positions);
  assert.deepEqual(report.divergence, { mean: 0, standardError: 0, median: 0, p99: 0, max: 0 });
  assert.deepEqual(report.topAgreement, { mean: 1, standardError: 0 });
  assert.deepEqual(report.logitDifference, { mean: 0, max: 0 });
  assert.deepEqual(report.perplexityDifference, { mean: 0, standardError: 0 });
  assert.deepEqual(seen.map(({ done, total }) => [done, total]), [[1, 4], [2, 4], [3, 4], [4, 4]]);
});

Deno.test("compare refuses models of other tokens, and logits that are no numbers", async () => {
  const a = letterModel();
  const compare = (b: Model) => compareModels(a, b, TEXT, { chunkTokens: SIZE });
  await assert.rejects(
    compare(letterModel({ name: "b", vocabSize: 31 })),
    /compare a with b as their vocabularies differ: 30 and 31 tokens/,
  );
  await assert.rejects(
    compare(letterModel({ name: "b", letters: "abd" })),
    /tokenizers differ: token 2 is "c" in one and "d" in the other/,
  );
  await assert.rejects(compare(letterModel({ noise: () => NaN })), /no numbers/);
});
