import assert from "node:assert/strict";
import { embeddedModelFolder } from "./embedded.ts";
import type { GrammarSource } from "./grammar/types.ts";
import { GrammarCache } from "./grammar_cache.ts";
import { loadTokenizer } from "./tokenizer.ts";

async function storyCache(limits: { mostStates?: number } = {}): Promise<GrammarCache> {
  const tokenizer = await loadTokenizer(embeddedModelFolder());
  const { vocabSize } = tokenizer;
  return new GrammarCache({ tokenizer, vocabSize, eosTokenIds: [2047], ...limits });
}

const choice = (i: number): GrammarSource => ({ kind: "choice", choices: [`answer ${i}`] });

Deno.test("grammar cache: an equal source is compiled once, also while it is compiled", async () => {
  const cache = await storyCache();
  const [a, b] = await Promise.all([cache.compiled(choice(1)), cache.compiled(choice(1))]);
  assert.equal(a, b);
  assert.notEqual(await cache.compiled(choice(2)), a);
});

Deno.test("grammar cache: the longest unused goes, and what failed is tried again", async () => {
  const cache = await storyCache();
  const kept = await cache.compiled(choice(0));
  const lost = await cache.compiled(choice(1));
  for (let i = 2; i < 66; i++) {
    await cache.compiled(choice(i));
    assert.equal(await cache.compiled(choice(0)), kept);
  }
  assert.notEqual(await cache.compiled(choice(1)), lost);
  const wrong: GrammarSource = { kind: "regex", pattern: "(" };
  for (let i = 0; i < 2; i++) await assert.rejects(cache.compiled(wrong), { name: "GrammarError" });
});

Deno.test("grammar cache: a large grammar takes the place of many small ones", async () => {
  const cache = await storyCache({ mostStates: 295 });
  const small = await cache.compiled(choice(1));
  assert.equal(await cache.compiled(choice(1)), small);
  const large = await cache.compiled({ kind: "regex", pattern: "a{0,290}" });
  assert.ok(large.numStates > 290 && small.numStates < 20);
  const next = await cache.compiled(choice(1));
  assert.notEqual(next, small);
  assert.equal(await cache.compiled(choice(1)), next);
});
