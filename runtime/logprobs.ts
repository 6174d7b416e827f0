import { expOfNegative } from "./sampler.ts";
import type { TokenLogprob } from "./types.ts";

/** Most of the likeliest tokens that can be told: OpenAI's number. */
export const MOST_TOP_LOGPROBS = 20;

/** @throws {RangeError} If `logprobs` is neither absent nor a number of tokens that can be told. */
export function checkLogprobs(logprobs: number | undefined): void {
  if (logprobs === undefined) return;
  if (Number.isInteger(logprobs) && logprobs >= 0 && logprobs <= MOST_TOP_LOGPROBS) return;
  throw new RangeError(
    `Cannot tell log-probabilities as logprobs must be a whole number from 0 to ${MOST_TOP_LOGPROBS}` +
      `: current value is ${logprobs}`,
  );
}

/**
 * log softmax(logits)[id], and those of the `top` likeliest tokens, best first, lower ids first among
 * equals.
 *
 * @param logits (vocabSize,), all of them exact.
 */
export function logprobOf(logits: Float32Array, id: number, top: number): TokenLogprob {
  let highest = -Infinity;
  for (const logit of logits) if (logit > highest) highest = logit;
  let sum = 0;
  for (const logit of logits) sum += expOfNegative(logit - highest);
  const base = highest + Math.log(sum);
  const best = largest(logits, top).map((other) => ({ id: other, logprob: logits[other] - base }));
  return { id, logprob: logits[id] - base, top: best };
}

/** Ids of the `count` largest logits. */
function largest(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && !(count > 0 && logits[id] > logits[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && logits[best[at - 1]] < logits[id]) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}
