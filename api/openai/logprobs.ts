/** Log-probabilities in the shapes of chats and of completions. */
import { z } from "@hono/zod-openapi";
import type { Tokenizer, TokenLogprob } from "../../runtime/types.ts";

/** What logarithms of no probability become in JSON, which has no infinity. */
const LEAST_LOGPROB = -9999;

const ChatToken = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()),
});

export const ChatLogprobs = z.object({
  content: z.array(ChatToken.extend({ top_logprobs: z.array(ChatToken) })),
}).openapi("ChatLogprobs");

export const CompletionLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(z.int()),
}).openapi("CompletionLogprobs");

export function chatLogprobs(logprobs: readonly TokenLogprob[], tokenizer: Tokenizer) {
  const describe = ({ id, logprob }: { id: number; logprob: number }) => {
    const bytes = tokenizer.tokenBytes(id);
    return { token: textOf(bytes), logprob: finite(logprob), bytes: [...bytes] };
  };
  return {
    content: logprobs.map((token) => ({
      ...describe(token),
      top_logprobs: token.top.map(describe),
    })),
  };
}

/** @param offset Characters of the text before the first of these tokens. */
export function completionLogprobs(
  logprobs: readonly TokenLogprob[],
  tokenizer: Tokenizer,
  offset: number,
) {
  const nameOf = (id: number) => textOf(tokenizer.tokenBytes(id));
  const tokens = logprobs.map(({ id }) => nameOf(id));
  const offsets: number[] = [];
  for (const token of tokens) {
    offsets.push(offset);
    offset += token.length;
  }
  return {
    tokens,
    token_logprobs: logprobs.map(({ logprob }) => finite(logprob)),
    top_logprobs: logprobs.map(({ top }) =>
      Object.fromEntries(top.map(({ id, logprob }) => [nameOf(id), finite(logprob)]))
    ),
    text_offset: offsets,
  };
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function finite(logprob: number): number {
  return Math.max(logprob, LEAST_LOGPROB);
}
