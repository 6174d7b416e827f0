import assert from "node:assert/strict";
import { contextUse, statisticsOf, statisticsTexts } from "./statistics.js";

const USAGE = {
  prompt_tokens: 10,
  completion_tokens: 21,
  prompt_tokens_details: { cached_tokens: 8 },
};
const CLOCK = { startedMs: 100, firstMs: 350, lastMs: 2350 };

Deno.test("statistics: the server's speed, or else the page's own", () => {
  const told = statisticsOf(USAGE, { predicted_per_second: 50 }, CLOCK);
  assert.deepEqual(told, {
    promptTokens: 10,
    cachedTokens: 8,
    completionTokens: 21,
    tokensPerSecond: 50,
    timeToFirstTokenMs: 250,
  });
  assert.equal(statisticsOf(USAGE, undefined, CLOCK).tokensPerSecond, 10);
});

Deno.test("statistics: what is not known is not there", () => {
  const none = statisticsOf(undefined, undefined, { startedMs: 1, firstMs: null, lastMs: 0 });
  assert.deepEqual(none, {});
  assert.deepEqual(statisticsTexts(none), []);
});

Deno.test("statistics: figures in words", () => {
  const texts = (statistics: object) => statisticsTexts(statistics).map(({ text }) => text);
  assert.deepEqual(
    texts({ tokensPerSecond: 8.126, completionTokens: 1, timeToFirstTokenMs: 1234 }),
    ["8.1 tokens/s", "1 token", "first after 1.2 s"],
  );
  assert.deepEqual(texts({ tokensPerSecond: 373.4, promptTokens: 3, cachedTokens: 0 }), [
    "373 tokens/s",
    "prompt 3",
    "cached 0",
  ]);
});

Deno.test("statistics: the context holds what the last answer's prompt and answer were", () => {
  const messages = [
    { statistics: { promptTokens: 5, completionTokens: 5 } },
    {},
    { statistics: { promptTokens: 12, completionTokens: 30 } },
    { statistics: {} },
  ];
  assert.equal(contextUse(messages), 42);
  assert.equal(contextUse([{}]), 0);
});
