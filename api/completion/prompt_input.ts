/** Prompts and texts to embed as clients may give them: one or several, in words or in token ids. */
import { z } from "@hono/zod-openapi";
import type { Model, Tokenizer } from "../../runtime/types.ts";

/** More than any vocabulary has. */
const MOST_ID = 2 ** 31 - 1;

/**
 * Token ids. They come by the hundred thousand, and are checked by one loop: zod's own arrays take
 * hundreds of milliseconds for so many, in which nobody else is served.
 *
 * @param least Ids that there must be.
 */
export function tokenIds(least: number) {
  const rule = `token ids are whole numbers from 0 to ${MOST_ID}`;
  const isIds = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length >= least && value.every(isId);
  return z.custom<number[]>(isIds, least > 0 ? `${rule}, at least ${least}` : rule).openapi({
    type: "array",
    items: { type: "integer", minimum: 0, maximum: MOST_ID },
    minItems: least,
  });
}

function isId(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MOST_ID;
}

/** @param most Texts of one request. */
export function promptInput(most: number) {
  const isTexts = (value: unknown): value is string[] =>
    Array.isArray(value) && value.length >= 1 && value.length <= most &&
    value.every((text) => typeof text === "string");
  const texts = z.custom<string[]>(isTexts).openapi({
    type: "array",
    items: { type: "string" },
    minItems: 1,
    maxItems: most,
  });
  const several = z.array(tokenIds(1)).min(1).max(most);
  const rule =
    `give a text, token ids (whole numbers from 0 to ${MOST_ID}), or 1 to ${most} of these`;
  return z.union([z.string(), texts, tokenIds(1), several], rule);
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
