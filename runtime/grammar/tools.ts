/** Calls of functions, as models write them into their text. */
import { shown } from "../errors.ts";
import { compileExpression, complementOf, type Dfa } from "./automaton.ts";
import { codePoints } from "./encoding.ts";
import {
  automaton,
  call,
  choice,
  type Expression,
  repeat,
  type RuleId,
  sequence,
  set,
} from "./expression.ts";
import { defineSchema } from "./json_schema.ts";
import { COLON, COMMA, JsonValues } from "./json_values.ts";
import { ANY } from "./ranges.ts";
import type { RuleBook } from "./rule_book.ts";
import { GrammarError, type GrammarSource, type JsonSource, type ToolSchema } from "./types.ts";

export const CALL_START = "<tool_call>";
export const CALL_END = "</tool_call>";

type ToolsSource = Extract<GrammarSource, { kind: "tools" }>;

/** Rule 0: calls, and with `auto` text before or instead of them. */
export async function toolRules(
  book: RuleBook,
  { tools, choice: choiceOf, parallel, text }: ToolsSource,
  longestToken: number,
): Promise<void> {
  checkTools(tools);
  const root = book.declare();
  const values = new JsonValues(book, longestToken);
  const calls: Expression[] = [];
  for (const tool of tools) calls.push(await callOf(book, values, tool));
  const one = sequence(`${CALL_START}\n{"name"`, COLON, choice(...calls), `}\n${CALL_END}`);
  const all = parallel ? sequence(one, repeat(sequence("\n", one), 0, null)) : one;
  if (choiceOf === "required") return await book.define(root, all);
  if (text !== undefined) {
    return await book.define(root, choice(call(await jsonRule(text, values)), all));
  }
  const free = automaton(await textWithout(CALL_START, book));
  await book.define(root, choice(free, sequence(free, all)));
}

async function jsonRule(source: JsonSource, values: JsonValues): Promise<RuleId> {
  if (source.kind === "json") return await values.anyObject();
  const id = values.book.declare();
  await defineSchema(id, source.schema, values);
  return id;
}

async function callOf(book: RuleBook, values: JsonValues, tool: ToolSchema): Promise<Expression> {
  const id = book.declare();
  await defineSchema(id, tool.parameters ?? {}, values, "object");
  return sequence(JSON.stringify(tool.name), COMMA, `"arguments"`, COLON, call(id));
}

/** Texts without a word anywhere. */
async function textWithout(word: string, book: RuleBook): Promise<Dfa> {
  const anything = repeat(set(ANY), 0, null);
  const containing = sequence(anything, word, anything);
  return complementOf(await compileExpression(containing, codePoints, book.work));
}

function checkTools(tools: readonly ToolSchema[]): void {
  const names = tools.map(({ name }) => name);
  const isSound = names.length > 0 && new Set(names).size === names.length &&
    names.every((name) => typeof name === "string" && name !== "");
  if (isSound) return;
  throw new GrammarError(
    "Cannot constrain to calls of these tools as there must be one or more with different names: " +
      `current names are ${shown(names)}`,
  );
}
