import assert from "node:assert/strict";
import { negativeLogLikelihood, perplexity, type PerplexityProgress } from "./perplexity.ts";
import type { Model, PositionLogits, Tokenizer } from "./types.ts";

const BOS = 26;
const VOCAB_SIZE = 27;

interface Asked {
  positions: { from: number; to: number };
}

/** Letters are tokens; what each call of `logits` was given is kept. */
function letterModel({ bos = true, contextSize = 100 } = {}) {
  const calls: number[][] = [];
  const tokenizer = {
    encode(text: string, { addSpecialTokens = true } = {}) {
      const ids = [...text].map((letter) => letter.charCodeAt(0) - 97);
      return addSpecialTokens && bos ? [BOS, ...ids] : ids;
    },
    // Every third token stands for two bytes.
    tokenBytes: (id: number) => new Uint8Array(id % 3 === 0 ? 2 : 1),
  } as unknown as Tokenizer;
  const model = {
    tokenizer,
    contextSize,
    async *logits(ids: readonly number[], { positions }: Asked): AsyncGenerator<PositionLogits> {
      calls.push([...ids]);
      for (let position = positions.from; position < positions.to; position++) {
        await Promise.resolve();
        yield { position, logits: logitsAt(ids, position) };
      }
    },
  } as unknown as Model;
  return { model, calls };
}

/** Depends on the token, its position and the chunk's start, so that a slip of any shows. */
function logitsAt(ids: readonly number[], position: number): Float32Array {
  return Float32Array.from(
    { length: VOCAB_SIZE },
    (_, id) => Math.sin(id * 3.7 + ids[position] * 1.3 + position * 0.7 + ids[0]) * 4,
  );
}

function textOf(length: number): string {
  return Array.from({ length }, (_, i) => String.fromCharCode(97 + (i * 7 + i * i) % 26)).join("");
}

/** As the definition reads: all chunks, all predicted tokens, plain softmax. */
function expected(ids: number[], size: number, bos: number | null, stride?: number) {
  const losses: number[] = [];
  const chunkMeans: number[] = [];
  let bytes = 0;
  for (let start = 0; start + size <= ids.length; start += stride ?? size) {
    const chunk = ids.slice(start, start + size);
    if (bos !== null) chunk[0] = bos;
    const first = stride === undefined ? Math.floor(size / 2) + 1 : size - stride;
    const ofChunk: number[] = [];
    for (let target = first; target < size; target++) {
      const weights = [...logitsAt(chunk, target - 1)].map(Math.exp);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      ofChunk.push(-Math.log(weights[chunk[target]] / total));
      bytes += chunk[target] % 3 === 0 ? 2 : 1;
    }
    losses.push(...ofChunk);
    chunkMeans.push(meanOf(ofChunk));
  }
  const n = losses.length;
  const mean = meanOf(losses);
  return {
    perplexity: Math.exp(mean),
    standardError: Math.exp(mean) * errorOf(losses),
    chunkStandardError: chunkMeans.length < 2 ? null : Math.exp(mean) * errorOf(chunkMeans),
    tokens: n,
    bitsPerByte: mean * n / Math.LN2 / bytes,
  };
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function errorOf(values: readonly number[]): number {
  const mean = meanOf(values);
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}

for (
  const { bos, size, length, stride } of [
    { bos: true, size: 8, length: 29 },
    { bos: false, size: 8, length: 24 },
    { bos: true, size: 7, length: 20 },
    { bos: true, size: 5, length: 4 },
    { bos: true, size: 8, length: 40, stride: 3 },
    { bos: false, size: 12, length: 50, stride: 11 },
  ]
) {
  const strided = stride === undefined ? "" : ` every ${stride}`;
  Deno.test(`perplexity of ${length} letters in chunks of ${size}${strided}, BOS ${bos}, is its definition's`, async () => {
    const { model, calls } = letterModel({ bos });
    const text = textOf(length);
    const result = await perplexity(model, text, { chunkTokens: size, stride });
    const reference = expected(model.tokenizer.encode(text), size, bos ? BOS : null, stride);
    assert.equal(result.tokens, reference.tokens);
    assert.equal(result.chunks, Math.floor((length + (bos ? 1 : 0) - size) / (stride ?? size)) + 1);
    for (const key of ["perplexity", "standardError", "bitsPerByte"] as const) {
      assert.ok(Math.abs(result[key] / reference[key] - 1) < 1e-10, `${key} ${result[key]}`);
    }
    const [byChunks, wanted] = [result.chunkStandardError, reference.chunkStandardError];
    if (wanted === null) assert.equal(byChunks, null);
    else assert.ok(Math.abs(byChunks! / wanted - 1) < 1e-6, `${byChunks}, not ${wanted}`);
    assert.ok(calls.every((ids) => ids.length === size && (!bos || ids[0] === BOS)));
  });
}

Deno.test("perplexity reports each chunk and ends with the result's estimate", async () => {
  const { model } = letterModel();
  const seen: PerplexityProgress[] = [];
  const result = await perplexity(model, textOf(30), {
    chunkTokens: 10,
    onChunk: (progress) => seen.push(progress),
  });
  assert.deepEqual(seen.map(({ done, total }) => [done, total]), [[1, 3], [2, 3], [3, 3]]);
  assert.equal(seen[2].perplexity, result.perplexity);
});

Deno.test("perplexity of the first chunks is that of the text up to there, and reads no further", async () => {
  const { model } = letterModel();
  const text = textOf(90);
  let read = 0;
  function* parts() {
    for (let at = 0; at < 1_000_000; at += 10_000) {
      read++;
      yield textOf(10_000);
    }
  }
  const result = await perplexity(model, { parts: parts(), bytes: 1e6 }, {
    chunkTokens: 30,
    chunks: 3,
  });
  assert.deepEqual(result, await perplexity(model, text, { chunkTokens: 30 }));
  assert.ok(read < 10, `${read} parts were read`);
});

Deno.test("perplexity's progress estimates the end of a long text, and tells it near the end", async () => {
  const { model } = letterModel();
  const parts = Array.from({ length: 20 }, () => textOf(10_000));
  const seen: PerplexityProgress[] = [];
  const { chunks } = await perplexity(model, { parts, bytes: 200_000 }, {
    chunkTokens: 100,
    onChunk: (progress) => seen.push(progress),
  });
  assert.equal(chunks, 2000);
  assert.ok(seen[0].isEstimate && Math.abs(seen[0].total! - 2000) < 20, `${seen[0].total}`);
  assert.deepEqual([seen.at(-1)!.done, seen.at(-1)!.total, seen.at(-1)!.isEstimate], [
    2000,
    2000,
    false,
  ]);
});

Deno.test("perplexity's chunk is the context or 512 unless said", async () => {
  const { model, calls } = letterModel({ contextSize: 12 });
  await perplexity(model, textOf(30));
  assert.equal(calls[0].length, 12);
  const large = letterModel({ contextSize: 4096 });
  await perplexity(large.model, textOf(600));
  assert.equal(large.calls[0].length, 512);
});

Deno.test("perplexity of a uniform distribution is the vocabulary's size, without error", async () => {
  const { model } = letterModel();
  const uniform = {
    ...model,
    async *logits(_ids: readonly number[], { positions: { from, to } }: Asked) {
      for (let position = from; position < to; position++) {
        yield await Promise.resolve({ position, logits: new Float32Array(VOCAB_SIZE) });
      }
    },
  } as unknown as Model;
  const result = await perplexity(uniform, textOf(40), { chunkTokens: 10 });
  assert.ok(Math.abs(result.perplexity - VOCAB_SIZE) < 1e-9);
  assert.ok(result.standardError < 1e-6);
});

Deno.test("perplexity refuses texts and chunks that don't fit", async () => {
  const { model } = letterModel();
  const measure = (text: string, chunkTokens?: number) => perplexity(model, text, { chunkTokens });
  await assert.rejects(measure("abc", 10), /chunk of 10 tokens: it has 4/);
  await assert.rejects(measure(textOf(300), 101), /5 to the model's context of 100.*101/);
  await assert.rejects(measure(textOf(30), 4), /current value is 4/);
  await assert.rejects(measure(textOf(30), 7.5), RangeError);
  const strides = (stride: number) => perplexity(model, textOf(30), { chunkTokens: 10, stride });
  await assert.rejects(strides(10), /--stride must be .* from 2 to .* 9: current value is 10/);
  await assert.rejects(strides(1), RangeError);
});

Deno.test("negativeLogLikelihood survives extreme logits", () => {
  assert.equal(negativeLogLikelihood(Float32Array.of(1e4, -1e4), 0), 0);
  assert.equal(negativeLogLikelihood(Float32Array.of(1e4, -1e4), 1), 2e4);
});
