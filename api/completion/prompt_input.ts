/** Prompts and texts to embed as clients may give them: one or several, in words or in token ids. */
import { z } from "@hono/zod-openapi";
import type { Model, Tokenizer } from "../../runtime/types.ts";

/** More than any vocabulary has. */
export const TokenId = z.int().min(0).max(2 ** 31 - 1);
const Ids = z.array(TokenId).min(1);

/** @param most Texts of one request. */
export function promptInput(most: number) {
  return z.union([
    z.string(),
    z.array(z.string()).min(1).max(most),
    Ids,
    z.array(Ids).min(1).max(most),
  ]);
}

type PromptInput = z.output<ReturnType<typeof promptInput>>;

export type Prompt = string | readonly number[];

export function promptsOf(input: PromptInput): Prompt[] {
  if (typeof input === "string") return [input];
  return typeof input[0] === "number" ? [input as number[]] : input as (string | number[])[];
}

export async function promptIds(prompt: Prompt, model: Model): Promise<readonly number[]> {
  return typeof prompt === "string" ? await model.encode(prompt) : prompt;
}

export function promptText(prompt: Prompt, tokenizer: Tokenizer): string {
  return typeof prompt === "string" ? prompt : tokenizer.decode(prompt);
}
