/** Clients that all send at once, and what they see. */
import { type Lag, lagBetween, readMetrics } from "./metrics.ts";
import { ownPrompt, promptOf } from "./prompts.ts";
import { quantile } from "./statistics.ts";
import { streamChat, type StreamResult } from "./stream.ts";

export interface LoadOptions {
  url: string;
  model: string;
  /** Of each client, in tokens. */
  maxTokens: number;
  /** Words of the prompts: each client's own number in this range. */
  promptWords: readonly [least: number, most: number];
  /** Every client sends as many requests, one after the other. */
  rounds: number;
}

/** Milliseconds. */
export interface Spread {
  p50: number;
  p99: number;
}

export interface LoadReport {
  clients: number;
  requests: number;
  errors: string[];
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  draftTokens: number;
  /** All completion tokens by all the time, prompts included. */
  tokensPerSecond: number;
  /** While every client's answer is being written and none is at its end: the median of the rounds. */
  decodeTokensPerSecond: number;
  timeToFirstTokenMs: Spread;
  interTokenMs: Spread;
  /** Of the server's event loop, where it tells. */
  eventLoopLagMs: Lag | null;
}

/** Rounds of `clients` requests that start together. */
export async function measureLoad(clients: number, options: LoadOptions): Promise<LoadReport> {
  const results: StreamResult[] = [];
  const errors: string[] = [];
  const decode: number[] = [];
  const before = await readMetrics(options.url);
  let ms = 0;
  for (let round = 0; round < options.rounds; round++) {
    const startedMs = performance.now();
    const seeds = Array.from({ length: clients }, (_, i) => seedOf(clients, round, i));
    const settled = await Promise.allSettled(seeds.map((seed) => request(seed, options)));
    ms += performance.now() - startedMs;
    const good = settled.flatMap((each) => each.status === "fulfilled" ? [each.value] : []);
    errors.push(
      ...settled.flatMap((each) => each.status === "rejected" ? [each.reason.message] : []),
    );
    results.push(...good);
    if (good.length === clients) decode.push(commonRate(good));
  }
  return {
    ...reportOf(results, ms),
    clients,
    requests: clients * options.rounds,
    errors,
    decodeTokensPerSecond: quantile(decode, 0.5),
    eventLoopLagMs: lagBetween(before, await readMetrics(options.url)),
  };
}

/** No two requests of a run have the same text. */
function seedOf(clients: number, round: number, client: number): number {
  return clients * 1_000_000 + round * 1000 + client;
}

function request(seed: number, options: LoadOptions): Promise<StreamResult> {
  const [least, most] = options.promptWords;
  const prompt = promptOf(seed, least + seed * 7919 % (most - least + 1));
  return streamChat({ ...options, prompt, seed });
}

/** Tokens a second of all together, from the last one's first token to the first one's end. */
function commonRate(results: readonly StreamResult[]): number {
  const from = Math.max(...results.map(({ firstMs }) => firstMs));
  const to = Math.min(...results.map(({ arrivals }) => arrivals.at(-1)!));
  const tokens = results.map(({ arrivals, completionTokens }) => {
    const within = arrivals.filter((at) => at > from && at <= to).length;
    // A chunk is a token, but where one of them ended within a character, or drafts came true.
    return within * completionTokens / arrivals.length;
  });
  return to > from ? 1000 * tokens.reduce((sum, each) => sum + each, 0) / (to - from) : NaN;
}

function reportOf(results: readonly StreamResult[], ms: number) {
  const sum = (of: (result: StreamResult) => number) =>
    results.reduce((total, result) => total + of(result), 0);
  const completionTokens = sum((result) => result.completionTokens);
  const gaps = results.flatMap(({ arrivals }) =>
    arrivals.slice(1).map((at, i) => at - arrivals[i])
  );
  return {
    promptTokens: sum((result) => result.promptTokens),
    cachedTokens: sum((result) => result.cachedTokens),
    completionTokens,
    draftTokens: sum((result) => result.draftTokens),
    tokensPerSecond: 1000 * completionTokens / ms,
    timeToFirstTokenMs: spreadOf(results.map(({ firstMs, sentMs }) => firstMs - sentMs)),
    interTokenMs: spreadOf(gaps),
  };
}

function spreadOf(values: readonly number[]): Spread {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
}

/** The engine's own rate over a prompt of some `words` words, by the server's clock: the median of some. */
export async function measurePrefill(
  { url, model }: Pick<LoadOptions, "url" | "model">,
  words: number,
): Promise<number> {
  const rates: number[] = [];
  for (let seed = 1; seed <= 4; seed++) {
    const prompt = ownPrompt(seed, words);
    const result = await streamChat({ url, model, prompt, seed, maxTokens: 1 });
    rates.push(result.promptPerSecond);
  }
  return quantile(rates, 0.5);
}
