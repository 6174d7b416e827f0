import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import { UsageError } from "../runtime/errors.ts";
import { samplerOptionsOf } from "../runtime/sampler_advice.ts";
import type { GenerateOptions, Generation, GenerationResult, Model } from "../runtime/types.ts";
import { type Context, EXIT_INTERRUPTED, interruptible } from "./context.ts";
import {
  addModelFlags,
  addSamplingFlags,
  type ModelFlags,
  SAMPLING_NOTE,
  type SamplingFlags,
  tokenIds,
  withFlagErrors,
} from "./flags.ts";
import { paint, printable, printJson } from "./format.ts";
import { type Io, readAll } from "./io.ts";
import { loadModel } from "./loading.ts";
import { checkPermissions } from "./permissions.ts";
import { statisticsOf } from "./statistics.ts";

interface GenerateFlags extends ModelFlags, SamplingFlags {
  promptFile?: string;
  promptIds?: number[];
  bos: boolean;
  raw?: boolean;
}

type Prompt = string | readonly number[];

/** What the story model goes on from when nobody says. */
const STORY_PROMPT = "Once upon a time";

export function addGenerateCommand(program: Command, context: Context): void {
  const command = program.command("generate")
    .description("generate text that goes on from a prompt")
    .argument("[prompt]", "text to go on from; - or nothing: standard input")
    .option("-f, --prompt-file <file>", "read the prompt from a file")
    .option("--prompt-ids <ids>", "the prompt as token ids: 1,2,3", tokenIds("--prompt-ids"))
    .option("--no-bos", "do not begin with the tokenizer's own special tokens")
    .option(
      "--raw",
      "print the completion's text alone, byte for byte: no prompt, no last newline",
    );
  addSamplingFlags(addModelFlags(command))
    .addHelpText("after", `${SAMPLING_NOTE}${GENERATE_HELP}`)
    .action((prompt: string | undefined, flags: GenerateFlags) => generate(prompt, flags, context));
}

const GENERATE_HELP = `
The prompt is never put in a chat template (that is what chat is for), with or without --raw.
The last newline of a prompt from standard input or a file is not part of it. Ctrl-C stops and
prints what there is; --json then has "finishReason": "abort".

Examples:
  trilith generate "Once upon a time" --max-tokens 100 --seed 7
  trilith generate --model ./bitnet-b1.58-2B-4T --temperature 0 < prompt.txt
  trilith generate "The capital of France is" --stop . --json
`;

async function generate(
  argument: string | undefined,
  flags: GenerateFlags,
  context: Context,
): Promise<void> {
  const prompt = await promptOf(argument, flags, context.io);
  await interruptible(context.io, async (signal, interrupts) => {
    const asked = { ...flags, task: "generate" } as const;
    await using model = await loadModel(context, asked, signal, interrupts);
    const options = generateOptionsOf(flags, model, signal);
    const generation = withFlagErrors(() => model.generate(prompt, options));
    const result = flags.json
      ? await generation
      : await stream(generation, prompt, model, context, flags);
    if (flags.json) {
      const { name, kernels: isa, scheme, kernelReason: reason } = model;
      printJson(context.io.stdout, { model: name, ...result, kernels: { isa, scheme, reason } });
    }
    if (!flags.quiet) context.io.stderr.write(`${statisticsOf(result, model)}\n`);
    if (signal.aborted) context.exitCode = EXIT_INTERRUPTED;
  });
}

/** @throws {UsageError} If there are several prompts, or none. */
async function promptOf(
  argument: string | undefined,
  { promptFile, promptIds, model }: GenerateFlags,
  io: Io,
): Promise<Prompt> {
  const given = [argument, promptFile, promptIds].filter((source) => source !== undefined);
  if (given.length > 1) {
    throw new UsageError(
      "Cannot use several prompts: give one of an argument, --prompt-file and --prompt-ids",
    );
  }
  if (promptIds !== undefined) return promptIds;
  if (promptFile !== undefined) return withoutLastNewline(await readPromptFile(promptFile, io));
  if (argument !== undefined && argument !== "-") return argument;
  const isPiped = argument === "-" || !io.stdin.isTerminal;
  const piped = isPiped ? withoutLastNewline(await readAll(io.stdin)) : "";
  return piped === "" ? storyPrompt(model, io) : piped;
}

function storyPrompt(model: string | undefined, io: Io): string {
  if (model !== undefined) {
    throw new UsageError(
      'Cannot generate without a prompt: give one as an argument, such as generate "Once upon a time"' +
        ", on standard input, or with --prompt-file or --prompt-ids",
    );
  }
  io.stderr.write(`No prompt was given: the story model starts from "${STORY_PROMPT}"\n`);
  return STORY_PROMPT;
}

async function readPromptFile(path: string, io: Io): Promise<string> {
  if (path === "-") return await readAll(io.stdin);
  return await readTextFile(path, "--prompt-file");
}

/** @throws {UsageError} If the file can't be read. */
export async function readTextFile(path: string, flag: string): Promise<string> {
  checkPermissions({ name: "read", path });
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as { code?: string };
    const why = code === "ENOENT" ? "there is no such file" : code ?? String(error);
    throw new UsageError(`Cannot read ${flag} ${path}: ${why}`, { cause: error });
  }
}

function withoutLastNewline(text: string): string {
  return text.replace(/\r?\n$/, "");
}

function generateOptionsOf(
  flags: GenerateFlags,
  { generationDefaults }: Model,
  signal: AbortSignal,
): GenerateOptions {
  return {
    ...samplerOptionsOf(flags, generationDefaults),
    maxTokens: flags.maxTokens ?? generationDefaults.maxNewTokens,
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
    addSpecialTokens: flags.bos,
    speculate: flags.speculate,
    signal,
  };
}

/** Prints pieces as they come; on a terminal after the prompt, which is dim. */
async function stream(
  generation: Generation,
  prompt: Prompt,
  { tokenizer }: Model,
  { io: { stdout } }: Context,
  { raw }: GenerateFlags,
): Promise<GenerationResult> {
  const show = (text: string) => stdout.isTerminal ? printable(text) : text;
  if (stdout.isTerminal && !raw) {
    const text = typeof prompt === "string" ? prompt : tokenizer.decode(prompt);
    stdout.write(paint(stdout, "dim", printable(text)));
  }
  for await (const { text } of generation) stdout.write(show(text));
  if (!raw) stdout.write("\n");
  return await generation;
}
