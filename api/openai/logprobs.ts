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

/** A token of a completion or of its prompt. */
export interface NamedLogprob {
  id: number;
  /** Null of a token that comes after nothing. */
  logprob: number | null;
  top: TokenLogprob["top"];
  /** What it adds to the text, if that is not what it stands for. */
  name?: string;
}

/** @param offset Characters of the text before the first of these tokens. */
export function completionLogprobs(
  logprobs: readonly NamedLogprob[],
  tokenizer: Tokenizer,
  offset: number,
) {
  const offsets: number[] = [];
  for (const token of logprobs) {
    offsets.push(offset);
    offset += addedBy(token, tokenizer).length;
  }
  return {
    tokens: logprobs.map(({ id, name }) => name ?? nameOf(id, tokenizer)),
    token_logprobs: logprobs.map(({ logprob }) => logprob === null ? null : finite(logprob)),
    top_logprobs: logprobs.map(({ logprob, top }) =>
      logprob === null ? null : Object.fromEntries(
        top.map((other) => [nameOf(other.id, tokenizer), finite(other.logprob)]),
      )
    ),
    text_offset: offsets,
  };
}

/** Characters that a token adds to the text; of a part of a character, those that stand for it. */
export function addedBy({ id, name }: NamedLogprob, tokenizer: Tokenizer): string {
  return name ?? textOf(tokenizer.tokenBytes(id));
}

/** A part of a character is named by its bytes, as by OpenAI: `bytes:\xe2\x82`. */
function nameOf(id: number, tokenizer: Tokenizer): string {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const hex = [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`);
    return `bytes:${hex.join("")}`;
  }
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

function finite(logprob: number): number {
  return Math.max(logprob, LEAST_LOGPROB);
}
