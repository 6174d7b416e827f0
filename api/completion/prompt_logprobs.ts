/** How likely the tokens of a prompt are, each after those before it: what evaluations ask for. */
import { logprobOf } from "../../runtime/logprobs.ts";
import { BusyClock } from "../../runtime/pause.ts";
import type { Model, TokenLogprob } from "../../runtime/types.ts";

/** As a token's that was generated; the first one comes after nothing, and is not judged. */
export type PromptLogprob = TokenLogprob | { id: number; logprob: null; top: [] };

/** @param top How many of the likeliest tokens are told with each. */
export async function promptLogprobs(
  model: Model,
  ids: readonly number[],
  top: number,
  signal: AbortSignal,
): Promise<PromptLogprob[]> {
  const clock = new BusyClock();
  const logprobs: PromptLogprob[] = [{ id: ids[0], logprob: null, top: [] }];
  for await (const { position, logits } of model.logits(ids, { positions: "all", signal })) {
    if (clock.isLate) await clock.pause();
    if (position + 1 < ids.length) logprobs.push(logprobOf(logits, ids[position + 1], top));
  }
  return logprobs;
}
