import type { Command } from "commander";
import type { TextSource } from "../runtime/text_source.ts";
import type { Model } from "../runtime/types.ts";
import { type Context, interruptible } from "./context.ts";
import { addModelFlags, asUsageError, type ModelFlags } from "./flags.ts";
import { printJson } from "./format.ts";
import type { Io } from "./io.ts";
import { loadModel } from "./loading.ts";
import {
  addTextFlags,
  chunkOptionsOf,
  CHUNKS_HELP,
  openText,
  TextClock,
  type TextFlags,
} from "./text_flags.ts";

interface PerplexityFlags extends ModelFlags, TextFlags {
  file: string;
}

export function addPerplexityCommand(program: Command, context: Context): void {
  const command = program.command("perplexity")
    .description("how well a model predicts a text, as llama.cpp reports it")
    .requiredOption("--file <file>", "UTF-8 text; -: standard input");
  addModelFlags(addTextFlags(command))
    .addHelpText("after", PERPLEXITY_HELP)
    .action((flags: PerplexityFlags) => perplexityCommand(flags, context));
}

const PERPLEXITY_HELP = `${CHUNKS_HELP}
The first error takes the tokens as independent, as llama.cpp does. The second is from how much
chunks differ, which is more where a text changes its subject; it needs ten chunks or so.

--json prints {"perplexity", "standardError", "chunkStandardError", "tokens", "bitsPerByte",
"chunks"}.

Examples:
  trilith perplexity --file wiki.test.raw
  trilith perplexity --model ./bitnet-b1.58-2B-4T --file wiki.test.raw --ctx 2048 --json
  trilith perplexity --file large.txt --chunks 40
`;

async function perplexityCommand(flags: PerplexityFlags, context: Context): Promise<void> {
  const { io } = context;
  const text = await openText(flags.file, io);
  await interruptible(io, async (signal, interrupts) => {
    await using model = await loadModel(context, flags, signal, interrupts);
    const result = await measure(model, text, flags, io, signal);
    if (flags.json) return printJson(io.stdout, result);
    const { perplexity, standardError, chunkStandardError, bitsPerByte, tokens, chunks } = result;
    const byChunks = chunkStandardError === null
      ? ""
      : ` (by chunks +/- ${chunkStandardError.toFixed(5)})`;
    io.stdout.write(
      `Perplexity ${perplexity.toFixed(4)} +/- ${standardError.toFixed(5)}${byChunks}, ` +
        `${bitsPerByte.toFixed(4)} bits a byte, ${tokens} tokens in ${chunks} chunks\n`,
    );
  });
}

async function measure(
  model: Model,
  text: TextSource,
  flags: PerplexityFlags,
  { stderr }: Io,
  signal: AbortSignal,
) {
  const { perplexity } = await import("../runtime/perplexity.ts");
  const clock = new TextClock();
  try {
    return await perplexity(model, text, {
      ...chunkOptionsOf(flags),
      signal,
      onChunk(progress) {
        if (flags.quiet) return;
        const { perplexity, standardError } = progress;
        const figures = `${perplexity.toFixed(4)} +/- ${standardError.toFixed(4)}`;
        stderr.write(`${clock.line(progress)} ${figures}\n`);
      },
    });
  } catch (error) {
    throw asUsageError(error);
  }
}
