import { type Command, Option } from "commander";
import { UsageError } from "../runtime/errors.ts";
import { type Pooling, POOLINGS } from "../runtime/pooling.ts";
import type { Model } from "../runtime/types.ts";
import { type Context, interruptible } from "./context.ts";
import { addModelFlags, asUsageError, type ModelFlags } from "./flags.ts";
import { printJson, shortFloat32 } from "./format.ts";
import { readTextFile } from "./generate.ts";
import { type Io, readAll } from "./io.ts";
import { loadModel } from "./loading.ts";

interface EmbedFlags extends ModelFlags {
  file?: string;
  pooling?: Pooling;
  normalize: boolean;
  prompt?: string;
  promptName?: string;
}

export function addEmbedCommand(program: Command, context: Context): void {
  const command = program.command("embed")
    .description("vectors of what texts mean")
    .argument("[texts...]", "texts; none: standard input, a text a line")
    .option("--file <file>", "UTF-8 file with a text a line; -: standard input")
    .addOption(
      new Option(
        "--pooling <kind>",
        "whose states: the mean of all tokens, the first's, the last's, and rarer ones",
      )
        .choices(POOLINGS),
    )
    .option("--no-normalize", "leave vectors at the length that they have")
    .option("--prompt <text>", 'what stands before each text; "": nothing')
    .option("--prompt-name <name>", "one of the model's own prompts, such as query or document");
  addModelFlags(command)
    .addHelpText("after", EMBED_HELP)
    .action((texts: string[], flags: EmbedFlags) => embed(texts, flags, context));
}

const EMBED_HELP = `
Each vector is printed on a line, its float32 numbers between spaces.
--json prints {"model", "pooling", "embeddings": [[...], ...], "promptTokens"}.
The model's files say which states are taken and whether vectors have length 1; where they don't, it is
the last token's of embedding models, the mean of others, and length 1. A prompt that they name as the
default stands before each text unless a flag says otherwise; standard error says so.

Examples:
  trilith embed "A cat sat on the mat" "A dog lay on the rug" --json
  trilith embed --model ./bitnet-embedding-0.6b --file lines.txt
`;

async function embed(given: string[], flags: EmbedFlags, context: Context): Promise<void> {
  const { io } = context;
  if (flags.prompt !== undefined && flags.promptName !== undefined) {
    throw new UsageError("Cannot use two prompts: give one of --prompt and --prompt-name");
  }
  const texts = await textsOf(given, flags.file, io);
  await interruptible(io, async (signal, interrupts) => {
    await using model = await loadModel(context, flags, signal, interrupts);
    const pooling = flags.pooling ?? model.embeddingDefaults.pooling;
    // Without the flag it is true, which must not overrule the model.
    const normalize = flags.normalize && model.embeddingDefaults.normalize;
    const { prompt, promptName } = flags;
    const options = { pooling, normalize, prompt, promptName, signal };
    if (!flags.quiet) sayDefaultPrompt(model, flags, io);
    try {
      const found = await Promise.all(texts.map((text) => model.embed(text, options)));
      const embeddings = found.map(({ values }) => Array.from(values, shortFloat32));
      const promptTokens = found.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
      if (flags.json) {
        printJson(io.stdout, { model: model.name, pooling, embeddings, promptTokens });
      } else for (const vector of embeddings) io.stdout.write(`${vector.join(" ")}\n`);
    } catch (error) {
      throw asUsageError(error);
    }
  });
}

/** Texts are not embedded as they were given: whoever gave them should know. */
function sayDefaultPrompt(
  { embeddingPrompts: { texts, defaultName } }: Model,
  { prompt, promptName }: EmbedFlags,
  { stderr }: Io,
): void {
  if (defaultName === null || prompt !== undefined || promptName !== undefined) return;
  stderr.write(
    `Before each text stands the model's prompt ${JSON.stringify(defaultName)}, ` +
      `${JSON.stringify(texts[defaultName])}: --prompt and --prompt-name choose another\n`,
  );
}

async function textsOf(given: string[], file: string | undefined, io: Io): Promise<string[]> {
  if (given.length > 0 && file !== undefined) {
    throw new UsageError("Cannot take texts from --file and from arguments: give one of both");
  }
  if (given.length > 0) return given;
  const isPiped = file === undefined || file === "-";
  const text = isPiped ? await readAll(io.stdin) : await readTextFile(file, "--file");
  const lines = text.split(/\r?\n/).filter((line) => line !== "");
  if (lines.length > 0) return lines;
  throw new UsageError(
    "Cannot embed without a text: give some as arguments, on standard input or with --file",
  );
}
