/** Any JSON object. */
import { JsonValues } from "./json_values.ts";
import type { RuleBook } from "./rule_book.ts";

/** Rule 0: a JSON object with anything in it. */
export async function jsonRules(book: RuleBook, longestToken: number): Promise<void> {
  await new JsonValues(book, longestToken).anyObject();
}
