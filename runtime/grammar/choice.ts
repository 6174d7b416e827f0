/** One of some texts. */
import { text } from "./expression.ts";
import type { RuleBook } from "./rule_book.ts";
import { GrammarError } from "./types.ts";

/** Rule 0: one of `choices`. */
export async function choiceRules(book: RuleBook, choices: readonly string[]): Promise<void> {
  const isSound = Array.isArray(choices) && choices.length > 0 &&
    choices.every((one) => typeof one === "string" && one.isWellFormed());
  if (!isSound) {
    throw new GrammarError(
      "Cannot constrain to these choices as they must be a list of one or more texts without " +
        "halves of surrogate pairs",
    );
  }
  await book.add({ kind: "choice", parts: choices.map(text) });
}
