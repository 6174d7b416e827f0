import type { Command } from "commander";
import type { Tokenizer } from "../runtime/types.ts";
import type { Context } from "./context.ts";
import { printable, printJson, table } from "./format.ts";
import { readAll } from "./io.ts";
import {
  addTokenizerFlags,
  answerJsonLines,
  loadTokenizer,
  refuseBoth,
  type TokenizerFlags,
} from "./tokenizer_flags.ts";

interface TokenizeFlags extends TokenizerFlags {
  bos: boolean;
}

export function addTokenizeCommand(program: Command, context: Context): void {
  const command = program.command("tokenize")
    .description("text to token ids")
    .argument("[text]", "text; - or nothing: standard input, every byte of it")
    .option("--jsonl", "standard input: a JSON string a line; out: a JSON array of ids a line")
    .option("--no-bos", "add no special tokens such as BOS")
    .option("--no-special", "special tokens in the text are ordinary text");
  addTokenizerFlags(command)
    .addHelpText("after", TOKENIZE_HELP)
    .action((text: string | undefined, flags: TokenizeFlags) => tokenize(text, flags, context));
}

const TOKENIZE_HELP = `
--json prints {"ids": [...], "tokens": [...]}, tokens as the vocabulary spells them.

Examples:
  trilith tokenize "Hello world"
  trilith tokenize --tokenizer ./tokenizer.json --no-bos --json "Hello world"
  trilith tokenize --jsonl < strings.jsonl > ids.jsonl
`;

async function tokenize(text: string | undefined, flags: TokenizeFlags, context: Context) {
  refuseBoth(flags.jsonl, text, "a text");
  const { stdin, stdout } = context.io;
  const tokenizer = await loadTokenizer(context, flags);
  const options = { addSpecialTokens: flags.bos, parseSpecial: flags.special };
  if (flags.jsonl) {
    return await answerJsonLines(stdin, stdout, (value) => {
      if (typeof value !== "string") throw new TypeError("it must be a JSON string");
      return tokenizer.encode(value, options);
    });
  }
  const input = text === undefined || text === "-" ? await readAll(stdin) : text;
  const ids = tokenizer.encode(input, options);
  if (flags.json) return printJson(stdout, { ids, tokens: tokensOf(ids, tokenizer) });
  const rows = ids.map((id) => [id, printable(tokenizer.tokenText(id) ?? "")]);
  stdout.write(table(stdout, ["id", "token"], rows));
}

function tokensOf(ids: readonly number[], tokenizer: Tokenizer): (string | null)[] {
  return ids.map((id) => tokenizer.tokenText(id));
}
