import type { Command } from "commander";
import { UsageError } from "../runtime/errors.ts";
import type { Context } from "./context.ts";
import { tokenIds } from "./flags.ts";
import { printable, printJson } from "./format.ts";
import {
  addTokenizerFlags,
  answerJsonLines,
  loadTokenizer,
  refuseBoth,
  type TokenizerFlags,
} from "./tokenizer_flags.ts";

interface DetokenizeFlags extends TokenizerFlags {
  ids?: number[];
}

export function addDetokenizeCommand(program: Command, context: Context): void {
  const command = program.command("detokenize")
    .description("token ids to text")
    .option("--ids <ids>", "token ids: 1,2,3", tokenIds("--ids"))
    .option("--jsonl", "standard input: a JSON array of ids a line; out: a JSON string a line")
    .option("--no-special", "leave special tokens out of the text");
  addTokenizerFlags(command)
    .addHelpText("after", DETOKENIZE_HELP)
    .action((flags: DetokenizeFlags) => detokenize(flags, context));
}

const DETOKENIZE_HELP = `
--json prints {"text": "..."}.

Examples:
  trilith detokenize --ids 1,2,3
  trilith detokenize --tokenizer ./tokenizer.json --no-special --ids 1,2,3 --json
`;

async function detokenize(flags: DetokenizeFlags, context: Context): Promise<void> {
  refuseBoth(flags.jsonl, flags.ids, "--ids");
  const { stdin, stdout } = context.io;
  if (!flags.jsonl && flags.ids === undefined) {
    throw new UsageError("Cannot detokenize without ids: give --ids 1,2,3, or --jsonl");
  }
  const tokenizer = await loadTokenizer(context, flags);
  const decode = (ids: readonly number[]) => {
    const unknown = ids.find((id) => tokenizer.tokenText(id) === null);
    if (unknown === undefined) return tokenizer.decode(ids, { skipSpecialTokens: !flags.special });
    throw new UsageError(
      `Cannot detokenize id ${unknown} as the vocabulary has no such token: give known ids`,
    );
  };
  if (flags.jsonl) {
    return await answerJsonLines(stdin, stdout, (value) => decode(checkIds(value)));
  }
  const text = decode(flags.ids!);
  if (flags.json) return printJson(stdout, { text });
  stdout.write(`${stdout.isTerminal ? printable(text) : text}\n`);
}

function checkIds(value: unknown): number[] {
  if (Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0)) return value;
  throw new TypeError("it must be a JSON array of token ids");
}
