/** Flags from environment variables, for services and containers. */
import type { Command, Option } from "commander";
import { UsageError } from "../runtime/errors.ts";
import type { Io } from "./io.ts";

const YES = ["1", "true", "yes", "on"];
const NO = ["0", "false", "no", "off"];

/** `--max-body` and `--no-web` are TRILITH_MAX_BODY and TRILITH_WEB. */
export function variableOf(option: Option): string {
  const words = option.attributeName().replaceAll(/[A-Z]/g, (letter) => `_${letter}`);
  return `TRILITH_${words.toUpperCase()}`;
}

/** All variables of a command, for its help. */
export function variablesOf(command: Command): string[] {
  return command.options.map(variableOf);
}

/**
 * Gives a command's flags the values of their variables where the command line has none. Not
 * commander's own way, which would read variables that Deno may not allow us to.
 *
 * @param repeatable Flags whose variables are lists with commas.
 * @throws {UsageError} If a value is not one that the flag takes.
 */
export function readEnvironmentFlags(
  command: Command,
  io: Io,
  repeatable: readonly string[],
): void {
  for (const option of command.options) {
    const name = option.attributeName();
    const text = io.environment(variableOf(option));
    if (text === null || command.getOptionValueSource(name) === "cli") continue;
    const texts = repeatable.includes(name) ? listOf(text) : [text];
    command.setOptionValueWithSource(name, valueOf(option, texts), "env");
  }
}

export function listOf(text: string): string[] {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "");
}

function valueOf(option: Option, texts: readonly string[]): unknown {
  if (option.isBoolean() || option.negate) return booleanOf(variableOf(option), texts[0]);
  const { parseArg } = option;
  if (parseArg === undefined) return texts[0];
  try {
    return texts.reduce<unknown>((previous, text) => parseArg(text, previous), undefined);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(`Cannot use ${variableOf(option)} from the environment: ${why}`, {
      cause: error,
    });
  }
}

function booleanOf(variable: string, text: string): boolean {
  const word = text.toLowerCase();
  if (YES.includes(word)) return true;
  if (NO.includes(word)) return false;
  throw new UsageError(`Cannot use ${variable} ${JSON.stringify(text)}: give 1 or 0`);
}
