/** What `echo` puts before each answer: the prompt, with the likelihood of its tokens if it is asked for. */
import { type Prompt, promptText } from "../completion/prompt_input.ts";
import { promptLogprobs } from "../completion/prompt_logprobs.ts";
import type { Model } from "../../runtime/types.ts";
import type { CompletionsBody } from "./completions_schema.ts";
import type { NamedLogprob } from "./logprobs.ts";

export interface Echo {
  text: string;
  logprobs: readonly NamedLogprob[];
}

const NO_ECHO: Echo = { text: "", logprobs: [] };

/** One a prompt. @param ids The prompts as tokens. */
export function echoesOf(
  { echo, logprobs }: Pick<CompletionsBody, "echo" | "logprobs">,
  prompts: readonly Prompt[],
  ids: readonly (readonly number[])[],
  { model, signal }: { model: Model; signal: AbortSignal },
): Promise<Echo[]> {
  const top = logprobs ?? null;
  return Promise.all(prompts.map(async (prompt, i) => {
    if (!echo) return NO_ECHO;
    const text = promptText(prompt, model.tokenizer);
    if (top === null) return { text, logprobs: [] };
    const [first, ...rest] = await promptLogprobs(model, ids[i], top, signal);
    return { text, logprobs: [{ ...first, ...nameOfFirst(prompt, first.id, model) }, ...rest] };
  }));
}

/** A BOS that the tokenizer has put before the text is a token, but no part of it. */
function nameOfFirst(prompt: Prompt, id: number, { tokenizer }: Model): { name?: string } {
  const isAdded = typeof prompt === "string" && tokenizer.isSpecial(id) &&
    !prompt.startsWith(tokenizer.tokenText(id) ?? "");
  return isAdded ? { name: "" } : {};
}
