import assert from "node:assert/strict";
import fc from "fast-check";
import { Bpe, type BpeModel } from "./bpe.ts";

interface Vocabulary {
  vocab: Map<string, number>;
  pairs: [string, string][];
}

/** A vocabulary over a, b, c whose merges join tokens that earlier merges made. */
const anyVocabulary = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 20 }).map((choices) => {
  const tokens = ["a", "b", "c"];
  const pairs: [string, string][] = [];
  for (const [i, j] of choices) {
    const left = tokens[i % tokens.length], right = tokens[j % tokens.length];
    if (tokens.includes(left + right) || (left + right).length > 12) continue;
    pairs.push([left, right]);
    tokens.push(left + right);
  }
  return { vocab: new Map(tokens.map((token, id) => [token, id])), pairs };
});

function modelOf({ vocab, pairs }: Vocabulary, change: Partial<BpeModel> = {}): BpeModel {
  const idsOf = ([left, right]: [string, string]) =>
    [left, right, left + right].map((token) => vocab.get(token)!);
  return {
    vocab,
    merges: () => Int32Array.from(pairs.flatMap(idsOf)),
    unkId: null,
    fuseUnk: false,
    byteIds: null,
    ignoreMerges: false,
    ...change,
  };
}

/** The definition: find the pair of lowest rank, leftmost first, join it, start again. */
function slowly({ vocab, pairs }: Vocabulary, word: string): number[] {
  const tokens = [...word];
  for (;;) {
    const ranks = tokens.slice(1).map((right, i) =>
      pairs.findIndex(([l, r]) => l === tokens[i] && r === right)
    );
    const best = Math.min(...ranks.filter((rank) => rank >= 0));
    if (!Number.isFinite(best)) return tokens.map((token) => vocab.get(token)!);
    const at = ranks.indexOf(best);
    tokens.splice(at, 2, tokens[at] + tokens[at + 1]);
  }
}

function encode(bpe: Bpe, word: string): number[] {
  const ids: number[] = [];
  bpe.encodeWord(word, ids);
  return ids;
}

Deno.test("Bpe joins the pair of lowest rank until none is left", () => {
  const word = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 100 });
  fc.assert(
    fc.property(anyVocabulary, word, (vocabulary, text) => {
      const bpe = new Bpe(modelOf(vocabulary));
      assert.deepEqual(encode(bpe, text), slowly(vocabulary, text));
      // Again, from the cache.
      assert.deepEqual(encode(bpe, text), slowly(vocabulary, text));
    }),
    { numRuns: 500 },
  );
});

const ABC: Vocabulary = {
  vocab: new Map([["a", 0], ["b", 1], ["ab", 2], ["?", 3], ["ba", 4]]),
  pairs: [["a", "b"]],
};

Deno.test("unknown characters become unk, one unk, bytes or nothing", () => {
  const ids = (change: Partial<BpeModel>) => encode(new Bpe(modelOf(ABC, change)), "aéüb");
  assert.deepEqual(ids({}), [2]);
  assert.deepEqual(ids({ unkId: 3 }), [0, 3, 3, 1]);
  assert.deepEqual(ids({ unkId: 3, fuseUnk: true }), [0, 3, 1]);
  const byteIds = Array.from({ length: 256 }, (_, byte) => 100 + byte);
  assert.deepEqual(ids({ unkId: 3, byteIds }), [
    0,
    100 + 0xc3,
    100 + 0xa9,
    100 + 0xc3,
    100 + 0xbc,
    1,
  ]);
});

Deno.test("ignoreMerges takes whole words of the vocabulary, merges or not", () => {
  assert.deepEqual(encode(new Bpe(modelOf(ABC)), "ba"), [1, 0]);
  assert.deepEqual(encode(new Bpe(modelOf(ABC, { ignoreMerges: true })), "ba"), [4]);
});
