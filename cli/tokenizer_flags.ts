import { type Command, Option } from "commander";
import { dirname } from "node:path";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { UsageError } from "../runtime/errors.ts";
import type { Tokenizer } from "../runtime/types.ts";
import type { Context } from "./context.ts";
import { addJsonFlag } from "./flags.ts";
import { type Input, type Output, readLineGroups } from "./io.ts";
import { modelPath } from "./model_path.ts";
import { checkPermissions } from "./permissions.ts";

/** Flags that `tokenize` and `detokenize` share. */
export interface TokenizerFlags {
  model?: string;
  tokenizer?: string;
  json?: boolean;
  jsonl?: boolean;
  special: boolean;
}

export function addTokenizerFlags(command: Command): Command {
  command
    .addOption(
      new Option(
        "-m, --model <path>",
        "the model whose tokenizer to use; default: the story model's",
      )
        .conflicts("tokenizer"),
    )
    .option("--tokenizer <file>", "a tokenizer.json or its folder, in place of a model");
  return addJsonFlag(command);
}

export async function loadTokenizer(
  context: Context,
  flags: TokenizerFlags,
): Promise<Tokenizer> {
  const path = flags.tokenizer ?? modelFolder(await modelPath(context, flags));
  checkPermissions({ name: "read", path: path ?? embeddedModelFolder() });
  return await context.engine.loadTokenizer(path);
}

/** A model may be named by its weights: its tokenizer lies beside them. */
function modelFolder(model: string | undefined): string | undefined {
  return model?.endsWith(".safetensors") ? dirname(model) : model;
}

/** Answers every line of JSON with a line of JSON, as soon as it comes. */
export async function answerJsonLines(
  stdin: Input,
  stdout: Output,
  answer: (value: unknown) => unknown,
): Promise<void> {
  let number = 0;
  for await (const lines of readLineGroups(stdin)) {
    const answers = lines.map((line) => JSON.stringify(answerLine(line, ++number, answer)));
    stdout.write(`${answers.join("\n")}\n`);
  }
}

function answerLine(line: string, number: number, answer: (value: unknown) => unknown): unknown {
  try {
    return answer(JSON.parse(line));
  } catch (error) {
    const shown = JSON.stringify(line.slice(0, 40));
    throw new Error(`Cannot read line ${number} of standard input, ${shown}: ${reason(error)}`, {
      cause: error,
    });
  }
}

function reason(error: unknown): string {
  return error instanceof SyntaxError ? "it must be JSON" : (error as Error).message;
}

/** @throws {UsageError} If both ways of giving the input are used. */
export function refuseBoth(jsonl: boolean | undefined, input: unknown, name: string): void {
  if (jsonl && input !== undefined) {
    throw new UsageError(
      `Cannot use ${name} with --jsonl: its input is standard input, a line each`,
    );
  }
}
