import type { Command } from "commander";
import type { Model } from "../runtime/types.ts";
import { type Context, interruptible } from "./context.ts";
import { addModelFlags, asUsageError, type ModelFlags } from "./flags.ts";
import { printJson } from "./format.ts";
import { readTextFile } from "./generate.ts";
import { type Io, readAll } from "./io.ts";
import { loadModel } from "./loading.ts";

interface PerplexityFlags extends ModelFlags {
  file: string;
}

export function addPerplexityCommand(program: Command, context: Context): void {
  const command = program.command("perplexity")
    .description("how well a model predicts a text, as llama.cpp reports it")
    .requiredOption("--file <file>", "UTF-8 text; -: standard input");
  addModelFlags(command)
    .addHelpText("after", PERPLEXITY_HELP)
    .action((flags: PerplexityFlags) => perplexityCommand(flags, context));
}

const PERPLEXITY_HELP = `
The text is cut into chunks of --ctx tokens (default: 512, or the model's context if that is less).
The first half of a chunk is context only, the second half is predicted; a last chunk that is not
full is left out.

--json prints {"perplexity", "standardError", "tokens", "bitsPerByte", "chunks"}.

Examples:
  trilith perplexity --file wiki.test.raw
  trilith perplexity --model ./bitnet-b1.58-2B-4T --file wiki.test.raw --ctx 2048 --json
`;

async function perplexityCommand(flags: PerplexityFlags, context: Context): Promise<void> {
  const { io } = context;
  const text = flags.file === "-"
    ? await readAll(io.stdin)
    : await readTextFile(flags.file, "--file");
  await interruptible(io, async (signal, interrupts) => {
    await using model = await loadModel(context, flags, signal, interrupts);
    const result = await measure(model, text, flags, io, signal);
    if (flags.json) return printJson(io.stdout, result);
    const { perplexity, standardError, bitsPerByte, tokens, chunks } = result;
    io.stdout.write(
      `Perplexity ${perplexity.toFixed(4)} +/- ${standardError.toFixed(5)}, ` +
        `${bitsPerByte.toFixed(4)} bits a byte, ${tokens} tokens in ${chunks} chunks\n`,
    );
  });
}

async function measure(
  model: Model,
  text: string,
  { ctx, quiet }: PerplexityFlags,
  { stderr }: Io,
  signal: AbortSignal,
) {
  const { perplexity } = await import("../runtime/perplexity.ts");
  try {
    return await perplexity(model, text, {
      chunkTokens: ctx,
      signal,
      onChunk({ done, total, perplexity }) {
        if (!quiet) stderr.write(`[${done}/${total}] ${perplexity.toFixed(4)}\n`);
      },
    });
  } catch (error) {
    throw asUsageError(error);
  }
}
