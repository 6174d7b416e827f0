/** Figures about an answer: the server's where it gives them, else what the page measured itself. */

/**
 * @typedef {object} Statistics
 * @property {number} [promptTokens]
 * @property {number} [cachedTokens]
 * @property {number} [completionTokens]
 * @property {number} [tokensPerSecond]
 * @property {number} [timeToFirstTokenMs]
 */

/**
 * @param {object | undefined} usage Of the stream's last chunk.
 * @param {object | undefined} timings Of the same.
 * @param {{startedMs: number, firstMs: number | null, lastMs: number}} clock Of this page.
 * @returns {Statistics}
 */
export function statisticsOf(usage, timings, { startedMs, firstMs, lastMs }) {
  const completionTokens = usage?.completion_tokens;
  const all = {
    promptTokens: usage?.prompt_tokens,
    cachedTokens: usage?.prompt_tokens_details?.cached_tokens,
    completionTokens,
    tokensPerSecond: timings?.predicted_per_second ??
      measuredRate(completionTokens, lastMs - firstMs),
    timeToFirstTokenMs: firstMs === null ? undefined : firstMs - startedMs,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => Number.isFinite(value)));
}

/** The first token's time is not among `ms`, so it does not count. */
function measuredRate(tokens, ms) {
  return tokens > 1 && ms > 0 ? (tokens - 1) / (ms / 1000) : undefined;
}

/** @returns {{text: string, title: string}[]} */
export function statisticsTexts(statistics) {
  const { promptTokens, cachedTokens, completionTokens, tokensPerSecond, timeToFirstTokenMs } =
    statistics;
  return [
    ofNumber(tokensPerSecond, (n) => `${rounded(n)} tokens/s`, "Speed of the answer"),
    ofNumber(completionTokens, (n) => `${plural(n, "token")}`, "Length of the answer"),
    ofNumber(timeToFirstTokenMs, (n) => `first after ${duration(n)}`, "Time to the first token"),
    ofNumber(promptTokens, (n) => `prompt ${n}`, "Tokens of the prompt"),
    ofNumber(cachedTokens, (n) => `cached ${n}`, "Prompt tokens that were computed before"),
  ].filter((item) => item !== null);
}

const ofNumber = (value, text, title) =>
  Number.isFinite(value) ? { text: text(value), title } : null;
const rounded = (value) => value.toFixed(value < 10 ? 1 : 0);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const duration = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;

/** Tokens of a conversation after an answer, or 0. */
export function contextUse(messages) {
  const last = messages.findLast(({ statistics }) => statistics?.promptTokens !== undefined);
  return last === undefined
    ? 0
    : last.statistics.promptTokens + (last.statistics.completionTokens ?? 0);
}
